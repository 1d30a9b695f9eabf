"""The allow-list that a notebook's outputs pass on their way into the report.

Outputs may hold what others wrote: class and file names, texts of errors, whole pages of HTML. ``nh3`` parses them as
a browser does and writes out anew the elements and attributes that are listed here; whatever is not listed is gone.
Drawings in SVG become images: an image runs no script, loads nothing and is not part of the page.
"""

import base64
import html
import re
from functools import cache
from pathlib import Path

import nh3
from bs4 import BeautifulSoup

# fmt: off
TAGS = {
    "a", "abbr", "b", "blockquote", "br", "caption", "cite", "code", "col", "colgroup", "dd", "del", "details", "dfn",
    "div", "dl", "dt", "em", "fieldset", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img",
    "input", "ins", "kbd", "label", "legend", "li", "mark", "ol", "p", "pre", "q", "s", "samp", "section", "small",
    "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "time", "tr", "u", "ul",
    "var", "wbr",
}

#: Elements whose content goes with them: it is not meant to be read as text.
WITH_CONTENT = {
    "iframe", "math", "noembed", "noframes", "noscript", "object", "script", "select", "style", "svg", "template",
    "textarea", "title", "xmp",
}

#: Roles that structure a text. One that names a part of the page (``main``, ``alert``) is the page's own to give.
ROLES = {
    "cell", "columnheader", "figure", "group", "img", "list", "listitem", "math", "none", "note", "presentation",
    "region", "row", "rowgroup", "rowheader", "table",
}
# fmt: on

ATTRIBUTES = {
    "*": {"align", "class", "dir", "id", "lang", "role", "style", "tabindex", "title", "valign"},
    "a": {"href"},
    "col": {"span"},
    "colgroup": {"span"},
    "details": {"open"},
    "img": {"alt", "height", "src", "width"},
    "input": {"checked", "disabled", "name", "type"},
    "label": {"for"},
    "li": {"value"},
    "ol": {"reversed", "start", "type"},
    "td": {"abbr", "colspan", "headers", "rowspan"},
    "th": {"abbr", "colspan", "headers", "rowspan", "scope"},
    "time": {"datetime"},
}

#: CSS that changes the look of a thing in its place; nothing that moves it, lays it over others or loads a file.
STYLES = re.compile(
    r"(background(-color)?|border(-(bottom|left|right|top))?(-(collapse|color|radius|spacing|style|width))?|"
    r"caption-side|color|display|font(-(family|size|style|variant|weight))?|(max-|min-)?(height|width)|hyphens|"
    r"letter-spacing|line-height|list-style-type|margin(-(bottom|left|right|top))?|opacity|"
    r"overflow(-wrap|-x|-y)?|padding(-(bottom|left|right|top))?|table-layout|text-(align|decoration|indent|transform)|"
    r"vertical-align|white-space|word-(break|wrap))"
)
#: Words, numbers, colours, quoted names. No backslash (an escape), no negative length, no function but a colour's.
STYLE_VALUE = re.compile(r"(?:(?<=[a-z])-(?=[a-z])|[\w\s.,#%'\"!/]|(?:rgb|hsl)a?\([\d\s.,%/]*\))+", re.IGNORECASE)

IMAGE = re.compile(r"data:image/(?:bmp|gif|jpeg|png|svg\+xml|webp)[;,]")
#: Where a link may lead: the web, a mailbox, a place of the report, a file beside it.
LINK = re.compile(r"(?:https?:|mailto:)[^\x00-\x20]*|#.*|(?![/\\])[^:\\]*")

SVG = re.compile(r"<svg\b.*?</svg\s*>", re.IGNORECASE | re.DOTALL)
SHEET = re.compile(r"<style\b[^>]*>(.*?)</style", re.IGNORECASE | re.DOTALL)


def clean_style(text):
    """Return what a ``style`` attribute may keep; None for nothing."""
    kept = []
    for declaration in text.split(";"):
        name, _, value = declaration.partition(":")
        if STYLES.fullmatch(name.strip().lower()) and STYLE_VALUE.fullmatch(value):
            kept.append(declaration.strip())
    return ";".join(kept) or None


