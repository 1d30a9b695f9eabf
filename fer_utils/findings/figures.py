"""The one look of every figure, and the one way in which it is saved and shown.

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

#: Above this many bytes a notebook shows the PNG: a heavy SVG makes the report slow to open and to scroll.
LARGEST_SVG = 300_000
PNG_DPI = 130

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

    def __add__(self, other):
        return Displayable(self.markup + other.markup, f"{self.text}\n{other.text}")


def identifier(kind, number):
    """Return the ``id`` of a figure or table in the report: ``fig-5-1`` for ``("fig", "5.1")``."""
    return f"{kind}-{number.replace('.', '-')}"


def caption_html(kind, number, title, caption):
    """``<b>Figure 5.1.</b> Title. Caption``, escaped."""
    return f"<b>{kind} {html.escape(number)}.</b> {html.escape(title)}. {html.escape(caption)}".strip()


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
    name = f"fig-{number}-{slug}"
    if figure is None:
        svg, png = ((Path(folder) / f"{name}.{kind}").read_bytes() for kind in ("svg", "png"))
    else:
        svg, png = render(figure, f"Figure {number}. {title}")
        plt.close(figure)
        save(folder, f"{name}.svg", svg)
        save(folder, f"{name}.png", png)
    if data is not None:
        save(folder, f"{name}.csv", to_csv(data))
    mime, image = ("image/svg+xml", svg) if len(svg) <= LARGEST_SVG else ("image/png", png)
    markup = (
        f'<figure class="fer-figure" id="{html.escape(identifier("fig", number))}" style="margin:1em 0">'
        f'<img alt="{html.escape(alt)}" src="data:{mime};base64,{base64.b64encode(image).decode()}" '
        'style="max-width:100%;height:auto">'
        f"<figcaption>{caption_html('Figure', number, title, caption)}</figcaption></figure>"
    )
    return Displayable(markup, f"Figure {number}. {title}. {caption}")


def to_csv(table):
    """Write a table as CSV bytes: seven significant digits, the index only where it is named."""
    named = any(name is not None for name in table.index.names)
    return table.to_csv(index=named, float_format="%.7g", lineterminator="\n").encode()


def folded(summary, text):
    """Show preformatted text that opens on a click on its summary."""
    body = f'<pre tabindex="0" style="overflow-x:auto">{html.escape(text)}</pre>'
    return Displayable(f"<details><summary>{html.escape(summary)}</summary>{body}</details>", f"{summary}\n{text}")
