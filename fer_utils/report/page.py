"""The report: the executed notebooks of a run in one HTML file that loads nothing from elsewhere.

nbconvert turns each notebook into HTML through ``template/notebook.html.j2``. It does not merge notebooks: their
heading ids repeat, and each has a title of the first rank. So headings, ids and links are put in order here, and
``template/page.html.j2`` sets header, contents and notices around them. The findings come first; every other
notebook is an appendix. What outputs and cells hold passes the allow-list of `sanitizer`, each for itself and
then every part as a whole; behind it stands the page's content security policy.
"""

import argparse
import base64
import gc
import hashlib
import mimetypes
import re
import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import jinja2
import nbformat
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from fer_utils.errors import FerError, ResultsError
from fer_utils.files import write_text
from fer_utils.paths import project_root
from fer_utils.report.facts import (
    describe_data,
    find_trainings,
    make_banners,
    named,
    read_record,
    state_facts,
    summarise,
    tabulate_trainings,
)
from fer_utils.report.privacy import HiddenFolders
from fer_utils.report.sanitizer import clean_output, clean_page

TEMPLATE = Path(__file__).parent / "template"
TITLE = "Emotion recognition on FER2013 with CNN architectures: a reproducibility report"

#: Printed output is folded away above this many lines, and cut above `LONGEST_STREAM` of them.
FOLD_ABOVE = 200
LONGEST_STREAM = 2000

#: Cells with this tag say what the report's header says, for those who read the notebook alone.
LEAVE_OUT = "not-in-report"

#: Tables of more columns than this are printed in smaller type.
WIDE_TABLE = 9

#: Ids that keep their name in the report, so that claims can link to a figure in another notebook.
SHARED_ID = re.compile(r"^(fig|table|claim)-[\w.-]+$")

#: Which form of an output is shown. Scripts and widgets are left out: the report runs no code.
DISPLAY_PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]

#: Inputs that choose what is shown; the report takes none that type something in.
CHOICES = ("checkbox", "radio")

#: Attributes that name ids, links aside.
REFERENCES = ("aria-labelledby", "aria-describedby", "for", "headers")


@dataclass
class Part:
    """One notebook's place in the report.

    Attributes
    ----------
    slug : str
        The section's ``id`` and the prefix of the ids within.
    heading : str
        What the contents show, for example ``"Appendix 3. ResNet-50, seed 0"``.
    notebook : Path or None
        The executed notebook; None where there is none to show.
    own_title : bool
        Whether the notebook's own title serves as the heading.
    failure : dict
        The record of a model that failed, else empty.
    note, command : str
        Shown when a notebook is missing or cannot be read, and the command that makes it.
    source : str
        File name of the notebook that was executed, as links between notebooks know it.
    hidden : HiddenFolders
        Folders of the machines that executed it and that make the report.
    soup : BeautifulSoup or None
        The notebook's HTML while it is being put in order.
    """

    slug: str
    heading: str
    notebook: Path | None = None
    own_title: bool = False
    failure: dict = field(default_factory=dict)
    note: str = ""
    command: str = ""
    subtitle: str = ""
    source: str = ""
    soup: BeautifulSoup | None = None
    hidden: HiddenFolders | None = None
    ids: dict = field(default_factory=dict)
    sections: list = field(default_factory=list)
    html: str = ""


# ---------------------------------------------------------------- what the report consists of


def plan_parts(out, plan, trainings):
    """List the report's parts in order: findings, dataset, methods, then each training.

    Returns
    -------
    list of Part
        Without their HTML. The findings are always among them, a missing appendix is not.
    """
    command = plan.get("command") or "./run_all.sh"
    parts = []
    for name in ("findings", "dataset", "methods"):
        part = Part(name, name.capitalize(), find_notebook(out, name), own_title=True)
        if part.notebook and ".training" in part.notebook.relative_to(out).parts:
            part.note, part.command = "This notebook stopped with an error. This command runs it again:", command
        elif name == "findings" and not part.notebook:
            part.note, part.command = (
                "The findings of this run have not been made. This command makes them:",
                command,
            )
        if part.notebook or part.note:
            parts.append(part)
    for training in trainings:
        if not (training["record"] or training["failure"] or training["folder"].exists()):
            continue
        place = f"{training['model']}/seed-{training['seed']}"
        part = Part(
            slug=place.replace("/", "-"),
            heading=named(training),
            notebook=find_notebook(out, place, partial_first=bool(training["failure"])),
            failure=training["failure"],
        )
        if part.notebook is None:
            part.note = "Its executed notebook is not in the run's folder."
        elif not (training["record"] or training["failure"]):
            part.note = "There is no run.json beside this notebook: the training has not finished."
        parts.append(part)
    for number, part in enumerate(parts):
        part.slug = re.sub(r"[^A-Za-z0-9_-]+", "-", part.slug).strip("-") or "part"
        if part.slug in [other.slug for other in parts[:number]]:
            part.slug = f"{part.slug}-{number}"
    return parts


