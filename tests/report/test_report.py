"""The report, from planted notebooks: what it says, that it loads nothing, that ids and links hold."""

import base64
import hashlib
import html
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote_to_bytes

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from conftest import contrast
from nbformat import v4
from planted import LABELS, plant_model, planted_record

from fer_utils.errors import ResultsError
from fer_utils.files import write_json
from fer_utils.findings.results import ModelResult, Run
from fer_utils.paths import project_root
from fer_utils.report import facts
from fer_utils.report import page as report

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="  # 1x1 PNG
HOSTILE = "<script>alert('x')</script>"


def code(source, *outputs, tags=()):
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=1, metadata={"tags": list(tags)})


#: On the error stream, as TensorFlow writes there.
SAID = (
    "E0000 00:00:1.2 1 node_def_util.cc:682] NodeDef mentions attribute use_unbounded_threadpool which is not in it\n"
    + "oneDNN is on\n" * 3
)


def shown(markup):
    return v4.new_output("display_data", {"text/html": markup, "text/plain": "a figure"})


def stream(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def figure(name, text="Figure 5.1. Accuracy of models. With intervals."):
    number, rest = text.split(". ", 1)
    return (
        f'<figure id="{name}"><img alt="bars" src="data:image/png;base64,{PIXEL}">'
        f"<figcaption><b>{number}.</b> {rest}</figcaption></figure>"
    )


def write_notebook(path, *cells, source=None):
    notebook = v4.new_notebook(cells=list(cells))
    if source:
        notebook.metadata["papermill"] = {"input_path": f"notebooks/{source}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def plant_chapters(out):
    """Findings, audit, dataset and methods. The findings link to their own figure and beyond, and to nothing."""
    write_notebook(
        out / "findings" / "notebook.ipynb",
        v4.new_markdown_cell("# Findings of this run\n\n## Scores\n\nAll in one page."),
        code("publish(fig)", shown(figure("fig-5-1"))),
        v4.new_markdown_cell(
            "## Curves\n\n[own](#fig-5-1) [claim](#claim-F01) [dataset](#fig-3-1) [nowhere](#fig-9-9) "
            "[notebook](01_dataset.ipynb) [paper](https://arxiv.org/abs/1307.0414) [file](../claims.csv) "
            "[heading](#Scores)"
        ),
        source="07_findings.ipynb",
    )
    opening = '<section class="fer-opening"><p>The answer</p><a href="#claims">63</a><details>more</details></section>'
    write_notebook(
        out / "audit" / "notebook.ipynb",
        v4.new_markdown_cell("# Audit"),
        code("opening", shown(opening), tags=["reproducibility-summary"]),
        code(
            "audit", shown('<table><tr id="claim-F01"><th>F01</th><td>not testable</td></tr></table>'), tags=["claims"]
        ),
    )
    write_notebook(
        out / "dataset" / "notebook.ipynb",
        v4.new_markdown_cell("# The dataset\n\n## Counts"),
        code("show", shown(figure("fig-3-1", "Figure 3.1. Faces. Three a class."))),
        source="01_dataset.ipynb",
    )
    own = v4.new_markdown_cell("## Which run this is", metadata={"tags": ["not-in-report"]})
    long = [
        code("print", stream("line\n" * 12), stream("line\n")),
        code("print", stream("10%\rkept\nline\n"), stream("line\n")),
    ]
    long += [code("print", stream("\x1b[0m\n")), code("show", shown("<pre> </pre>"))]
    write_notebook(out / "methods" / "notebook.ipynb", v4.new_markdown_cell("# Methods\n\n## Scores"), own, *long)


def plant(out, models=("traditional_cnn", "resnet50"), plan=None, chapters=True, **record):
    """Plant a run folder with the notebooks that the report shows."""
    if chapters:
        plant_chapters(out)
    for model in models:
        plant_model(out, model, record=planted_record(model, **record))
        write_notebook(
            out / model / "seed-0" / "notebook.ipynb",
            v4.new_markdown_cell("# A network\n\n## Data\n\n## Training\n\nSee [data](#Data) and [plot](#fig-5-1)."),
            code("seed = 7", tags=["injected-parameters"]),
            code("train()", stream("epoch 1\n"), stream(SAID, "stderr"), shown(figure("fig-5-1"))),
            source=f"{model}.ipynb",
        )
    entries = [{"model": m, "seed": 0, "notebook": f"{m}.ipynb", "label": LABELS.get(m, m)} for m in models]
    base = {"profile": "paper", "data": "fer2013.zip", "protocol": "sound", "models": entries}
    write_json(out / "plan.json", {**base, "command": "./run_all.sh --profile paper", **(plan or {})})
    (out / "claims.csv").write_text("id\nF01\n")
    return out


def build(out):
    return BeautifulSoup(report.build_report(out).read_text(encoding="utf-8"), "html.parser")


def assert_sound(page):
    """No external reference, nothing active, no id twice, no link to an id that is not there."""
    for element in page.find_all(True):
        assert element.name not in {"link", "iframe", "object", "embed", "base", "svg"}
        assert not [name for name in element.attrs if name.startswith("on")]
        assert element.get("src", "data:").startswith("data:"), element
    assert [script.parent.name for script in page.find_all("script")] == ["body"]  # the page's own
    ids = [element["id"] for element in page.find_all(id=True)]
    assert sorted(ids) == sorted(set(ids))
    links = {a["href"][1:] for a in page.find_all("a", href=True) if a["href"].startswith("#")}
    assert links and links <= set(ids)


def text_of(element):
    return " ".join(element.get_text(" ").split())


# ---------------------------------------------------------------- order, ids, links


def test_findings_and_audit_come_first_then_appendices_in_the_plans_order(tmp_path):
    page = build(plant(tmp_path, models=("vgg16", "resnet50")))
    assert_sound(page)
    headings = [text_of(h) for h in page.main.find_all("h2")]
    assert headings == [
        "Findings of this run",
        "Audit",
        "Appendix 1. The dataset",
        "Appendix 2. VGG-16, seed 0",
        "Appendix 3. ResNet-50, seed 0",
        "Appendix 4. Methods",
    ]
    assert len(page.find_all("h1")) == 1
    contents = page.select_one("nav.page-side")
    assert [text_of(a) for a in contents.select(":scope > ol > li > a")] == headings
    assert [text_of(a) for a in contents.select(".page-body ol a")] == ["Scores", "Curves"]
    assert [text_of(a) for a in contents.select("li:not(.page-body) > ol a")][:3] == ["Counts", "Data", "Training"]
    links = {text_of(a): a["href"] for a in contents.select("details a")}
    assert links["Figure 5.1. Accuracy of models"] == "#fig-5-1" and links["F01"] == "#claim-F01"


def test_the_answer_its_figure_and_only_then_the_warnings_stand_on_the_first_screen(tmp_path):
    page = build(plant(tmp_path, warnings=["slow disk"]))
    assert [text_of(p) for p in page.select(".fer-opening > p")] == ["The answer"]
    opening = page.header.select_one(".fer-opening")
    assert opening.find("a", string="63")["href"] == "#claims" and page.find(id="claims").find_parent(id="audit")
    copy = opening.select_one("figure a")
    assert copy["href"] == "#fig-5-1" and copy.img["src"] == page.find(id="fig-5-1").img["src"]
    assert opening.find_next("details", class_="page-notice") and page.header.details.find_parent(class_="fer-opening")


def test_figures_keep_their_ids_in_the_findings_and_lose_them_in_the_appendices(tmp_path):
    page = build(plant(tmp_path))
    assert page.find(id="fig-5-1").find_parent("section")["id"] == "findings"
    assert page.find(id="fig-3-1").find_parent("section")["id"] == "dataset"
    section = page.find("section", id="resnet50-seed-0")
    assert section.find("figure")["id"] == "resnet50-seed-0--fig-5-1"
    assert section.find("a", string="plot")["href"] == "#resnet50-seed-0--fig-5-1"
    assert page.find(id="resnet50-seed-0--Data").name == "h3"
    assert section.find("a", string="data")["href"] == "#resnet50-seed-0--Data"


def test_links_lead_where_they_say_or_are_plain_text(tmp_path):
    findings = build(plant(tmp_path)).find("section", id="findings")
    assert {a.string: a.get("href") for a in findings.select("a:not(.page-anchor)")} == {
        "own": "#fig-5-1",
        "claim": "#claim-F01",
        "dataset": "#fig-3-1",
        "nowhere": None,
        "notebook": "#dataset",
        "paper": "https://arxiv.org/abs/1307.0414",
        "file": "claims.csv",
        "heading": "#findings--Scores",
    }


def test_labels_follow_the_ids_of_their_own_part(tmp_path):
    table = '<table><tr><th id="head">h</th><td headers="head">x</td></tr></table><p aria-describedby="head">y</p>'
    plant(tmp_path)
    for place in ("dataset", "methods"):
        write_notebook(tmp_path / place / "notebook.ipynb", code("draw", shown(table)))
    page = build(tmp_path)
    for place in ("dataset", "methods"):
        section = page.find(id=place)
        assert section.find("th", string="h")["id"] == f"{place}--head"
        assert section.find("td", string="x")["headers"] == [f"{place}--head"]
        assert section.find("p", string="y")["aria-describedby"] == f"{place}--head"


def test_what_trainings_say_in_the_same_words_stands_once(tmp_path):
    plant(tmp_path, models=("vgg16", "resnet50"))
    for model in ("vgg16", "resnet50"):
        path = tmp_path / model / "seed-0" / "notebook.ipynb"
        notebook = nbformat.read(path, 4)
        notebook.cells.append(v4.new_markdown_cell("## Optimizer\n\nAdam, as Table 5.1 says."))
        nbformat.write(notebook, path)
    page = build(tmp_path)
    first, second = (page.find("section", id=f"{model}-seed-0") for model in ("vgg16", "resnet50"))
    assert "Adam" in text_of(first) and "Adam" not in text_of(second)
    link = second.find(id="resnet50-seed-0--Optimizer").find_next("a", string="VGG-16, seed 0")
    assert link["href"] == "#vgg16-seed-0"


@pytest.mark.parametrize("tag", ["picture", "img"])
def test_the_opening_shows_the_figure_as_the_page_does(tag):
    """With its drawing for a phone, where it has one."""
    image = '<img alt="bars" src="data:,wide">'
    if tag == "picture":
        image = f'<picture><source media="(max-width: 34rem)" srcset="data:,narrow">{image}</picture>'
    markup = f'<section class="page-opening"><details>more</details></section><figure id="fig-5-1">{image}</figure>'
    opening = report.take_opening([SimpleNamespace(soup=BeautifulSoup(markup, "html.parser"))])
    assert f'<a href="#fig-5-1">{BeautifulSoup(image, "html.parser")}</a>' in opening


def test_figures_and_tables_carry_their_data_and_headings_a_link_to_themselves(tmp_path):
    plant(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "fig-5.1-accuracy.csv").write_text('model,value\n"é 5%, #1",0.5\n', encoding="utf-8")
    (tmp_path / "figures" / "fig-3.1-faces.csv").write_text("x\n" * 100_000)
    own = tmp_path / "resnet50" / "seed-0" / "figures"
    own.mkdir()
    (own / "fig-5.1-own.csv").write_text("own\n")
    page = build(tmp_path)
    assert_sound(page)
    links = {link.find_parent("figure")["id"]: link for link in page.select("a.page-csv")}
    within = {name: unquote_to_bytes(links[name]["href"].partition(",")[2]) for name in links if name != "fig-3-1"}
    # One for each place that shows it; a training's own goes first.
    assert within.pop("resnet50-seed-0--fig-5-1") == b"own\n"
    assert set(within.values()) == {'model,value\n"é 5%, #1",0.5\n'.encode()} and "fig-5-1" in within
    assert links["fig-5-1"]["download"] == "fig-5.1-accuracy.csv"
    assert links["fig-3-1"]["href"] == "figures/fig-3.1-faces.csv"  # too large to carry
    for heading in page.main.select("h3[id]"):
        assert heading.select_one("a.page-anchor")["href"] == f"#{heading['id']}"


def test_report_is_the_same_bytes_when_built_again_and_a_failed_build_leaves_it(tmp_path, monkeypatch):
    path = report.build_report(plant(tmp_path))
    first = path.read_bytes()
    assert report.build_report(tmp_path).read_bytes() == first
    monkeypatch.setattr(report, "style_sheet", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.build_report(tmp_path)
    assert path.read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["claims.csv", "plan.json", "report.html"]


# ---------------------------------------------------------------- notebooks to HTML


def test_code_and_noise_are_folded_and_outputs_are_not(tmp_path):
    page = build(plant(tmp_path))
    section = page.find(id="resnet50-seed-0")
    folds = [text_of(summary) for summary in section.find_all("summary")]
    assert folds == ["Parameters of this run: cells 2 to 3, and messages"]
    said = section.details.get_text()
    assert "oneDNN is on" in said and "NodeDef" not in said
    assert all(block.find_parent("details") for block in page.select("div.highlight"))
    assert not page.find("details", open=True)
    assert section.find("pre", string=re.compile("epoch 1")).find_parent("details") is None
    assert section.find("figure").find_parent("details") is None
    long, short = page.find(id="methods").find_all("pre", string=re.compile("line"))
    assert text_of(long.find_parent("details").summary) == "Printed output, 13 lines"
    assert short.find_parent("details") is None and short.get_text() == "kept\nline\nline\n"
    assert page.find(id="methods").find("pre", string=re.compile("^\\s*$")) is None
    assert "Which run this is" not in page.get_text()


def test_folders_of_the_machine_are_not_told(tmp_path):
    out = plant(tmp_path / "ünïcode & 'quoted'" / "results" / "run", models=())
    data = tmp_path / "somewhere" / "fer2013.zip"
    picture = f'<img alt="{html.escape(str(out))}/b" src="data:image/png;base64,{Path.home()}/x">'
    notebook = v4.new_notebook(
        cells=[
            v4.new_markdown_cell(f"In `{out}/claims.csv`"),
            code(f'out = "{str(out).encode("unicode_escape").decode()}"\ndata = "{data}"', stream(f"see {out}/x.log")),
            code("x", shown(f"<p>{html.escape(str(out))}/a.csv</p>{picture}")),
            code("x", v4.new_output("error", ename="E", evalue=f"{data}: bad", traceback=[f"{Path.home()}/lib/x.py"])),
            code("x", stream("/elsewhere/results/run/a.txt /elsewhere/notebooks/b.ipynb")),
        ]
    )
    notebook.metadata["papermill"] = {
        "input_path": "/elsewhere/notebooks/07_findings.ipynb",
        "parameters": {"out": "/elsewhere/results/run"},
    }
    nbformat.write(notebook, out / "findings" / "notebook.ipynb")
    command = f"./run_all.sh --data {data} --out '{out}'"
    write_json(out / "plan.json", {"models": [], "data_path": str(data), "command": command, "data_notes": [str(data)]})
    error = {"error": f"{data}: bad", "traceback": f'File "{out}/x.py"\n{Path.home()}/y.py'}
    write_json(out / "failed" / "vgg16-seed-0.json", error)
    page = build(out)
    # A picture's bytes may look like a folder's name by chance, and are left alone.
    assert page.find("img", src=re.compile("^data"))["src"].endswith(f"{Path.home()}/x")
    text = page.get_text() + str(page).replace(f"base64,{Path.home()}/x", "")
    for told in (str(tmp_path), "quoted", "somewhere", str(Path.home()), "/elsewhere"):
        assert told not in text
    for kept in ("--data fer2013.zip", "see run/x.log", "run/a.csv", "fer2013.zip: bad", "~/lib/x.py"):
        assert kept in text
    assert "results/run/a.txt" not in text and "run/a.txt notebooks/b.ipynb" in text


def test_the_folder_of_the_data_is_not_told_where_the_plan_does_not_name_it(tmp_path):
    """As in a published set: the notebook alone knows where the data were."""
    out = plant(tmp_path / "run", models=())
    notebook = v4.new_notebook(cells=[code('data = "/secret/place/fer2013.zip"', stream("read"))])
    notebook.metadata["papermill"] = {"parameters": {"data": "/secret/place/fer2013.zip", "out": "run"}}
    nbformat.write(notebook, out / "findings" / "notebook.ipynb")
    page = str(build(out))
    assert "secret" not in page and "fer2013.zip" in page


def test_tables_scroll_and_say_what_their_headers_head(tmp_path):
    frame = pd.DataFrame({"accuracy": [0.5], "name": ["<b>"]}, index=["vgg16"])
    write_notebook(tmp_path / "findings" / "notebook.ipynb", code("t", shown(frame._repr_html_())))
    page = build(tmp_path)
    table = page.find("table", class_="dataframe")
    assert "page-scroll" in table.parent["class"] and table.parent["tabindex"] == "0"
    # The empty corner is no header.
    assert [(c.name, c.get("scope")) for c in table.thead.find_all(["th", "td"])] == [
        ("td", None),
        ("th", "col"),
        ("th", "col"),
    ]
    assert table.select_one("tbody th")["scope"] == "row" and "border" not in table.attrs
    assert table.tbody.find_all("td")[1].string == "<b>"


# ---------------------------------------------------------------- notices


def titles(page):
    return [text_of(notice.find("strong")) for notice in page.select("header .page-notice")]


def weights(used):
    return {"weights": {"requested": "imagenet", "used": used, "sha256": None, "reason": "unavailable (OSError: x)"}}


@pytest.mark.parametrize(
    ("plan", "record", "expected"),
    [
        ({}, {}, []),
        ({"profile": "smoke"}, {"shortened": True}, ["SMOKE RUN"]),
        ({"profile": "quick"}, {"shortened": True}, ["SHORTENED RUN"]),
        ({}, {"shortened": True}, ["SHORTENED RUN"]),
        ({}, {"synthetic": True, "data": {"source": "synthetic", "variant": "synthetic"}}, ["SYNTHETIC DATA"]),
        ({}, {"data": {"source": "x.zip", "variant": "fer2013-modified", "known": False}}, ["MODIFIED DATA"]),
        ({}, weights("none"), ["RANDOM INITIALISATION"]),
        ({}, weights("imagenet"), []),
        ({}, {"warnings": ["only 12 images"]}, ["NOTES"]),
        ({"data_notes": ["Kaggle did not answer"]}, {}, ["NOTES ON THE DATA"]),
        ({"models": [{"model": "vgg16", "seed": 0}]}, {}, ["INCOMPLETE RUN"]),
        ({"models": [{"model": m, "seed": 0} for m in ("vgg16", "resnet50")]}, {}, ["INCOMPLETE RUN"]),
    ],
)
def test_notices_say_what_a_run_is(tmp_path, plan, record, expected):
    page = build(plant(tmp_path, plan=plan, **record))
    assert_sound(page)
    assert titles(page) == expected
    loud = [name for name in expected if not name.startswith("NOTES")]
    # On the sticky bar, on the printed edge of each page, in the window's title, and at the head of every part.
    for name in loud:
        assert name in page.select_one(".page-bar").string and name in page.select_one(".page-edge").string
        assert name in page.title.string
        assert all(name in part.select_one(".page-flags").string for part in page.select("section.page-part"))
    assert loud or not page.select(".page-bar, .page-edge, .page-flags")


def test_notices_give_differences_and_reasons_without_the_errors_text(tmp_path):
    plant(tmp_path, **weights("none"))
    fingerprint = {
        "variant": "fer2013-modified",
        "description": "The training half is blurred.",
        "differences": ["28,709 images of Training are blurred"],
        "sha256": "ab" * 32,
        "n_images": 35887,
    }
    write_json(tmp_path / "dataset" / "dataset.json", {"source": "other.zip", "fingerprint": fingerprint})
    header = text_of(build(tmp_path).header)
    assert "The training half is blurred. 28,709 images of Training are blurred" in header
    assert "Traditional CNN, seed 0; ResNet-50, seed 0: unavailable" in header and "OSError" not in header
    assert "other.zip (fer2013-modified, 35,887 images)" in header and "abababababababab" in header
    assert "MIXED DATA" in header  # the trainings were on others


def test_warnings_stand_once_with_the_trainings_they_hold_for():
    def training(label, *warnings):
        return ModelResult(label, 1, label, Path(), planted_record(warnings=list(warnings)))

    first, second = training("A", "slow disk", "SHORTENED RUN: 2 of 45"), training("B", "slow disk", "hot")
    run = Run(Path(), trainings=[first, second])
    (notes,) = [notice for notice in facts.notices(run) if notice.title == "NOTES"]
    assert notes.points == ("A, seed 1; B, seed 1: slow disk", "B, seed 1: hot")


def test_the_conditions_and_the_trainings_are_told(tmp_path):
    changes = {"git": {"commit": "abcdef0123456789", "dirty": True}, "predictions_sha256": "0123456789abcdef" * 4}
    page = build(plant(tmp_path, **changes))
    stated = {text_of(d.dt): text_of(d.dd) for d in page.select(".page-conditions dl div")}
    assert stated["Protocol"].startswith("sound (") and stated.pop("Protocol")
    assert stated == {
        "Profile": "paper",
        "Data": "fer2013.zip (fer2013-kaggle-jpeg, 700 images)",
        "Fingerprint": "0" * 16,
        "Seeds": "0",
        "Device": "CPU planted, 2 threads",
        "Software": "Python 3.11, TensorFlow 2.21.0, Keras 3.15.1",
        "Code": "commit abcdef012345, with uncommitted changes",
        "Date": "2026-01-01 00:00 UTC to 2026-01-01 01:00 UTC",
        "Command": "./run_all.sh --profile paper",
    }
    rows = [[text_of(c) for c in row.find_all(["th", "td"])] for row in page.select(".page-conditions tbody tr")]
    same = ["mixed_bfloat16", "234", "45 of 45", "3", "58 min", "0123456789abcdef"]
    assert rows == [
        ["Traditional CNN", "0", "sound", "random", *same],
        ["ResNet-50", "0", "sound", "ImageNet", *same],
    ]


def test_a_notebook_shows_which_run_it_reads(tmp_path):
    shown_ = facts.show(report.read_run(plant(tmp_path, models=("vgg16",), plan={"profile": "smoke"}, shortened=True)))
    assert "SMOKE RUN" in shown_._repr_html_() and "Protocol: sound" in repr(shown_)
    assert "./run_all.sh" in facts.show(Run(tmp_path))._repr_html_()


# ---------------------------------------------------------------- failures and missing pieces


def test_failed_model_has_a_section_with_error_and_partial_notebook(tmp_path):
    plant(tmp_path)
    (tmp_path / ".training").mkdir()
    (tmp_path / "resnet50").rename(tmp_path / ".training" / "resnet50")
    error = {"error": HOSTILE, "traceback": f"line 1\n{HOSTILE}", "notebook": "03_resnet50.ipynb"}
    write_json(tmp_path / "failed" / "resnet50-seed-0.json", error)
    page = build(tmp_path)
    assert_sound(page)
    assert titles(page) == ["FAILED MODELS"]
    section = page.find(id="resnet50-seed-0")
    assert section.select_one(".page-notice pre").get_text().count(HOSTILE) == 2
    assert "epoch 1" in section.get_text() and page.select_one("nav.page-side li.page-failed")


@pytest.mark.parametrize("missing", ["findings", "audit", "dataset", "methods", "vgg16", "plan.json", "everything"])
def test_the_page_survives_missing_parts(tmp_path, missing):
    plant(tmp_path, models=("vgg16",), chapters=missing != "everything")
    for path in [tmp_path / missing] if missing != "everything" else list(tmp_path.iterdir()):
        path.unlink() if path.is_file() else subprocess.run(["rm", "-r", path], check=True)
    page = build(tmp_path)
    assert_sound(page)
    for name in ("findings", "audit"):
        note = page.find(id=name).select_one(".page-note")
        assert bool(note) == (missing in (name, "everything"))
        assert not note or note.code.string.startswith("./run_all.sh")
    assert bool(page.select(".fer-opening")) == (missing not in ("audit", "everything"))


def test_broken_files_are_named_and_do_not_stop_the_report(tmp_path):
    plant(tmp_path)
    (tmp_path / "methods" / "notebook.ipynb").write_text("{")
    (tmp_path / "resnet50" / "seed-0" / "run.json").write_text('{"model": ')
    (tmp_path / "dataset" / "dataset.json").write_text("[]")
    other = write_notebook(tmp_path.parent / "other.ipynb", v4.new_markdown_cell("not of this run"))
    (tmp_path / "traditional_cnn" / "seed-0" / "notebook.ipynb").unlink()
    (tmp_path / "traditional_cnn" / "seed-0" / "notebook.ipynb").symlink_to(other)
    (tmp_path / ".training").mkdir()
    (tmp_path / "findings").rename(tmp_path / ".training" / "findings")
    page = build(tmp_path)
    stopped = page.find(id="findings")
    assert "stopped with an error" in text_of(stopped.select_one(".page-note")) and stopped.find(id="fig-5-1")
    assert "methods/notebook.ipynb cannot be shown: NotJSONError" in text_of(page.find(id="methods"))
    assert "run.json cannot be read" in text_of(page.find(id="resnet50-seed-0"))
    assert "dataset.json holds a list" in text_of(page.header)
    assert "not of this run" not in page.get_text() and "not in the run's folder" in page.get_text()


def test_command_prints_the_path_last_and_names_a_missing_folder(tmp_path, capsys):
    plant(tmp_path / "a run", models=())
    assert not report.main([str(tmp_path / "a run")])
    assert Path(capsys.readouterr().out.splitlines()[-1]) == tmp_path / "a run" / "report.html"
    with pytest.raises(ResultsError, match="no such folder"):
        report.build_report(tmp_path / "none")
    assert report.main([str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err


# ---------------------------------------------------------------- the whole, and its look


def test_contrast_is_enough_for_every_text_colour():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    css = report.style_sheet()
    light = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css[: css.index("@media")]))
    dark = light | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css[css.index("@media") :]))
    pairs = [("#ffffff", light["bar"])]
    for colour in (light, dark):
        grounds = {"paper", "tint", "danger-tint", "warning-tint"}
        pairs += [(colour[ink], colour[ground]) for ink in ("ink", "soft", "link", "danger") for ground in grounds]
        pairs += [(colour["warning-ink"], colour["warning-tint"])]
    code_colours = set(re.findall(r"\.(?:ansi-\w+-fg|highlight \.\w+) \{[^}]*?(?<!-)color: (#[0-9a-fA-F]{6})", css))
    assert len(code_colours) > 10
    pairs += [(c, light["code"]) for c in code_colours]
    assert {pair: round(contrast(*pair), 2) for pair in pairs if contrast(*pair) < 4.5} == {}


def test_page_names_its_language_its_landmarks_and_its_policy(tmp_path):
    page = build(plant(tmp_path))
    assert page.html["lang"] == "en" and page.find("meta", attrs={"name": "viewport"})
    assert page.select_one("a.page-skip")["href"] == "#main" and page.find("main", id="main")
    names = [nav["aria-label"] for nav in page.find_all("nav")]
    assert page.header and page.footer and len(names) == len(set(names))
    for section in page.select("section.page-part"):
        assert page.find(id=section["aria-labelledby"]).name == "h2"
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(page.find(name).string.encode()).digest()).decode()}'"
        for name in ("style", "script")
    ]
    assert dict(rule.split(" ", 1) for rule in policy.split("; ")) == {
        **dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'"),
        **dict.fromkeys(("style-src", "style-src-attr"), "'unsafe-inline'"),
        "style-src-elem": hashes[0],
        "script-src": hashes[1],
        "img-src": "data:",
    }


def test_notebooks_hold_no_formulas_that_need_mathjax():
    for path in sorted((project_root() / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.S) if cell.cell_type == "markdown" else ""
            assert "$" not in prose and "\\(" not in prose, f"{path.name}: write the formula in Unicode: {prose}"