def clean_value(tag, name, value):
    """Return what an attribute of the page may hold; None removes it. The last pass."""
    if name == "style":
        return clean_style(value)
    if name == "src":
        return value if IMAGE.match(value) else None
    if name == "href":
        return value if LINK.fullmatch(value) else None
    if name == "role":
        return value if value in ROLES else None
    if name == "tabindex":
        return value if value in ("0", "-1") else None
    return value


def clean_output_value(tag, name, value):
    """Return what an attribute of an output may hold: not a class that the page has a look of its own for."""
    if name == "class":
        return " ".join(word for word in value.split() if word not in page_classes()) or None
    # Files of the run are embedded later, and links put in order; the last pass looks at the addresses again.
    return value if name in ("src", "href") else clean_value(tag, name, value)


@cache
def page_classes():
    """Classes that ``report.css`` gives a look, but for those that are meant for outputs.

    With one of them an output could pass for a notice of the report, or cover it.
    """
    css = (Path(__file__).parent / "template" / "report.css").read_text(encoding="utf-8")
    named = re.findall(r"\.([a-z][\w-]*)", re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL))
    return frozenset(name for name in named if not re.match(r"fer-|ansi-|dataframe$", name))


def make_cleaner(attribute_filter):
    """Return an ``nh3.Cleaner`` of the lists above."""
    return nh3.Cleaner(
        tags=TAGS,
        clean_content_tags=WITH_CONTENT,
        attributes=ATTRIBUTES,
        attribute_filter=attribute_filter,
        generic_attribute_prefixes={"aria-", "data-"},
        url_schemes={"http", "https", "mailto", "data"},
        link_rel=None,
    )


PAGE = make_cleaner(clean_value)
OUTPUT = make_cleaner(clean_output_value)


def clean_page(markup):
    """Return a finished part of the report as the browser may have it.

    Parameters
    ----------
    markup : str
        HTML.

    Returns
    -------
    str
        HTML of listed elements and attributes, every element closed.
    """
    return PAGE.clean(markup)


def clean_output(markup):
    """Return one output, or one cell's text, as it may stand in the report.

    It is cleaned alone, so that an element left open cannot take in what follows. Images and links keep their
    addresses for now: `fer_utils.report.page` embeds the ones and puts the others in order.

    Parameters
    ----------
    markup : str
        HTML as a notebook holds it.

    Returns
    -------
    str
        HTML.
    """
    return OUTPUT.clean(inline_styles(SVG.sub(as_image, markup)))


def as_image(match):
    """Turn an ``<svg>`` into an ``<img>`` with the same picture."""
    svg = match[0]
    opening = svg[: svg.find(">")]
    for name, address in (("xmlns", "2000/svg"), ("xmlns:xlink", "1999/xlink")):
        if not re.search(rf"\s{name}\s*=", opening):
            svg = f'<svg {name}="http://www.w3.org/{address}"{svg[4:]}'
    label = re.search(r"\saria-label\s*=\s*([\"'])(.*?)\1", opening) or re.search(r"<title()[^>]*>([^<]*)<", svg)
    alt = html.escape(html.unescape(label[2])) if label else "a drawing"
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}">'


def inline_styles(markup):
    """Write the rules for single elements (``#T_1_row0_col0 {color: red}``, as pandas writes them) into the elements.

    Style sheets themselves go: they would style the whole report.
    """
    rules = []
    for sheet in SHEET.findall(markup):
        for rule in sheet.split("}"):
            selectors, _, declarations = rule.rpartition("{")
            rules += [(one[1:], declarations) for one in map(str.strip, selectors.split(",")) if one.startswith("#")]
    if not rules:
        return markup
    soup = BeautifulSoup(markup, "html.parser")
    by_id = {element["id"]: element for element in soup.find_all(id=True)}
    for name, declarations in rules:
        if name in by_id:
            by_id[name]["style"] = ";".join(filter(None, [by_id[name].get("style"), declarations.strip(" \n;")]))
    return str(soup)
