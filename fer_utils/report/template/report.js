// Comfort only: the page reads whole without it. Tables sort by a click on a heading, figures enlarge, the contents mark the place.
"use strict";
const value = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace(/,/g, ""));
  return Number.isNaN(number) ? [1, text] : [0, number];
};
const compare = (a, b) => a[0] - b[0] || (a[0] ? a[1].localeCompare(b[1]) : a[1] - b[1]);
for (const table of document.querySelectorAll("table:not(:has([rowspan], [colspan]))")) {
  const rows = [...(table.tBodies[0]?.rows ?? [])];
  const headings = [...(table.tHead?.rows[0]?.cells ?? [])];
  if (rows.length < 3 || rows.some((row) => row.cells.length !== headings.length)) continue;
  headings.forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.className = "page-sort";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => compare(value(a, column), value(b, column)) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}
const dialog = document.createElement("dialog");
dialog.className = "page-large";
dialog.setAttribute("aria-label", "Enlarged figure; Escape closes it");
dialog.addEventListener("click", () => dialog.close());
document.body.append(dialog);
for (const image of document.querySelectorAll("main figure img")) {
  const enlarge = () => {
    dialog.replaceChildren(image.cloneNode());
    dialog.showModal();
  };
  image.addEventListener("click", enlarge);
  image.closest("figure").addEventListener("keydown", (event) => event.key === "Enter" && enlarge());
}
const links = new Map([...document.querySelectorAll(".page-side a")].map((link) => [link.hash.slice(1), link]));
const watch = new IntersectionObserver((entries) => {
  const seen = entries.find((entry) => entry.isIntersecting);
  if (!seen) return;
  links.forEach((link) => link.removeAttribute("aria-current"));
  links.get(seen.target.id)?.setAttribute("aria-current", "true");
}, { rootMargin: "-10% 0px -80% 0px" });
for (const id of links.keys()) {
  const target = document.getElementById(id);
  if (target) watch.observe(target);
}
