"""The one look of every figure and table, and the one way in which they are saved and shown.

A model and an emotion keep their colour everywhere. Colours come from seaborn's "colorblind" palette (after
Okabe and Ito); line style, marker and hatch differ too, so that a figure can be read in greyscale.
"""

import base64
import hashlib
import html
import io
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG

from fer_utils.constants import CLASSES
from fer_utils.files import replacing

#: seaborn's "colorblind" palette, written out so that seaborn need not be imported (it takes a second).
PALETTE = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#ca9161",
    "#949494",
    "#56b4e9",
    "#8a7d00",
    "#5f4690",
)
LINES = (
    "-",
    (0, (6, 2)),
    (0, (1, 1.5)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 3)),
    (0, (2, 2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
# Line hatches only: each dot or star of a hatch is a polygon of its own in an SVG.
HATCHES = ("", "//", "\\\\", "xx", "--", "||", "++", "////", "----", "+")

#: The place of each model that the configuration names; any other gets one from its name.
MODELS = (
    "traditional_cnn",
    "resnet50",
    "vgg16",
    "mobilenet_v3",
    "mobilenet_v1",
    "resnet50_scratch",
    "mobilenet_v3_scratch",
    "ensemble",
    "resnet50_thesis_protocol",
    "traditional_cnn_thesis_protocol",
    "vgg16_plain",
    "traditional_cnn_float32",
    "resnet50_float32",
    "vgg16_float32",
)

#: Above this many bytes the page shows the PNG: a heavy SVG makes the report slow to open and to scroll.
LARGEST_SVG = 300_000

PNG_DPI = 130

INK = "#333333"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
}

# Without these, matplotlib puts random ids and the time of drawing into the SVG.
REPRODUCIBLE = {"svg.hashsalt": "fer_utils", "svg.fonttype": "path", "path.simplify": True}


@dataclass(frozen=True)
class Style:
    """How one model or one emotion is drawn, wherever it is drawn.

    Attributes
    ----------
    color : str
        Hexadecimal colour.
    linestyle : str or tuple
        As matplotlib takes it.
    marker, hatch : str
        As matplotlib takes them.
    """

    color: str
    linestyle: str | tuple
    marker: str
    hatch: str

    @property
    def line(self):
        """Keyword arguments for ``Axes.plot``, without the marker."""
        return {"color": self.color, "linestyle": self.linestyle}

    @property
    def bar(self):
        """Keyword arguments for ``Axes.bar``."""
        return {"color": self.color, "hatch": self.hatch, "edgecolor": "white"}


def style_at(place):
    """Style number `place`; past the palette's end the colours repeat with another line and hatch."""
    turn = place // len(PALETTE)
    return Style(
        color=PALETTE[place % len(PALETTE)],
        linestyle=LINES[(place + turn) % len(LINES)],
        marker=MARKERS[(place + turn) % len(MARKERS)],
        hatch=HATCHES[(place + turn) % len(HATCHES)],
    )


def model_style(name):
    """Style of a model, by its name in the configuration.

    Parameters
    ----------
    name : str
        For example ``"resnet50"``. A name that `MODELS` lacks gets a style from a hash of the name: the
        same one in every figure and every run.

    Returns
    -------
    Style
    """
    if name in MODELS:
        return style_at(MODELS.index(name))
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return style_at(len(MODELS) + number % (len(PALETTE) * len(LINES)))


def class_style(name):
    """Style of an emotion, by its name in `fer_utils.constants.CLASSES`.

    Returns
    -------
    Style

    Raises
    ------
    ValueError
        If there is no such class.
    """
    return style_at(CLASSES.index(name))


def use_style():
    """Set matplotlib's defaults to the project's style for the rest of the process."""
    plt.rcParams.update(STYLE)


def write_atomic(path, content):
    """Write bytes to a file that is there whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def render(fig, title=""):
    """Draw a figure once as SVG and once as PNG; the same figure gives the same bytes.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
    title : str
        Title in the files' metadata.

    Returns
    -------
    svg, png : bytes
    """
    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(REPRODUCIBLE):
        # The layout costs as much as a drawing: find it once and keep it. `savefig` would draw twice per format.
        if fig.get_layout_engine():
            fig.get_layout_engine().execute(fig)
        fig.set_layout_engine("none")
        FigureCanvasSVG(fig).print_svg(svg, metadata={"Date": None, "Creator": None, "Title": title})
        fig.set_dpi(PNG_DPI)
        FigureCanvasAgg(fig).print_png(png, metadata={"Software": None, "Title": title})
    # The indentation is a tenth of a file that is carried inside the report.
    return re.sub(rb"\n\s+", b"\n", svg.getvalue()), png.getvalue()


class Displayable:
    """A piece of HTML that a notebook shows as its output, with a plain text for where HTML is not shown."""

    def __init__(self, markup, text):
        self.markup = markup
        self.text = text

    def _repr_html_(self):
        return self.markup

    def __repr__(self):
        return self.text


def identifier(kind, number):
    """Return the ``id`` of a figure or table in the report: ``fig-5-1`` for ``("fig", "5.1")``."""
    return f"{kind}-{number.replace('.', '-')}"


def caption_html(kind, number, title, caption):
    """``<b>Figure 5.1.</b> Title. Caption``, escaped."""
    return f"<b>{kind} {html.escape(number)}.</b> {html.escape(title)}. {html.escape(caption)}".strip()


def publish(fig, data, *, number, slug, title, caption, alt, folder):
    """Save a figure as SVG and PNG, and its data as CSV, and return what a notebook shows of it.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        Closed afterwards.
    data : DataFrame or None
        What is drawn, in tidy form; None writes no CSV (for pictures such as Fig. 3.1).
    number : str
        The thesis's number, ``"5.1"``; figures that the thesis lacks are ``"E1"`` and so on.
    slug : str
        A word or two for the file name: ``fig-5.1-accuracy.svg``.
    title, caption : str
        Without a full stop after the title; plain text, escaped here.
    alt : str
        What a reader who cannot see the figure is told; must say something.
    folder : path
        Where the files go.

    Returns
    -------
    Displayable
        A ``<figure>`` with the image inside it (the SVG, or the PNG where the SVG is above `LARGEST_SVG`).

    Raises
    ------
    ValueError
        If `alt` is empty.
    """
    if not alt.strip():
        raise ValueError(f"figure {number}: a text alternative is needed, got an empty one")
    svg, png = render(fig, f"Figure {number}. {title}")
    plt.close(fig)
    stem = Path(folder) / f"fig-{number}-{slug}"
    write_atomic(stem.with_name(stem.name + ".svg"), svg)
    write_atomic(stem.with_name(stem.name + ".png"), png)
    if data is not None:
        write_atomic(stem.with_name(stem.name + ".csv"), to_csv(data))
    mime, image = ("image/svg+xml", svg) if len(svg) <= LARGEST_SVG else ("image/png", png)
    source = f"data:{mime};base64,{base64.b64encode(image).decode()}"
    markup = (
        f'<figure class="fer-figure" id="{html.escape(identifier("fig", number))}" style="margin:1em 0">'
        f'<img alt="{html.escape(alt)}" src="{source}" style="max-width:100%;height:auto">'
        f"<figcaption>{caption_html('Figure', number, title, caption)}</figcaption></figure>"
    )
    return Displayable(markup, f"Figure {number}. {title}. {caption}")


def to_csv(table):
    """Write a table as CSV bytes: seven significant digits, the index only where it is named."""
    named = any(name is not None for name in table.index.names)
    return table.to_csv(index=named, float_format="%.7g", lineterminator="\n").encode("utf-8")


def cell_text(value, form=None):
    """One table cell as text: formatted where a format is given, an en dash where there is no value."""
    if value is None or (np.isscalar(value) and pd.isna(value)):
        return "–"
    if callable(form):
        return str(form(value))
    if form is not None:
        return format(value, form)
    if isinstance(value, float | np.floating):
        return f"{value:.3f}"
    return str(value)


def table_html(table, *, formats=None, caption="", id=""):
    """Write a table as HTML that a screen reader can walk through: caption, headers with their scope.

    Parameters
    ----------
    table : DataFrame
        A named index gives the row headers; else the first column does.
    formats : dict of str to (str or callable), optional
        Per column, a format such as ``".3f"`` or a function from value to text; floats have three decimals
        otherwise.
    caption : str
        HTML, already escaped.
    id : str
        The table's ``id``.

    Returns
    -------
    str
        HTML in which every header and cell is escaped.
    """
    formats = formats or {}
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    columns = list(table.columns)
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in columns)
    rows = []
    for values in table.itertuples(index=False, name=None):
        cells = [html.escape(cell_text(v, formats.get(name))) for name, v in zip(columns, values, strict=True)]
        first = f'<th scope="row">{cells[0]}</th>'
        rows.append(f"<tr>{first}{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>")
    name = f' id="{html.escape(id)}"' if id else ""
    title = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="fer-table" style="overflow-x:auto"><table{name}>{title}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def publish_table(table, *, number, slug, title, caption, folder, formats=None, data=None):
    """Save a table as CSV, unrounded, and return what a notebook shows of it.

    Parameters
    ----------
    table : DataFrame
        A named index gives the row headers; else the first column does.
    data : DataFrame, optional
        What the CSV holds, where the table shows texts such as intervals; the table itself otherwise.
    number, slug, title, caption, folder
        As in `publish`; the file is ``table-5.1-slug.csv``.
    formats : dict, optional
        As in `table_html`.

    Returns
    -------
    Displayable
    """
    write_atomic(Path(folder) / f"table-{number}-{slug}.csv", to_csv(table if data is None else data))
    head = caption_html("Table", number, title, caption)
    markup = table_html(table, formats=formats, caption=head, id=identifier("table", number))
    return Displayable(markup, f"Table {number}. {title}. {caption}\n{table.to_string()}")


def paragraph(text):
    """Show a computed sentence as a paragraph; a ``Displayable`` whose text is escaped."""
    return Displayable(f"<p>{html.escape(text)}</p>", text)


def command_lines(commands):
    """Show commands to type, one a line."""
    return Displayable(
        f'<pre class="fer-command" style="white-space:pre-wrap"><code>{html.escape(commands)}</code></pre>',
        commands,
    )


def notice(title, text, points=()):
    """Show what a reader must know first, framed: a title, a sentence, and points below it."""
    items = "".join(f"<li>{html.escape(point)}</li>" for point in points)
    markup = (
        '<div class="fer-notice" role="note" style="border:2px solid #d55e00;padding:.5em 1em;margin:1em 0">'
        f"<p><strong>{html.escape(title)}.</strong> {html.escape(text)}</p>"
        f"{f'<ul>{items}</ul>' if items else ''}</div>"
    )
    return Displayable(markup, "\n".join([f"{title}. {text}", *(f"- {point}" for point in points)]))
