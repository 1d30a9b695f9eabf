"""Templates of the report, and the allow-list for the outputs of notebooks.

Outputs, labels and file names are written by others. The templates escape them; HTML and markdown of a notebook pass
`clean`, once and piece by piece, so that nothing left open takes in what follows. Two walls stand behind it: the
page's content security policy (nothing is loaded, and no script runs but the page's own), and ``contain`` in
``report.css``, which keeps whatever an output draws within its own box.
"""

import base64
import html
import re
from pathlib import Path

import jinja2
import nh3
from markupsafe import Markup, escape
from nbconvert.filters import ansi2html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from fer_utils.words import duration, listed, plural

TEMPLATE = Path(__file__).parent / "template"

# fmt: off
TAGS = {
    "a", "abbr", "b", "blockquote", "br", "caption", "code", "col", "colgroup", "dd", "del", "details", "div", "dl",
    "dt", "em", "fieldset", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "input",
    "kbd", "label", "legend", "li", "mark", "ol", "p", "picture", "pre", "s", "section", "small", "source", "span",
    "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul", "var",
}
#: Elements whose content is not text to read and goes with them.
WITH_CONTENT = {
    "iframe", "math", "noembed", "noframes", "noscript", "object", "script", "select", "style", "svg", "template",
    "textarea", "title", "xmp",
}
ATTRIBUTES = {
    "*": {"class", "id", "lang", "role", "style", "title"}, "a": {"href"}, "details": {"open"},
    "img": {"alt", "height", "src", "width"}, "input": {"checked", "id", "name", "type"}, "label": {"for"},
    "li": {"value"}, "ol": {"start"}, "source": {"media", "srcset"}, "td": {"colspan", "headers", "rowspan"},
    "th": {"colspan", "headers", "rowspan", "scope"},
}
#: Roles that structure a text. One that names a part of the page (``main``, ``alert``) is the page's own to give.
ROLES = {"figure", "group", "img", "list", "listitem", "none", "note", "presentation"}
STYLES = {
    "background-color", "border", "border-bottom", "border-collapse", "border-left", "border-right", "border-top",
    "color", "font-family", "font-style", "font-weight", "max-width", "overflow-x", "padding", "padding-left",
    "text-align", "text-decoration", "vertical-align", "white-space", "width",
}
# fmt: on

#: How the page's own classes begin: an output may not look like a notice of the report.
OWN = "page-"

#: Where a link may lead: the web, a mailbox, a place in the page, a file beside it.
LINK = re.compile(r"(?:https?:|mailto:)[^\x00-\x20]*|#.*|(?![/\\])[^:\\]*")

#: An image that the page carries itself.
IMAGE = re.compile(r"data:image/[\w+]+;base64,[\w+/=]+")


def keep_value(tag, name, value):
    """Return what an attribute of foreign markup may hold; None removes it."""
    if name == "class":
        return " ".join(word for word in value.split() if not word.startswith(OWN)) or None
    if name == "href":
        return value if LINK.fullmatch(value) else None
    if name == "srcset":
        return value if IMAGE.fullmatch(value) else None
    if name == "role":
        return value if value in ROLES else None
    if name == "type":
        return value if value in ("checkbox", "radio") else None
    return value


CLEANER = nh3.Cleaner(
    tags=TAGS,
    clean_content_tags=WITH_CONTENT,
    attributes=ATTRIBUTES,
    attribute_filter=keep_value,
    filter_style_properties=STYLES,
    generic_attribute_prefixes={"aria-", "data-"},
    url_schemes={"http", "https", "mailto", "data"},
    link_rel=None,
)


def clean(markup):
    """Return foreign HTML as the page may hold it: listed elements and attributes, every element closed."""
    return Markup(CLEANER.clean(markup))


def markdown(text):
    """Return a cell's text as HTML."""
    return clean(MarkdownWithMath(renderer=IPythonRenderer(escape=False, exclude_anchor_links=True)).render(text))


def python(source):
    """Return code in colours."""
    return Markup(highlight(source, PythonLexer(), HtmlFormatter()))


def printed(text):
    """Return what was printed, with a terminal's colours."""
    return Markup(ansi2html(text))


def encode(text):
    """Return text as base64."""
    return base64.b64encode(text.encode()).decode()


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)
ENVIRONMENT.filters |= {"clean": clean, "markdown": markdown, "python": python, "printed": printed, "encode": encode}
ENVIRONMENT.globals |= {"duration": duration, "listed": listed, "plural": plural}


def render(template, **values):
    """Fill in a template; every value is escaped but for Markup."""
    return Markup(ENVIRONMENT.get_template(template).render(**values))


def hide_folders(text, folders):
    """Shorten paths in a text or page by `folders`, a dict of Path to what stands for it; images are left alone.

    Paths would tell whose machine a run was made on.
    """
    names = {}
    for folder, name in folders.items():
        forms = [str(form) for form in (folder, folder.resolve()) if len(form.parts) > 1]
        # papermill writes "\\xfc" for "ü" into the cell of the parameters.
        forms += [form.encode("unicode_escape").decode() for form in forms]
        # A shell's way to write a quote within quotes, as in the recorded command.
        forms += [form.replace("'", "'\"'\"'") for form in forms]
        names |= dict.fromkeys([*forms, *map(str, map(escape, forms)), *(html.escape(f, False) for f in forms)], name)
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"

    def short(match):
        name = names.get(match[1])
        if name is None:
            return match[0]
        return (f"{name}/" if name else "") if match[2] else name or "."

    # A folder ends at a slash or where its name cannot go on.
    return re.sub(rf"data:[\w/+]+;base64,[\w+/=]*|(?<![\w.~-])({known})(?:(/)|(?![\w.-]))", short, text)
