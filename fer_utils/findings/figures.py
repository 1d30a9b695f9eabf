"""The one look of every figure, and the one way in which figures, tables and sentences are saved and shown.

A model and an emotion keep their colour everywhere. Colours come from seaborn's "colorblind" palette (after Okabe and
Ito), its yellow, pink and a second blue darkened or moved until they contrast with white; line style, marker and hatch
differ too, so that a figure can be read in greyscale.
"""

import base64
import hashlib
import html
import io
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
import yaml
from matplotlib import pyplot as plt
from matplotlib.gridspec import GridSpec
from PIL import Image

from fer_utils.constants import CLASSES
from fer_utils.files import replacing
from fer_utils.paths import project_root

PALETTE = (
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9", "#8a7d00", "#5f4690",
)  # fmt: skip
LINES = ("-", (0, (6, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (2, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
# Line hatches only: each dot or star of a hatch is a polygon of its own in an SVG.
HATCHES = ("", "//", "\\\\", "xx", "--", "||", "++", "////", "----", "+")
INK, GREY = "#333333", "#707070"

#: A notebook shows photographs, and what has more bytes than this as SVG, as WebP: the report opens and scrolls faster.
LARGEST_SVG = 90_000
PNG_DPI = 130

#: Inches across a figure on a phone; the report's style has the same width of the screen.
NARROW, PHONE = 4.6, "(max-width: 34rem)"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.markersize": 4,
    "hatch.linewidth": 0.6,
}
# Without these, matplotlib puts random ids and the time of drawing into the SVG.
REPRODUCIBLE = {"svg.hashsalt": "fer_utils", "svg.fonttype": "path", "path.simplify": True}


@dataclass(frozen=True)
class Style:
    """How one model or one emotion is drawn; `line` are keyword arguments for ``Axes.plot``, `bar` for ``Axes.bar``."""

    color: str
    linestyle: str | tuple
    marker: str
    hatch: str

    @property
    def line(self):  # noqa: D102
        return {"color": self.color, "linestyle": self.linestyle}

    @property
    def bar(self):  # noqa: D102
        return {"facecolor": self.color, "hatch": self.hatch, "edgecolor": "white"}


def style_at(place):
    """Style number `place`; past the palette's end the colours repeat with another line, marker and hatch."""
    turn = place // len(PALETTE)
    marks = (looks[(place + turn) % len(looks)] for looks in (LINES, MARKERS, HATCHES))
    return Style(PALETTE[place % len(PALETTE)], *marks)


@cache
def known_models():
    """Names of the models in ``config.yaml``, in its order: a model's place decides its style."""
    config = project_root() / "config.yaml"
    return tuple(yaml.safe_load(config.read_text(encoding="utf-8"))["models"]) if config.exists() else ()


def model_style(name):
    """Style of a model by its name in ``config.yaml``; any other name always gets the same style, from its hash."""
    if name in known_models():
        return style_at(known_models().index(name))
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return style_at(len(known_models()) + number % (len(PALETTE) * len(LINES)))


def class_style(name):
    """Style of an emotion, by its name in `fer_utils.constants.CLASSES`."""
    return style_at(CLASSES.index(name))


def use_style():
    """Set matplotlib's defaults to the project's style for the rest of the process."""
    plt.rcParams.update(STYLE)


def save(folder, name, content):
    """Write bytes to a file that is there whole or not at all."""
    with replacing(Path(folder) / name) as temporary:
        temporary.write_bytes(content)


def render(figure, title=""):
    """Draw a figure once as SVG and once as PNG (bytes); the same figure gives the same bytes."""
    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(REPRODUCIBLE):
        # The layout costs as much as a drawing: find it once and keep it. `savefig` would draw twice per format.
        if figure.get_layout_engine():
            figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None, "Title": title})
    return smaller(svg.getvalue()), png.getvalue()


def smaller(svg):
    """Drop from an SVG what no eye sees: blanks, and thousandths of a point. The report carries it inside.

    Factors of a scale keep their digits.
    """

    def short(match):
        return re.sub(rb"(-?\d+\.\d\d)\d+", rb"\1", match[0])

    svg = re.sub(rb' d="[^"]*"| [xy]="[^"]*"|translate\([^)]*\)', short, svg)
    svg = re.sub(rb' d="[^"]*"', lambda match: re.sub(rb"\s*([MLQCHVZz])\s*", rb"\1", match[0]), svg)
    return re.sub(rb"\n\s+", b"\n", svg)


def webp(png, colours=None):
    """Turn PNG bytes into WebP bytes: as a photograph, or as a drawing in so many colours."""
    file, image = io.BytesIO(), Image.open(io.BytesIO(png)).convert("RGB")
    if colours:
        image = image.quantize(colours, dither=Image.Dither.NONE).convert("RGB")
    image.save(file, "webp", quality=90, lossless=bool(colours))
    return file.getvalue()


def stacked(figure):
    """Draw a figure again as narrow as a phone, its panels below each other; return WebP bytes.

    It changes the figure. None if it is narrow already, or some panels have no axes, as photographs.
    """
    panels = [ax for ax in figure.axes if ax.get_subplotspec()]
    if len({ax.get_gridspec() for ax in panels}) != 1 or figure.get_figwidth() <= NARROW:
        return None
    if len(panels) > 1 and panels[0].get_gridspec().ncols == 1:
        return None
    if not all(ax.axison for ax in panels):
        return None
    shapes = []
    for ax in panels:
        width, height = ax.get_position().bounds[2:] * figure.get_size_inches()
        least = 0.6 if len(panels) == 1 else 0
        shapes.append(height / width if ax.get_aspect() != "auto" else min(max(height / width, least), 0.65))
        # What stood at the left and below of all is said at each.
        row = [other for other in panels if other.get_subplotspec().rowspan == ax.get_subplotspec().rowspan]
        named = {"ylabel": [other.get_ylabel() for other in row], "xlabel": [other.get_xlabel() for other in panels]}
        ax.set(
            **{name: next(filter(None, texts), "") for name, texts in named.items() if not getattr(ax, f"get_{name}")()}
        )
        ax.tick_params(labelleft=True, labelbottom=True)
    grid = GridSpec(len(panels), 1, figure=figure, height_ratios=shapes)
    for ax, place in zip(panels, grid, strict=True):
        ax.set_subplotspec(place)
    for legend in list(figure.legends):
        handles, texts = legend.legend_handles, [text.get_text() for text in legend.get_texts()]
        legend.remove()
        figure.legend(handles, texts, loc="outside upper center", ncols=2 if max(map(len, texts)) < 20 else 1)
    figure.set_size_inches(NARROW, 0.8 * NARROW * sum(shapes) + 0.6 * len(panels) + 0.5)
    figure.set_layout_engine("constrained")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=PNG_DPI)
    return webp(png.getvalue(), colours=64)


