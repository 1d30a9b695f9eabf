"""The report: the executed notebooks of a run in one HTML file that loads nothing from elsewhere.

Each notebook becomes HTML through ``template/notebook.html.j2``. Their heading ids repeat and each has a title of the
first rank, so headings, ids and links are put in order here; ``template/page.html.j2`` writes the page around them.
The first screen is the output of the audit's cell tagged ``reproducibility-summary``. Findings and audit come first;
every other notebook is an appendix.
"""

import argparse
import base64
import gc
import hashlib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

from fer_utils.errors import FerError, ResultsError
from fer_utils.files import write_text
from fer_utils.findings.results import command, read_run
from fer_utils.paths import project_root
from fer_utils.report import cells, facts
from fer_utils.report.links import add_anchors, add_data, assign_ids, list_exhibits, order_links
from fer_utils.report.markup import TEMPLATE, hide_folders, render

TITLE = "Emotion recognition on FER2013: a reproducibility report"

#: The chapters beside the trainings, with the heading of one whose notebook is missing; the last follows them.
CHAPTERS = {
    "findings": "Findings",
    "audit": "Audit of the thesis's claims",
    "dataset": "The dataset",
    "methods": "Methods",
}
#: These are the report's body, and named when they are missing; all others are appendices.
BODY = ("findings", "audit")

#: The figure of the first screen.
FIGURE = "fig-5-1"


@dataclass
class Part:
    """One notebook's place in the report."""

    slug: str  # the section's id, and the prefix of the ids within
    heading: str
    notebook: Path | None = None
    chapter: bool = False  # whether the notebook's own title serves as the heading
    failure: dict = field(default_factory=dict)
    note: str = ""  # shown when the notebook is missing or cannot be read, with the command that makes it
    command: str = ""
    subtitle: str = ""
    source: str = ""  # file name of the notebook that was executed, as links between notebooks know it
    soup: BeautifulSoup | None = None
    ids: dict = field(default_factory=dict)  # the notebook's ids, and what they are called in the report
    sections: list = field(default_factory=list)


def list_parts(run):
    """List the report's parts in order, without their HTML; findings and audit are always among them."""
    *parts, last = [chapter(run, name, heading) for name, heading in CHAPTERS.items()]
    for training in run.trainings:
        part = Part(training.place, training.title, failure=training.failure)
        part.notebook = find_notebook(run.folder, training.place, partial_first=bool(training.failure))
        if part.notebook is None:
            part.note = "Its executed notebook is not in the run's folder."
        elif not (training.record or training.failure):
            part.note = "There is no run.json beside this notebook: the training has not finished."
        if training.record or training.failure or training.folder.exists():
            parts.append(part)
    parts = [part for part in [*parts, last] if part.notebook or part.note]
    for number, part in enumerate(parts):
        part.slug = re.sub(r"[^A-Za-z0-9_-]+", "-", part.slug).strip("-") or "part"
        if part.slug in [other.slug for other in parts[:number]]:
            part.slug = f"{part.slug}-{number}"
    return parts


def chapter(run, name, heading):
    """Return the part of a notebook that is no training's; one of the body says how to make it if it is missing."""
    part = Part(name, heading, find_notebook(run.folder, name), chapter=True)
    if part.notebook and ".training" in part.notebook.relative_to(run.folder).parts:
        part.note = "This notebook stopped with an error. This command runs it again:"
    elif name in BODY and not part.notebook:
        part.note = "This chapter has not been made yet. This command makes it:"
    part.command = command(run)
    return part


def find_notebook(out, place, partial_first=False):
    """Path of an executed notebook, or of what a failed attempt left under ``.training/``; None if there is none."""
    paths = [out / place / "notebook.ipynb", out / ".training" / place / "notebook.ipynb"]
    for path in reversed(paths) if partial_first else paths:
        if path.is_file() and path.resolve().is_relative_to(out.resolve()):
            return path
    return None


# ---------------------------------------------------------------- notebooks to HTML


def convert(part, folders, told):
    """Fill a part with its notebook's HTML or a note why not, and `folders` with those of the machine that ran it.

    `told` collects the sections of the trainings: what several notebooks say in the same words stands once.
    """
    try:
        notebook = nbformat.read(part.notebook, as_version=4)
        executed = notebook.metadata.get("papermill", {})
        source = Path(executed.get("input_path") or "")
        parameters = executed.get("parameters") or {}
        # A published set's plan does not name the data any more; the notebook that trained does.
        paths = (source.parent, *(Path(parameters.get(name) or "") for name in ("out", "data")))
        folders |= {path.parent: "" for path in paths if path.is_absolute()}
        for cell in notebook.cells:
            cell.source = hide_folders(cell.source, folders)  # here, because colours split a path in the middle
        part.source = source.name
        link = f"[{part.heading}](#{part.slug})"
        arranged = cells.blocks(notebook.cells, None if part.chapter else told, link)
        part.soup = BeautifulSoup(render("notebook.html.j2", blocks=arranged), "html.parser")
    except Exception as error:
        part.note = f"{part.notebook.parent.name}/{part.notebook.name} cannot be shown: {type(error).__name__}: {error}"


