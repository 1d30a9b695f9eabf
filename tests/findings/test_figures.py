"""Saving, showing and styling of figures and tables."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from fer_utils.constants import CLASSES
from fer_utils.findings import figures, plots

WORDS = {"number": "5.1", "slug": "test", "title": "A & B", "caption": "1 < 2", "alt": 'it says "x" <y>'}


def drawing(points=3):
    figure = Figure(figsize=(3, 2), layout="constrained")
    ax = figure.subplots()
    ax.bar(range(3), [1, 2, 3], **figures.model_style("resnet50").bar)
    ax.plot(np.linspace(0, 2, points), np.random.default_rng(0).random(points), label="a")
    ax.legend()
    return figure


def test_publish_saves_three_files_and_shows_the_svg(tmp_path):
    data = pd.DataFrame({"model": ["a"], "value": [0.123456789]})
    shown = figures.publish(drawing(), data, folder=tmp_path / "new", **WORDS)
    saved = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert saved == ["fig-5.1-test.csv", "fig-5.1-test.png", "fig-5.1-test.svg"]
    assert (tmp_path / "new" / "fig-5.1-test.csv").read_text() == "model,value\na,0.1234568\n"
    soup = BeautifulSoup(shown._repr_html_(), "html.parser")
    assert soup.figure["id"] == "fig-5-1"
    assert soup.img["alt"] == WORDS["alt"]
    assert soup.figcaption.get_text() == "Figure 5.1. A & B. 1 < 2"
    mime, code = soup.img["src"].split(";base64,")
    assert mime == "data:image/svg+xml"
    assert base64.b64decode(code) == (tmp_path / "new" / "fig-5.1-test.svg").read_bytes()


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        figures.publish(drawing(), None, folder=tmp_path / name, **WORDS)
    for suffix in ("svg", "png"):
        first, second = ((tmp_path / name / f"fig-5.1-test.{suffix}").read_bytes() for name in ("a", "b"))
        assert first == second
    text = (tmp_path / "a" / "fig-5.1-test.svg").read_text()
    assert not re.search(r"<dc:date>", text)


def test_a_heavy_figure_and_a_photograph_are_shown_as_webp(tmp_path, monkeypatch):
    photograph = Figure(figsize=(3, 2))
    photograph.subplots().imshow(np.eye(4))
    shown = [figures.publish(photograph, None, folder=tmp_path, **WORDS)]
    monkeypatch.setattr(figures, "LARGEST_SVG", 1000)
    shown.append(figures.publish(drawing(), None, folder=tmp_path, **WORDS))
    assert all('src="data:image/webp;base64,' in each.markup for each in shown)
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".png"}


def test_panels_stand_below_each_other_on_a_phone_each_with_its_labels(tmp_path):
    figure, (upper, lower) = plots.panels(["a", "b"], "Epoch", "Loss", "Accuracy")
    for ax in (*upper, *lower):
        ax.plot([1, 2], [3, 4])
    figure.legend(handles=[Line2D([], [], label=f"{n}: a label that is rather long") for n in range(3)], ncols=3)
    soup = BeautifulSoup(figures.publish(figure, None, folder=tmp_path, **WORDS).markup, "html.parser")
    wide = Image.open(tmp_path / "fig-5.1-test.png")
    code = soup.picture.source["srcset"].removeprefix("data:image/webp;base64,")
    narrow = Image.open(io.BytesIO(base64.b64decode(code)))
    assert wide.width > wide.height and narrow.height > 1.5 * narrow.width
    assert soup.picture.source["media"] == "(max-width: 34rem)"
    assert [ax.get_position().x0 for ax in upper] == pytest.approx([upper[0].get_position().x0] * 2)
    tops = [ax.get_position().y1 for ax in (*upper, *lower)]
    assert tops == sorted(tops, reverse=True) and len(set(tops)) == 4
    assert [ax.get_ylabel() for ax in (*upper, *lower)] == ["Loss"] * 2 + ["Accuracy"] * 2
    assert {ax.get_xlabel() for ax in (*upper, *lower)} == {"Epoch"}
    assert all(label.get_visible() for ax in lower for label in ax.get_yticklabels())
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3 and legend.get_window_extent().width <= figure.bbox.width


def test_one_wide_panel_is_drawn_narrow_with_its_legend_in_lines():
    figure = drawing()
    figure.set_size_inches(9, 4)
    figure.legend(handles=[Line2D([], [], label=f"{n}: a label that is rather long") for n in range(3)], ncols=3)
    narrow = Image.open(io.BytesIO(figures.stacked(figure)))
    assert narrow.width == round(figures.NARROW * figures.PNG_DPI) and 0.5 < narrow.height / narrow.width < 1
    (legend,) = figure.legends
    assert legend.get_window_extent().width <= figure.bbox.width
    assert figures.stacked(figure) is None  # it is narrow now


def test_photographs_are_not_drawn_again():
    photographs = Figure()
    for ax in photographs.subplots(1, 2):
        ax.set_axis_off()
    assert figures.stacked(photographs) is None


def test_a_named_model_of_the_configuration_has_a_style_of_its_own():
    assert figures.known_models()[:4] == ("traditional_cnn", "resnet50", "vgg16", "mobilenet_v3")
    names = [*figures.known_models(), "my_model", "your_model"]
    assert len({figures.model_style(name) for name in names}) == len(names)


def test_a_figure_needs_a_text_alternative(tmp_path):
    with pytest.raises(ValueError, match="text alternative"):
        figures.publish(drawing(), None, folder=tmp_path, **{**WORDS, "alt": " "})
    assert not list(tmp_path.iterdir())


def test_table_has_caption_scopes_and_escaped_cells(tmp_path):
    table = pd.DataFrame({"model": ["<b>x</b>", "y"], "score": [0.12345, np.nan], "n": [1000, 2], "<i>": ["<u>", None]})
    shown = figures.publish_table(
        table, number="E1", slug="t", title="T", caption="c", folder=tmp_path, formats={"n": ",d", "absent": ".1f"}
    )
    soup = BeautifulSoup(shown._repr_html_(), "html.parser")
    assert soup.table["id"] == "table-E1"
    assert soup.caption.get_text() == "Table E1. T. c"
    assert [th["scope"] for th in soup.thead.find_all("th")] == ["col"] * 4
    assert [th.get_text() for th in soup.tbody.find_all("th", scope="row")] == ["<b>x</b>", "y"]
    assert [td.get_text() for td in soup.tbody.find_all("td")] == ["0.123", "1,000", "<u>", "–", "2", "–"]
    assert pd.read_csv(tmp_path / "table-E1-t.csv")["score"].iloc[0] == pytest.approx(0.12345)
    folded = figures.publish_table(table, number="E1", slug="t", title="T <", caption="c", folder=tmp_path, fold=True)
    fold = BeautifulSoup(folded._repr_html_(), "html.parser").details
    assert fold.summary.get_text() == "Table E1. T <" and fold.table["id"] == "table-E1"


def test_table_can_save_other_data_than_it_shows(tmp_path):
    table = pd.DataFrame({"score": ["0.1 [0.0, 0.2]"]}, index=pd.Index(["a"], name="model"))
    data = pd.DataFrame({"model": ["a"], "value": [0.1], "low": [0.0]})
    shown = figures.publish_table(table, data=data, number="1", slug="t", title="T", caption="c", folder=tmp_path)
    assert list(pd.read_csv(tmp_path / "table-1-t.csv").columns) == ["model", "value", "low"]
    heads = BeautifulSoup(shown._repr_html_(), "html.parser").find_all("th")
    assert [th.get_text() for th in heads] == ["model", "score", "a"]  # a named index gives the row headers


def luminance(color):
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    "styles",
    [
        [figures.model_style(name) for name in figures.known_models()[:8]],
        [figures.class_style(name) for name in CLASSES],
    ],
    ids=["models", "classes"],
)
def test_styles_differ_without_colour(styles):
    assert len({style.color for style in styles}) == len(styles)
    assert len({style.hatch for style in styles}) == len(styles)
    # Two with the same line must at least differ in how dark they print, or in their marker.
    for i, one in enumerate(styles):
        for other in styles[i + 1 :]:
            assert one.linestyle != other.linestyle or one.marker != other.marker
            assert one.marker != other.marker or abs(luminance(one.color) - luminance(other.color)) > 0.05


def test_words_are_escaped():
    assert "<script>" not in figures.paragraph("<script>")._repr_html_()
    assert "<script>" not in figures.command_lines("<script>")._repr_html_()
    assert "<script>" not in figures.folded("<script>", "<script>")._repr_html_()


def test_a_smaller_svg_has_the_same_points_and_factors():
    svg = (
        b'<path id="a" d="M 1.23456 -2.5 \nL 100 4 \nQ 1 2 3.001 4 \nz\n" transform="scale(0.015625)"/>\n'
        b'  <use x="12.3456789" y="-0.126" transform="translate(1.99999 3) scale(0.09 -0.09)"/>'
    )
    assert figures.smaller(svg) == (
        b'<path id="a" d="M1.23 -2.5L100 4Q1 2 3.00 4z" transform="scale(0.015625)"/>\n'
        b'<use x="12.34" y="-0.12" transform="translate(1.99 3) scale(0.09 -0.09)"/>'
    )