class Displayable:
    """A piece of HTML that a notebook shows as its output, with a plain text for where HTML is not shown."""

    def __init__(self, markup, text):
        self.markup = markup
        self.text = text

    def _repr_html_(self):
        return self.markup

    def __repr__(self):
        return self.text

    def __add__(self, other):
        return Displayable(self.markup + other.markup, f"{self.text}\n{other.text}")


def identifier(kind, number):
    """Return the ``id`` of a figure or table in the report: ``fig-5-1`` for ``("fig", "5.1")``."""
    return f"{kind}-{number.replace('.', '-')}"


def caption_html(kind, number, title, caption):
    """``<b>Figure 5.1.</b> Title. Caption``, escaped."""
    return f"<b>{kind} {html.escape(number)}.</b> {html.escape(title)}. {html.escape(caption)}".strip()


def data_uri(kind, content):
    """Write bytes as a URI that carries them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def publish(figure, data, *, number, slug, title, caption, alt, folder):
    """Save a figure as SVG and PNG, and its data as CSV, and return what a notebook shows of it, a `Displayable`.

    Parameters
    ----------
    figure : matplotlib.figure.Figure or None
        None shows the files that lie there: faces cannot be drawn again without the dataset.
    data : DataFrame or None
        What is drawn, in tidy form; None writes no CSV (for pictures such as Fig. 3.1).
    number, slug : str
        The thesis's number (``"5.1"``; ``"E1"`` for figures that the thesis lacks), and a word or two for the file
        name: ``fig-5.1-accuracy.svg``.
    title, caption, alt : str
        Plain text, escaped here; `alt` is what a reader who cannot see the figure is told (ValueError if empty).
    folder : path
        Where the files go.
    """
    if not alt.strip():
        raise ValueError(f"figure {number}: a text alternative is needed, got an empty one")
    name, phone = f"fig-{number}-{slug}", None
    if figure is None:
        svg, png = ((Path(folder) / f"{name}.{kind}").read_bytes() for kind in ("svg", "png"))
    else:
        svg, png = render(figure, f"Figure {number}. {title}")
        phone = stacked(figure)
        plt.close(figure)
        save(folder, f"{name}.svg", svg)
        save(folder, f"{name}.png", png)
    if data is not None:
        save(folder, f"{name}.csv", to_csv(data))
    light = len(svg) <= LARGEST_SVG and b"<image" not in svg
    source = data_uri("image/svg+xml", svg) if light else data_uri("image/webp", webp(png))
    image = f'<img alt="{html.escape(alt)}" src="{source}" style="max-width:100%;height:auto">'
    if phone:
        source = f'<source media="{PHONE}" srcset="{data_uri("image/webp", phone)}">'
        image = f"<picture>{source}{image}</picture>"
    markup = (
        f'<figure class="fer-figure" id="{html.escape(identifier("fig", number))}" style="margin:1em 0">{image}'
        f"<figcaption>{caption_html('Figure', number, title, caption)}</figcaption></figure>"
    )
    return Displayable(markup, f"Figure {number}. {title}. {caption}")


def to_csv(table):
    """Write a table as CSV bytes: seven significant digits, the index only where it is named."""
    named = any(name is not None for name in table.index.names)
    return table.to_csv(index=named, float_format="%.7g", lineterminator="\n").encode()


def table_html(table, *, formats=None, caption="", id=""):
    """Write a table as HTML, headers with their scope, everything escaped but the caption.

    A named index gives the row headers; else the first column does. `formats` maps a column to a format such as
    ``".3f"`` or a function from value to text; floats have three decimals otherwise, and a missing value is a dash.
    """
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    formats = {
        name: form if callable(form) else f"{{:{form}}}" for name, form in (formats or {}).items() if name in table
    }
    styler = table.style.format(formats, precision=3, na_rep="–", escape="html").format_index(escape="html", axis=1)
    markup = styler.hide(axis="index").set_caption(caption).to_html(exclude_styles=True)
    markup = re.sub(r">\s*\n\s*<", "><", markup).replace("<td >", "<td>").replace("<th >", '<th scope="col">')
    markup = re.sub(r"<tr><td>(.*?)</td>", r'<tr><th scope="row">\1</th>', markup, flags=re.DOTALL)
    markup = markup.replace("<table>", f'<table id="{html.escape(id)}">' if id else "<table>", 1)
    return f'<div class="fer-table" style="overflow-x:auto">{markup}</div>'


def publish_table(table, *, number, slug, title, caption, folder, formats=None, data=None, fold=False):
    """Save a table as CSV, unrounded, and return what a notebook shows of it, a ``Displayable``.

    Parameters
    ----------
    table, formats
        As in `table_html`.
    data : DataFrame, optional
        What the CSV holds, where the table shows texts such as intervals; the table itself otherwise.
    fold : bool
        Show it folded: for one whose figure says enough.
    number, slug, title, caption, folder
        As in `publish`; the file is ``table-5.1-slug.csv``.
    """
    save(folder, f"table-{number}-{slug}.csv", to_csv(table if data is None else data))
    head = caption_html("Table", number, title, caption)
    markup = table_html(table, formats=formats, caption=head, id=identifier("table", number))
    if fold:
        markup = f"<details><summary>Table {html.escape(number)}. {html.escape(title)}</summary>{markup}</details>"
    return Displayable(markup, f"Table {number}. {title}. {caption}\n{table.to_string()}")


def folded(summary, text):
    """Show preformatted text that opens on a click on its summary."""
    body = f'<pre tabindex="0" style="overflow-x:auto">{html.escape(text)}</pre>'
    return Displayable(f"<details><summary>{html.escape(summary)}</summary>{body}</details>", f"{summary}\n{text}")


def heading(text):
    """Show a heading of the second rank, for a section that not every run has."""
    return Displayable(f"<h2>{html.escape(text)}</h2>", text)


def paragraph(text):
    """Show a computed sentence as a paragraph."""
    return Displayable(f"<p>{html.escape(text)}</p>", text)


def command_lines(commands):
    """Show commands to type, one per line."""
    style = 'class="fer-command" style="white-space:pre-wrap"'
    return Displayable(f"<pre {style}><code>{html.escape(commands)}</code></pre>", commands)
