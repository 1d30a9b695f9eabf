"""Ids, links and data in the report: each id once, each link to where it says, each exhibit with its CSV."""

import re
from itertools import count
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from bs4 import BeautifulSoup

#: Ids that keep their name in the report, so that claims can link to a figure in another notebook.
SHARED_ID = re.compile(r"^(fig|table|claim)-[\w.-]+$|^(claims|checklist)$")

#: Larger files (bytes) stay beside the report, with a link to them.
LARGEST_DATA = 100_000

#: What an address holds as it is.
CSV_SAFE = "!$'()*+,;=:@/?"


def assign_ids(parts):
    """Make ids unique: figures, tables and claims keep theirs where they come first, others get their part in front."""
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


def order_links(part, parts, out):
    """Point a part's links and labels at the report's ids and the run's files; a link to nothing becomes plain text.

    A link to an id of the same notebook goes there, one to a figure, table or claim of another notebook to the first
    that has it, and one to a notebook's file to its part.
    """
    for name in ("aria-labelledby", "aria-describedby", "for", "headers"):
        for element in part.soup.find_all(attrs={name: True}):
            names = element[name] if isinstance(element[name], list) else element[name].split()
            element[name] = " ".join(part.ids.get(old, old) for old in names)
    shared = {old: new for other in reversed(parts) for old, new in other.ids.items() if SHARED_ID.match(old)}
    targets = shared | {other.slug: other.slug for other in parts} | part.ids
    sources = {other.source: other.slug for other in reversed(parts) if other.source}
    for link in part.soup.find_all("a", href=True):
        address = urlsplit(link["href"])
        name = Path(unquote(address.path)).name
        if address.scheme:
            continue
        if not address.path:
            new = targets.get(address.fragment) or targets.get(unquote(address.fragment))
            new = new and f"#{new}"
        elif name in sources:
            new = f"#{sources[name]}"
        else:
            file = inside_run(address, part, out)
            new = file and quote(file.relative_to(out.resolve()).as_posix())
        link["href"] = new
        if not new:
            del link["href"]


def inside_run(address, part, out):
    """Return the file of the run folder that a notebook's relative link names, or None."""
    if address.scheme or address.netloc or not address.path:
        return None
    try:
        paths = [(base / unquote(address.path)).resolve() for base in (part.notebook.parent, out)]
        return next((path for path in paths if path.is_relative_to(out.resolve()) and path.is_file()), None)
    except (OSError, ValueError):  # no name that a file could have
        return None


def list_exhibits(parts):
    """List the figures and tables that links can reach, and the claims, as ``id`` and ``text``."""
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


def add_data(part, out):
    """Give each figure and table its data as a CSV inside the page, from the ``figures`` folder of its notebook."""
    folders = [part.notebook.parent / "figures", out / "figures"]
    files = {}
    for path in (path for folder in reversed(folders) for path in sorted(folder.glob("*-*-*.csv"))):
        files["-".join(path.stem.split("-")[:2]).replace(".", "-")] = path
    if (out / "claims.csv").is_file():
        files["claims-results"] = out / "claims.csv"
    for old, new in part.ids.items():
        exhibit = old in files and part.soup.find(["figure", "table"], id=new)
        caption = exhibit and exhibit.find(["figcaption", "caption"])
        if caption:
            content = files[old].read_bytes()
            # Shorter than in base64.
            within = f"data:text/csv;charset=utf-8,{quote(content, safe=CSV_SAFE)}"
            beside = quote(files[old].relative_to(out).as_posix())
            address = within if len(content) <= LARGEST_DATA else beside
            add_link(caption, "page-csv", address, "CSV", f"CSV of {files[old].stem}")
            caption.find_all("a")[-1]["download"] = files[old].name


def add_anchors(part):
    """Give each heading a link to itself."""
    for heading in part.soup.select("h3[id], h4[id]"):
        add_link(heading, "page-anchor", f"#{heading['id']}", "#", f"Link to {heading.get_text(' ', strip=True)}")


def add_link(element, kind, address, text, label):
    """Append a link of the page's own to an element."""
    link = BeautifulSoup(f"<a>{text}</a>", "html.parser").a
    link.attrs = {"class": kind, "href": address, "aria-label": label}
    element.extend([" ", link])