def find_notebook(out, place, partial_first=False):
    """Path of an executed notebook, or of what a failed attempt left under ``.training/``; None if there is none.

    Parameters
    ----------
    out : Path
        The run folder.
    place : str
        Folder within the run: ``"findings"``, ``"vgg16/seed-0"``.
    partial_first : bool
        Whether the failed attempt is what is looked for.
    """
    paths = [out / place / "notebook.ipynb", out / ".training" / place / "notebook.ipynb"]
    for path in reversed(paths) if partial_first else paths:
        if path.is_file() and path.resolve().is_relative_to(out.resolve()):
            return path
    return None


# ---------------------------------------------------------------- notebooks to HTML


def make_exporter():
    """Return nbconvert's HTML exporter with this package's template and allow-list, and without prompts."""
    return HTMLExporter(
        template_name="basic",
        template_file="notebook.html.j2",
        extra_template_paths=[str(TEMPLATE)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        sanitize_html=True,
        filters={"clean_html": clean_output},
        config=Config({"NbConvertBase": {"display_data_priority": DISPLAY_PRIORITY}}),
    )


def shorten_streams(notebook):
    """Cut printed output above `LONGEST_STREAM` lines in place, leaving its two ends and a note."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            lines = output.text.splitlines() if output.output_type == "stream" else []
            if len(lines) > LONGEST_STREAM:
                half = LONGEST_STREAM // 2
                gap = f"[... {len(lines) - 2 * half} lines left out; the executed notebook holds them ...]"
                output.text = "\n".join([*lines[:half], gap, *lines[-half:]])


def convert(part, exporter, folders):
    """Fill a part with its notebook's HTML; an unreadable notebook gives a note instead."""
    if part.notebook is None:
        return
    try:
        notebook = nbformat.read(part.notebook, as_version=4)
        notebook.cells = [cell for cell in notebook.cells if LEAVE_OUT not in cell.metadata.get("tags", ())]
        part.hidden = hidden_folders(folders, notebook)
        for cell in notebook.cells:  # here, because colours split a text in the middle of a path
            cell.source = part.hidden.shorten(cell.source)
        shorten_streams(notebook)
        html, _ = exporter.from_notebook_node(notebook, resources={"fold_above": FOLD_ABOVE})
    except Exception as error:  # whatever is wrong with one notebook, the others are still reported
        part.note = f"{part.notebook.parent.name}/{part.notebook.name} cannot be shown: {type(error).__name__}: {error}"
        return
    part.source = Path(notebook.metadata.get("papermill", {}).get("input_path") or "").name
    part.soup = BeautifulSoup(html, "html.parser")


def order_headings(part):
    """Put a notebook's headings below the part's own, which is of the second rank.

    The title (a first heading of the first rank) becomes the part's heading where `own_title` is set, and is
    else shown below it. Third-rank headings become the part's sections.
    """
    headings = part.soup.find_all(["h1", "h2", "h3", "h4", "h5", "h6"])
    for anchor in part.soup.find_all("a", class_="anchor-link"):
        anchor.decompose()
    if headings and headings[0].name == "h1":
        title = headings.pop(0)
        text = title.get_text(" ", strip=True)
        if part.own_title:
            part.heading = text
        elif text not in part.heading:
            part.subtitle = text
        # Links to the notebook's title lead to the part.
        if title.get("id"):
            part.ids[title["id"]] = part.slug
        title.decompose()
    for heading in headings:
        heading.name = f"h{min(int(heading.name[1]) + 1, 6)}"
        text = heading.get_text(" ", strip=True)
        if not heading.get("id"):
            heading["id"] = re.sub(r"\W+", "-", text).strip("-").lower() or "section"
        if heading.name == "h3":
            part.sections.append({"element": heading, "text": text})


def order_tables(part):
    """Give every table a container that scrolls sideways, and every header cell its scope.

    Remove what would stand between tables as an empty box.
    """
    for block in part.soup.find_all("pre"):
        if not block.get_text(strip=True):
            block.decompose()
    for table in part.soup.find_all("table"):
        for body, scope in (("thead", "col"), ("tbody", "row")):
            for cell in [cell for rows in table.find_all(body) for cell in rows.find_all("th")]:
                cell.attrs.setdefault("scope", scope)
        if max((len(row.find_all(["th", "td"])) for row in table.find_all("tr")), default=0) > WIDE_TABLE:
            table["class"] = [*table.get("class", []), "wide"]
        caption = table.find("caption")
        name = caption.get_text(" ", strip=True)[:120] if caption else "Table"
        table.wrap(
            part.soup.new_tag(
                "div", attrs={"class": "table-scroll", "role": "region", "tabindex": "0", "aria-label": name}
            )
        )


def embed(part, out):
    """Embed the images of the run; one from elsewhere gives way to a note, and so does a field to type into."""
    for image in part.soup.find_all("img", src=True):
        if image["src"].startswith("data:"):
            continue
        path = inside_run(image["src"], part, out)
        kind = mimetypes.guess_type(path.name)[0] if path else None
        if kind and kind.startswith("image/"):
            image["src"] = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        else:
            image.replace_with(f"[not in this file: {image.get('alt') or image['src']}]")
    for field_ in part.soup.find_all("input"):
        if field_.get("type") not in CHOICES:
            field_.decompose()


def private_folders(out, plan):
    """Return the folders whose place on the machine the report leaves out: of a path below them the end is kept."""
    folders = {Path.home(): "~", project_root(): "", out.absolute().parent: ""}
    if Path(plan.get("data_path") or "").is_absolute():
        folders[Path(plan["data_path"]).parent] = ""
    return folders


def hidden_folders(folders, notebook):
    """Add to `private_folders` those of the machine that executed a notebook: its run may have been moved here."""
    executed = notebook.metadata.get("papermill", {})
    out = (executed.get("parameters") or {}).get("out") or ""
    paths = [Path(executed.get("input_path") or "").parent, Path(out)]
    return HiddenFolders(folders | {path.parent: "" for path in paths if path.is_absolute()})


def hide_folders(part):
    """Shorten the paths in a part's text and in what stands for its images."""
    for text in part.soup.find_all(string=part.hidden.pattern):
        text.replace_with(part.hidden.shorten(text))
    for image in part.soup.find_all("img", alt=True):
        image["alt"] = part.hidden.shorten(image["alt"])


def inside_run(link, part, out):
    """Return the file of the run folder that a notebook's relative link names, or None."""
    name = unquote(urlsplit(link).path)
    if urlsplit(link).scheme or urlsplit(link).netloc or not name:
        return None
    for base in (part.notebook.parent, out):
        path = (base / name).resolve()
        if path.is_relative_to(out.resolve()) and path.is_file():
            return path
    return None


# ---------------------------------------------------------------- ids and links


def assign_ids(parts):
    """Make every id unique in the report.

    Figures, tables and claims keep their ids with whoever has them first, and the findings come first; all
    other ids get their part's slug in front.
    """
    taken = {"main"} | {part.slug for part in parts} | {f"{part.slug}-title" for part in parts}
    for part in parts:
        for element in part.soup.find_all(id=True) if part.soup else []:
            old = element["id"]
            name = re.sub(r"[^\w.-]+", "-", unquote(old)).strip("-") or "id"
            if not SHARED_ID.match(old) or old in taken:
                name = f"{part.slug}--{name}"
            if name in taken:
                name = next(f"{name}-{n}" for n in count(2) if f"{name}-{n}" not in taken)
            taken.add(name)
            part.ids.setdefault(old, name)
            element["id"] = name
        for section in part.sections:
            section["id"] = section["element"]["id"]


def rename_references(part):
    """Follow `assign_ids` in what names an id, links aside: labels and table headers."""
    for element in part.soup.descendants:
        for name in REFERENCES if isinstance(element, Tag) else ():
            if name in element.attrs:
                names = element[name] if isinstance(element[name], list) else element[name].split()
                element[name] = " ".join(part.ids.get(old, old) for old in names)


def order_links(part, parts, out):
    """Point a part's links at the report's ids and the run's files; one that leads nowhere becomes plain text.

    A link to an id of the same notebook goes there, one to a figure, table or claim of another notebook goes to
    the first that has it, and one to a notebook's file goes to its appendix.
    """
    targets = {}
    for other in parts:
        for old, name in other.ids.items():
            if SHARED_ID.match(old):
                targets.setdefault(old, name)
    targets |= {other.slug: other.slug for other in parts} | part.ids
    sources = {other.source: other.slug for other in reversed(parts) if other.source}
    for link in part.soup.find_all("a", href=True):
        address = urlsplit(link["href"])
        file = Path(unquote(address.path)).name
        if link["href"].startswith("#"):
            new = targets.get(address.fragment) or targets.get(unquote(address.fragment))
            new = f"#{new}" if new else None
        elif address.scheme:
            new = link["href"] if address.scheme in ("http", "https", "mailto") else None
        elif file in sources:
            new = f"#{sources[file]}"
        else:
            path = inside_run(link["href"], part, out)
            new = quote(path.relative_to(out.resolve()).as_posix()) if path else None
        if new:
            link["href"] = new
        else:
            del link["href"]


def collect_exhibits(parts):
    """List the figures, tables and claims that links can reach, as two lists of ``id`` and ``text``."""
    exhibits, claims = [], []
    for part in parts:
        for element in part.soup.find_all(id=SHARED_ID) if part.soup else []:
            caption = element.find(["figcaption", "caption"])
            if element["id"].startswith("claim-"):
                claims.append({"id": element["id"], "text": element["id"].removeprefix("claim-")})
            elif caption:
                # "Figure 5.1. Title. Caption": number and title say enough.
                text = re.match(r"\S+ [\w.]+?\. .*?(?=\. |\.?$)|.*", caption.get_text(" ", strip=True))
                exhibits.append({"id": element["id"], "text": text[0]})
    return exhibits, claims


# ---------------------------------------------------------------- the page


def build_report(out):
    """Write ``<out>/report.html`` from whatever a run folder holds.

    Parameters
    ----------
    out : path
        The run folder.

    Returns
    -------
    Path
        The report. It is replaced as a whole, or left as it was.

    Raises
    ------
    ResultsError
        If there is no such folder, or ``plan.json`` cannot be read.
    """
    out = Path(out)
    if not out.is_dir():
        raise ResultsError(f"{out}: no such folder; expected a run's folder, which ./run_all.sh makes.")
    plan = read_record(out / "plan.json")
    if "unreadable" in plan:
        raise ResultsError(f"{out / 'plan.json'}: {plan['unreadable']}; run ./run_all.sh again.")
    folders = private_folders(out, plan)
    hidden = HiddenFolders(folders)
    trainings = find_trainings(out, plan)
    dataset = read_record(out / "dataset" / "dataset.json")
    profile = plan.get("profile") or next((t["record"]["profile"] for t in trainings if t["record"].get("profile")), "")
    parts = plan_parts(out, plan, trainings)

    exporter = make_exporter()
    for part in parts:
        convert(part, exporter, folders)
        if part.soup:
            order_headings(part)
            order_tables(part)
            embed(part, out)
            hide_folders(part)
    assign_ids(parts)
    for number, part in enumerate(parts):
        if part.soup:
            rename_references(part)
            order_links(part, parts, out)
            part.html = Markup(clean_page(str(part.soup)))
        if number:
            part.heading = f"Appendix {number}. {part.heading}"

    data = describe_data(trainings, dataset, plan)
    banners = make_banners(trainings, data, profile)
    exhibits, claims = collect_exhibits(parts)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # What is written into the page, but for markup, which is in order already.
        finalize=lambda value: hidden.shorten(value) if type(value) is str else value,
    )
    css = style_sheet()
    page = environment.get_template("page.html.j2").render(
        title=TITLE,
        lead=summarise(trainings, data, profile),
        parts=parts,
        banners=banners,
        flags=[banner.title for banner in banners if banner.on_every_page],
        facts=state_facts(trainings, data, plan, profile),
        trainings=tabulate_trainings(trainings),
        exhibits=exhibits,
        claims=claims,
        css=Markup(css),
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
    )
    path = out.absolute() / "report.html"
    write_text(path, page)
    return path


def style_sheet():
    """Return the report's CSS with the audit's, whose own is left out like every output's, and Pygments's for code."""
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
