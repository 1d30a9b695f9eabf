// Comfort only: the page reads whole without it. Tables sort, figures enlarge, the contents mark the place.
"use strict";
const value = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace(/,/g, ""));
  return Number.isNaN(number) ? [1, text] : [0, number];
};
const compare = (a, b) => a[0] - b[0] || (a[0] ? a[1].localeCompare(b[1], undefined, { numeric: true }) : a[1] - b[1]);
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
// The contents mark the last heading that has passed the top of the window.
const links = [...document.querySelectorAll(".page-side > ol a")].map((link) => [link, document.getElementById(link.hash.slice(1))]);
const mark = () => {
  const passed = links.filter(([, target]) => target && target.getBoundingClientRect().top < innerHeight / 4);
  const current = passed.at(-1)?.[0];
  for (const [link] of links) link.toggleAttribute("aria-current", link === current);
  current?.scrollIntoView({ block: "nearest" });
};
let waiting = false;
addEventListener("scroll", () => {
  if (!waiting) requestAnimationFrame(() => { waiting = false; mark(); });
  waiting = true;
}, { passive: true });
mark();
// A link into a fold opens it, one to a claim the claim's own.
const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let fold = target?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  const own = target?.matches("tr") && target.querySelector("details");
  if (own) own.open = true;
};
addEventListener("hashchange", reveal);
reveal();