def order_headings(part):
    """Put a notebook's headings below the part's own, which is of the second rank; a title is moved there."""
    headings = [found for found in part.soup.select("h1, h2, h3, h4, h5, h6") if not found.find_parent("details")]
    if headings and headings[0].name == "h1":
        title = headings.pop(0)
        text = title.get_text(" ", strip=True)
        if part.chapter:
            part.heading = text
        elif text not in part.heading:
            part.subtitle = text
        part.ids[text.replace(" ", "-")] = part.slug  # links to the notebook's title lead to the part
        title.decompose()
    for heading in headings:
        heading.name = f"h{min(int(heading.name[1]) + 1, 6)}"
        # As Jupyter names them, so that links within the notebook hold.
        heading["id"] = heading.get("id") or heading.get_text(" ", strip=True).replace(" ", "-")
        if heading.name == "h3":
            part.sections.append((heading, heading.get_text(" ", strip=True)))


def order_tables(part):
    """Give tables and figures a container that scrolls sideways, and every header cell its scope."""
    for figure in part.soup.find_all("figure"):
        figure.attrs |= {"class": [*figure.get("class", []), "page-figure"], "tabindex": "0"}
    for table in part.soup.find_all("table"):
        for body, scope in (("thead", "col"), ("tbody", "row")):
            for cell in table.select(f"{body} th"):
                cell.attrs.setdefault("scope", scope)
                if not cell.get_text(strip=True):
                    cell.name = "td"
                    del cell["scope"]
        name = table.caption.get_text(" ", strip=True)[:120] if table.caption else "Table"
        box = {"class": "page-scroll", "role": "group", "tabindex": "0", "aria-label": name}
        table.wrap(part.soup.new_tag("div", attrs=box))


def remove_foreign(part):
    """Replace images that are not in the notebook by a note; remove fields to type into, and empty blocks."""
    for image in part.soup.select("img:not([src^='data:image/'])"):
        image.replace_with(f"[not in this file: {image.get('alt') or image.get('src', 'an image')}]")
    for entry in part.soup.select("input:not([type=checkbox], [type=radio])"):
        entry.decompose()
    for block in part.soup.find_all("pre"):
        if not block.get_text(strip=True):
            block.decompose()


# ---------------------------------------------------------------- the page


def take_opening(parts):
    """Take the first screen out of the part that holds it, with a copy of its figure; empty if it was not made."""
    soups = [part.soup for part in parts if part.soup]
    opening = next((found.extract() for soup in soups if (found := soup.select_one(".page-opening"))), None)
    # A picture holds the image, and the same one for a phone.
    images = [soup.select_one(f"#{FIGURE} {name}") for name in ("picture", "img") for soup in soups]
    image = next(filter(None, images), None)
    if opening and image and opening.details:
        figure = BeautifulSoup(f'<figure class="page-figure"><a href="#{FIGURE}">{image}</a></figure>', "html.parser")
        opening.details.insert_before(figure)
    return Markup(opening or "")


def build_report(out):
    """Write ``<out>/report.html`` from whatever a run folder holds, whole or not at all; return its path.

    Raises ResultsError if there is no such folder.
    """
    out = Path(out).absolute()
    if not out.is_dir():
        raise ResultsError(f"{out}: no such folder; expected a run's folder, which ./run_all.sh makes.")
    run = read_run(out)
    folders = {Path.home(): "~", project_root(): "", out.parent: ""}
    if Path(run.plan.get("data_path") or "").is_absolute():
        folders[Path(run.plan["data_path"]).parent] = ""
    parts, told = list_parts(run), {}
    for part in parts:
        if part.notebook:
            convert(part, folders, told)
        if part.soup:
            order_headings(part)
            order_tables(part)
            remove_foreign(part)
    assign_ids(parts)
    for part in parts:
        if part.soup:
            order_links(part, parts, out)
            add_data(part, out)
            add_anchors(part)
    opening = take_opening(parts)
    body = [part for part in parts if part.slug in BODY]
    for number, part in enumerate(part for part in parts if part not in body):
        part.heading = f"Appendix {number + 1}. {part.heading}"
    exhibits, claims = list_exhibits(parts)
    notices = facts.notices(run)
    css, script = style_sheet(), (TEMPLATE / "report.js").read_text(encoding="utf-8")
    page = render(
        "page.html.j2",
        title=TITLE,
        lead=facts.lead(run),
        opening=opening,
        parts=parts,
        body=body,
        notices=notices,
        flags=[notice.title for notice in notices if notice.loud],
        conditions=facts.conditions(run),
        run=run,
        fell_back=facts.fell_back,
        exhibits=exhibits,
        claims=claims,
        css=Markup(css),
        css_hash=policy_hash(css),
        script=Markup(script),
        script_hash=policy_hash(script),
    )
    path = out / "report.html"
    write_text(path, hide_folders(page, folders))
    return path


def policy_hash(text):
    """Return the hash by which the page's policy knows a style sheet or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def style_sheet():
    """Return the report's CSS, that of the claims (outputs lose their style sheets) and Pygments's for code."""
    files = [TEMPLATE / "report.css", TEMPLATE.parents[1] / "claims" / "claims.css"]
    code = HtmlFormatter(style="default").get_style_defs(".highlight")
    return "".join(path.read_text(encoding="utf-8") for path in files) + code


def main(arguments=None):
    """Build the report of the run folder named on the command line; the last line printed is its path."""
    parser = argparse.ArgumentParser(prog="python -m fer_utils.report.page", description="Build a run's report.")
    parser.add_argument("out", type=Path, help="the run's folder")
    # BeautifulSoup's trees are cycles that live to the end: to look for garbage among them takes a tenth of the time.
    gc.disable()
    try:
        print(build_report(parser.parse_args(arguments).out))
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
