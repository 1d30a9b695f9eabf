"""The report, from planted notebooks: what it says, that it loads nothing, that ids and links hold."""

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib import pyplot as plt
from nbformat import v4
from planted import LABELS, planted_record

from fer_utils.errors import ResultsError
from fer_utils.findings import figures
from fer_utils.paths import project_root
from fer_utils.report import facts as overview
from fer_utils.report import page as report

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="  # 1x1 PNG
HOSTILE = "<script>alert('x')</script>"


def code(source, *outputs, **metadata):
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=1, metadata=metadata)


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
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    if source:
        notebook.metadata["papermill"] = {"input_path": f"notebooks/{source}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def plant_findings(out):
    """Findings that link to their own figure, to a claim, to the dataset's figure, and to nothing."""
    return write_notebook(
        out / "findings" / "notebook.ipynb",
        v4.new_markdown_cell("# Findings of this run\n\n## Summary\n\nAll in one page."),
        code("publish(fig)", shown(figure("fig-5-1"))),
        v4.new_markdown_cell(
            "## Audit\n\n[own](#fig-5-1) [claim](#claim-F01) [dataset](#fig-3-1) [nowhere](#fig-9-9) "
            "[notebook](01_dataset.ipynb) [paper](https://arxiv.org/abs/1307.0414) [file](../claims.csv) "
            "[heading](#Summary)"
        ),
        code("audit", shown('<table><tr id="claim-F01"><th>F01</th><td>not testable</td></tr></table>')),
        source="07_findings.ipynb",
    )


def plant_model_notebook(out, model, seed=0, *cells):
    return write_notebook(
        out / model / f"seed-{seed}" / "notebook.ipynb",
        v4.new_markdown_cell("# A network\n\n## Data\n\n## Training\n\nSee [data](#Data) and [plot](#fig-5-1)."),
        code("seed = 7", **{"tags": ["injected-parameters"]}),
        code("train()", stream("epoch 1\n"), stream("2026 oneDNN is on\n" * 3, "stderr"), shown(figure("fig-5-1"))),
        *cells,
        source=f"{model}.ipynb",
    )


def plant(out, models=("traditional_cnn", "resnet50"), plan=None, findings=True, **record):
    """Plant a run folder as the report reads it: notebooks and records only."""
    if findings:
        plant_findings(out)
    write_notebook(
        out / "dataset" / "notebook.ipynb",
        v4.new_markdown_cell("# The dataset\n\n## Counts"),
        code("show", shown(figure("fig-3-1", "Figure 3.1. Faces. Three a class."))),
        source="01_dataset.ipynb",
    )
    write_notebook(out / "methods" / "notebook.ipynb", v4.new_markdown_cell("# Methods\n\n## Summary"))
    for model in models:
        plant_model_notebook(out, model)
        write_json(out / model / "seed-0" / "run.json", planted_record(model, **record))
    entries = [{"model": m, "seed": 0, "notebook": f"{m}.ipynb", "label": LABELS.get(m, m)} for m in models]
    base = {"profile": "paper", "data": "fer2013.zip", "protocol": "sound", "models": entries}
    write_json(out / "plan.json", {**base, "command": "./run_all.sh --profile paper", **(plan or {})})
    (out / "claims.csv").write_text("id\nF01\n")
    return out


def build(out):
    path = report.build_report(out)
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def assert_sound(page):
    """No external reference, nothing active, no id twice, no link to an id that is not there."""
    for element in page.find_all(True):
        assert element.name not in {"script", "link", "iframe", "object", "embed", "base"}
        assert not [name for name in element.attrs if name.startswith("on")]
        for name in ("src", "srcset", "data", "poster", "action", "background"):
            assert element.get(name, "data:").startswith("data:"), element
        if element.name != "a" and element.get("href"):
            assert element["href"].startswith(("#", "data:"))
    styles = " ".join([s.get_text() for s in page.find_all("style")] + [e["style"] for e in page.find_all(style=True)])
    assert "@import" not in styles and "http" not in styles and not re.search(r"url\((?!['\"]?data:)", styles)
    ids = [element["id"] for element in page.find_all(id=True)]
    assert sorted(ids) == sorted(set(ids))
    links = {a["href"][1:] for a in page.find_all("a", href=True) if a["href"].startswith("#")}
    assert links and links <= set(ids)


def text_of(element):
    return " ".join(element.get_text(" ").split())


# ---------------------------------------------------------------- order, ids, links


def test_findings_come_first_then_appendices_in_the_plans_order(tmp_path):
    page = build(plant(tmp_path, models=("vgg16", "resnet50")))
    assert_sound(page)
    assert [text_of(h) for h in page.main.find_all("h2")] == [
        "Findings of this run",
        "Appendix 1. The dataset",
        "Appendix 2. Methods",
        "Appendix 3. VGG-16, seed 0",
        "Appendix 4. ResNet-50, seed 0",
    ]
    assert len(page.find_all("h1")) == 1
    contents = page.select_one("nav.side")
    assert [text_of(a) for a in contents.select(":scope > ol > li > a")] == [
        text_of(h) for h in page.main.find_all("h2")
    ]
    assert [text_of(a) for a in contents.select("ol ol a")] == ["Summary", "Audit"]


def test_figures_keep_their_ids_in_the_findings_and_lose_them_in_the_appendices(tmp_path):
    page = build(plant(tmp_path))
    assert page.find(id="fig-5-1").find_parent("section")["id"] == "findings"
    assert page.find(id="fig-3-1").find_parent("section")["id"] == "dataset"
    for slug in ("traditional_cnn-seed-0", "resnet50-seed-0"):
        own = page.find(id=slug).find("figure")["id"]
        assert own == f"{slug}--fig-5-1"
        assert page.find("section", id=slug).find("a", string="plot")["href"] == f"#{own}"
        heading = page.find(id=f"{slug}--Data")
        assert (
            heading.name == "h3" and page.find("section", id=slug).find("a", string="data")["href"] == f"#{slug}--Data"
        )


def test_links_lead_where_they_say_or_are_plain_text(tmp_path):
    findings = build(plant(tmp_path)).find("section", id="findings")
    target = {a.string: a.get("href") for a in findings.find_all("a")}
    assert target == {
        "own": "#fig-5-1",
        "claim": "#claim-F01",
        "dataset": "#fig-3-1",
        "nowhere": None,
        "notebook": "#dataset",
        "paper": "https://arxiv.org/abs/1307.0414",
        "file": "claims.csv",
        "heading": "#findings--Summary",
    }


def test_contents_list_figures_and_claims(tmp_path):
    side = build(plant(tmp_path)).select_one("nav.side")
    links = {text_of(a): a["href"] for a in side.select("details a")}
    assert links["Figure 5.1. Accuracy of models"] == "#fig-5-1"
    assert links["Figure 3.1. Faces"] == "#fig-3-1"
    assert links["F01"] == "#claim-F01"


def test_labels_follow_the_ids_of_their_own_part(tmp_path):
    table = '<table><tr><th id="head">h</th><td headers="head">x</td></tr></table><p aria-describedby="head">y</p>'
    plant(tmp_path, models=())
    for seed in (0, 1):
        plant_model_notebook(tmp_path, "vgg16", seed, code("draw", shown(table)))
        write_json(tmp_path / "vgg16" / f"seed-{seed}" / "run.json", planted_record("vgg16", seed))
    entries = [{"model": "vgg16", "seed": seed, "label": "VGG-16"} for seed in (0, 1)]
    write_json(tmp_path / "plan.json", {"models": entries})
    page = build(tmp_path)
    for seed in (0, 1):
        section = page.find(id=f"vgg16-seed-{seed}")
        name = section.find("th", string="h")["id"]
        assert name.startswith(f"vgg16-seed-{seed}--")
        assert section.find("td", string="x")["headers"] == [name]
        assert section.find("p", string="y")["aria-describedby"] == name


def test_report_is_the_same_bytes_when_built_again(tmp_path):
    first = report.build_report(plant(tmp_path)).read_bytes()
    assert report.build_report(tmp_path).read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["claims.csv", "plan.json", "report.html"]


# ---------------------------------------------------------------- notebooks to HTML


def test_code_and_noise_are_folded_and_outputs_are_not(tmp_path):
    page = build(plant(tmp_path))
    section = page.find(id="resnet50-seed-0")
    for block in page.select("div.highlight"):
        assert block.find_parent("details").find("summary").string in ("Code", "Parameters of this run")
    assert not page.find("details", open=True)
    assert text_of(section.find("details", class_="noise").summary) == "Messages on the error stream, 3 lines"
    assert section.find("pre", string=re.compile("epoch 1")).find_parent("details") is None
    assert section.find("figure").find_parent("details") is None
    assert "seed = 7" in text_of(section.find("summary", string="Parameters of this run").parent)


def test_cells_for_readers_of_the_notebook_alone_are_left_out(tmp_path):
    own = v4.new_markdown_cell("## Which run this is", metadata={"tags": ["not-in-report"]})
    write_notebook(tmp_path / "findings" / "notebook.ipynb", own, code("x", stream("kept")))
    text = build(tmp_path).main.get_text()
    assert "kept" in text and "Which run this is" not in text


@pytest.mark.parametrize(
    ("lines", "folded", "kept"), [(200, False, 200), (201, True, 201), (5000, True, report.LONGEST_STREAM)]
)
def test_long_printed_output_is_folded_and_cut(tmp_path, lines, folded, kept):
    text = "".join(f"line {n}\n" for n in range(lines))
    write_notebook(tmp_path / "findings" / "notebook.ipynb", code("print", stream(text)))
    pre = build(tmp_path).find("pre", string=re.compile("line 0"))
    assert (pre.find_parent("details") is not None) == folded
    assert len(re.findall(r"^line \d+$", pre.string, re.M)) == kept
    assert f"line {lines - 1}" in pre.string
    assert (f"{lines - kept} lines left out" in pre.string) == (lines > kept)


def test_folders_of_the_machine_are_not_told(tmp_path):
    out = plant(tmp_path / "ünïcode & 'quoted'" / "results" / "run", models=())
    data = tmp_path / "somewhere" / "fer2013.zip"
    notebook = v4.new_notebook(
        cells=[
            v4.new_markdown_cell(f"In `{out}/claims.csv`"),
            code(f'out = "{str(out).encode("unicode_escape").decode()}"\ndata = "{data}"', stream(f"see {out}/x.log")),
            code("x", shown(f'<p>{html.escape(str(out))}/a.csv</p><img alt="{html.escape(str(out))}/b" src="x">')),
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
    (out / ".training").mkdir()
    error = {
        "model": "vgg16",
        "seed": 0,
        "error": f"{data}: bad",
        "traceback": f'File "{out}/x.py"\n{Path.home()}/y.py',
    }
    write_json(out / "failed" / "vgg16-seed-0.json", error)
    page = build(out)
    text = page.get_text()
    for told in (str(tmp_path), "quoted", "somewhere", str(Path.home()), "/elsewhere"):
        assert told not in text and told not in str(page)
    assert (
        "--data fer2013.zip" in text and "see run/x.log" in text and "run/a.csv" in text and "fer2013.zip: bad" in text
    )
    assert "~/lib/x.py" in text and "results/run/a.txt" not in text and "run/a.txt notebooks/b.ipynb" in text


def test_streams_and_tracebacks_are_escaped(tmp_path):
    error = v4.new_output("error", ename="ValueError", evalue=HOSTILE, traceback=[f"\x1b[0;31m{HOSTILE}\x1b[0m"])
    write_notebook(
        tmp_path / "findings" / "notebook.ipynb",
        code(f"print({HOSTILE!r})", stream(HOSTILE), stream(HOSTILE, "stderr"), error),
        code("x", v4.new_output("execute_result", {"text/plain": HOSTILE}, execution_count=1)),
    )
    page = build(tmp_path)
    assert not page.find("script")
    assert page.main.get_text().count(HOSTILE) == 6  # source, two streams, message, traceback, plain text


def test_scripts_widgets_and_remote_files_are_left_out(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"not really a png")
    (tmp_path.parent / "outside.png").write_bytes(b"secret")
    write_notebook(
        tmp_path / "findings" / "notebook.ipynb",
        code(
            "x",
            shown(
                '<script src="https://x.example/x.js"></script><link href="https://x.example/y.css">'
                '<iframe src="https://x.example"></iframe><style>@import url(https://x.example/y.css);</style>'
                '<img alt="far" src="https://x.example/y.png"><img alt="gone" src="../../outside.png">'
                '<img alt="near" src="../figures/a.png"><a href="javascript:alert(1)">click</a>'
            ),
            v4.new_output("display_data", {"application/javascript": "alert(1)", "text/plain": "plain instead"}),
        ),
    )
    page = build(tmp_path)
    assert_sound(page)
    assert [img["alt"] for img in page.find_all("img")] == ["near"]
    text = text_of(page.main)
    assert "[not in this file: far]" in text and "[not in this file: gone]" in text and "plain instead" in text
    assert not page.find("a", string="click").has_attr("href")
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert all(rules[name] == "'none'" for name in ("default-src", "script-src", "base-uri", "form-action")) and set(
        rules
    ) - {"default-src", "script-src", "base-uri", "form-action"} == {
        "style-src",
        "style-src-elem",
        "style-src-attr",
        "img-src",
    }
    sheet = base64.b64encode(hashlib.sha256(page.find("style").string.encode()).digest()).decode()
    assert rules["style-src-elem"] == f"'sha256-{sheet}'" and rules["img-src"] == "data:"


def test_tables_scroll_and_say_what_their_headers_head(tmp_path):
    frame = pd.DataFrame({"accuracy": [0.5], "name": ["<b>"]}, index=["vgg16"])
    write_notebook(
        tmp_path / "findings" / "notebook.ipynb", code("t", shown(frame._repr_html_()), shown("<pre> \n</pre>"))
    )
    page = build(tmp_path)
    assert not page.main.select(".outputs pre")
    table = page.find("table", class_="dataframe")
    assert "table-scroll" in table.parent["class"] and table.parent["tabindex"] == "0"
    assert [th["scope"] for th in table.select("thead th")] == ["col"] * 3
    assert table.select_one("tbody th")["scope"] == "row" and "border" not in table.attrs
    assert table.select("td")[1].string == "<b>"
    assert not table.parent.parent.find("style")


def test_text_alternatives_are_kept(tmp_path):
    page = build(plant(tmp_path))
    assert {img["alt"] for img in page.find_all("img")} == {"bars"}


# ---------------------------------------------------------------- header and banners


def flags(page):
    return [text_of(b) for b in page.select("header .banner > strong")]


@pytest.mark.parametrize(
    ("plan", "record", "expected"),
    [
        ({}, {}, []),
        ({"profile": "smoke"}, {"profile": "smoke", "shortened": True}, ["SMOKE RUN"]),
        ({"profile": "quick"}, {"profile": "quick", "shortened": True}, ["SHORTENED RUN"]),
        ({}, {"shortened": True}, ["SHORTENED RUN"]),
        (
            {"data": "synthetic"},
            {"synthetic": True, "data": {"source": "synthetic", "variant": "synthetic", "known": False}},
            ["SYNTHETIC DATA"],
        ),
        (
            {},
            {"data": {"source": "x.zip", "variant": "fer2013-modified", "known": False, "description": "blurred"}},
            ["MODIFIED DATA"],
        ),
        (
            {},
            {"weights": {"requested": "imagenet", "used": "none", "sha256": None, "reason": "no network"}},
            ["RANDOM INITIALISATION"],
        ),
        ({}, {"weights": {"requested": "none", "used": "none", "sha256": None, "reason": None}}, []),
        ({}, {"warnings": ["only 12 images"]}, ["NOTES"]),
    ],
)
def test_banners_say_what_a_run_is(tmp_path, plan, record, expected):
    page = build(plant(tmp_path, plan=plan, **record))
    assert_sound(page)
    assert flags(page) == expected
    loud = [name for name in expected if name != "NOTES"]
    # On the sticky bar, on the printed edge of each page, in the window's title, and at the head of every part.
    for name in loud:
        assert name in page.select_one(".bar").string and name in page.select_one(".edge").string
        assert name in page.title.string
        assert all(name in section.select_one(".flags").string for section in page.select("section.part"))
    if not loud:
        assert not page.select(".bar, .edge, .flags")


def test_banner_gives_the_differences_and_reasons(tmp_path):
    plant(tmp_path, weights={"requested": "imagenet", "used": "none", "reason": "no network", "sha256": None})
    fingerprint = {
        "variant": "fer2013-modified",
        "known": False,
        "description": "The training half is blurred.",
        "differences": ["28,709 images of Training are blurred"],
        "sha256": "ab" * 32,
        "n_images": 35887,
        "counts": {},
    }
    write_json(tmp_path / "dataset" / "dataset.json", {"source": "other.zip", "fingerprint": fingerprint})
    header = text_of(build(tmp_path).header)
    assert "The training half is blurred." in header and "28,709 images of Training are blurred" in header
    assert "ResNet-50, seed 0: no network" in header
    assert "other.zip (fer2013-modified, 35,887 images)" in header and "abababababababab" in header


def test_trainings_on_different_data_are_not_one_run(tmp_path):
    plant(tmp_path)
    record = planted_record("resnet50")
    record["data"] = {**record["data"], "fingerprint": "1" * 64}
    write_json(tmp_path / "resnet50" / "seed-0" / "run.json", record)
    assert "MIXED DATA" in flags(build(tmp_path))


def test_header_states_the_run(tmp_path):
    changes = {"git": {"commit": "abcdef0123456789", "dirty": True}, "predictions_sha256": "0123456789abcdef" * 4}
    page = build(plant(tmp_path, **changes))
    facts = {text_of(d.dt): text_of(d.dd) for d in page.select("dl.facts div")}
    assert facts["Profile"] == "paper" and facts["Seeds"] == "0"
    assert facts["Data"] == "fer2013.zip (fer2013-kaggle-jpeg, 700 images)"
    assert facts["Protocol"].startswith("sound (") and facts["Code"] == "commit abcdef012345, with uncommitted changes"
    assert (
        facts["Device"] == "CPU planted, 2 threads"
        and facts["Software"] == "Python 3.11, TensorFlow 2.21.0, Keras 3.15.1"
    )
    assert facts["Date"] == "2026-01-01 00:00 UTC to 2026-01-01 01:00 UTC"
    assert facts["Command"] == "./run_all.sh --profile paper"
    rows = [[text_of(c) for c in row.find_all(["th", "td"])] for row in page.select("header tbody tr")]
    assert rows == [
        ["Traditional CNN", "0", "random", "mixed_bfloat16", "234", "45 of 45", "3", "58 min", "0123456789abcdef"],
        ["ResNet-50", "0", "ImageNet", "mixed_bfloat16", "234", "45 of 45", "3", "58 min", "0123456789abcdef"],
    ]


def test_protocols_are_a_column_where_they_differ(tmp_path):
    plant(tmp_path)
    write_json(tmp_path / "resnet50" / "seed-0" / "run.json", planted_record("resnet50", protocol="thesis"))
    page = build(tmp_path)
    assert flags(page) == []
    assert [text_of(row.find_all("td")[1]) for row in page.select("header tbody tr")] == ["sound", "thesis"]


def test_the_table_of_trainings_shows_the_hash_of_the_predictions():
    record = {"predictions_sha256": "0123456789abcdef" * 4}
    rows = overview.tabulate_trainings([{"label": "One", "seed": 0, "record": record}])
    assert rows[0]["Predictions (sha256)"] == "0123456789abcdef"
    assert (
        overview.tabulate_trainings([{"label": "Old", "seed": 0, "record": {"seed": 0}}])[0]["Predictions (sha256)"]
        == "–"
    )


def test_warnings_stand_once_with_the_trainings_they_hold_for():
    def training(label, *warnings):
        return {"label": label, "seed": 1, "record": {"warnings": list(warnings)}}

    both = [training("A", "SHORTENED RUN: 2 of 45", "slow disk"), training("B", "SHORTENED RUN: 2 of 45")]
    assert overview.noted(both, "SHORTENED RUN") == ("2 of 45",)
    assert overview.noted(both, ()) == ("slow disk (A, seed 1)",)
    assert overview.noted([training("A", "RANDOM INITIALISATION: no network")], ()) == ()


def test_fallback_of_the_data_is_told(tmp_path):
    plant(tmp_path, plan={"data_notes": ["Kaggle did not answer within 20 s"]})
    banner = build(tmp_path).select_one("header .banner")
    assert text_of(banner.strong) == "NOTES ON THE DATA" and "Kaggle did not answer within 20 s" in text_of(banner)


# ---------------------------------------------------------------- failures and missing pieces


def test_failed_model_has_a_section_with_error_and_partial_notebook(tmp_path):
    plant(tmp_path, models=("traditional_cnn", "resnet50"))
    (tmp_path / ".training").mkdir()
    (tmp_path / "resnet50" / "seed-0" / "run.json").unlink()
    (tmp_path / "resnet50").rename(tmp_path / ".training" / "resnet50")
    error = {"error": HOSTILE, "traceback": f"line 1\n{HOSTILE}", "notebook": "03_resnet50.ipynb"}
    write_json(tmp_path / "failed" / "resnet50-seed-0.json", {"model": "resnet50", "seed": 0, **error})
    page = build(tmp_path)
    assert_sound(page)
    assert flags(page) == ["FAILED MODELS"]
    section = page.find(id="resnet50-seed-0")
    assert text_of(section.h2) == "Appendix 4. ResNet-50, seed 0"
    assert section.select_one("p.error").string == HOSTILE and HOSTILE in section.select_one(".traceback pre").string
    assert "epoch 1" in section.get_text()
    assert page.select_one("nav.side li.failed")


def test_failure_without_a_notebook_and_beyond_the_plan(tmp_path):
    plant(tmp_path, models=())
    write_json(tmp_path / "failed" / "vgg16-seed-3.json", {"error": "out of memory", "label": "VGG-16"})
    section = build(tmp_path).find(id="vgg16-seed-3")
    assert text_of(section.h2) == "Appendix 3. VGG-16, seed 3"
    assert "out of memory" in section.get_text() and "not in the run's folder" in section.get_text()


def test_findings_that_stopped_show_how_far_they_came(tmp_path):
    plant(tmp_path)
    (tmp_path / ".training").mkdir()
    (tmp_path / "findings").rename(tmp_path / ".training" / "findings")
    section = build(tmp_path).find(id="findings")
    assert "stopped with an error" in text_of(section.select_one(".note")) and section.find(id="fig-5-1")


def test_notebook_outside_the_run_is_not_shown(tmp_path):
    plant(tmp_path / "run", models=("vgg16",))
    other = write_notebook(tmp_path / "other.ipynb", v4.new_markdown_cell("not of this run"))
    path = tmp_path / "run" / "vgg16" / "seed-0" / "notebook.ipynb"
    path.unlink()
    path.symlink_to(other)
    page = build(tmp_path / "run")
    assert "not of this run" not in page.get_text() and "not in the run's folder" in page.get_text()


def test_hostile_names_are_escaped_everywhere(tmp_path):
    model = "<script>x<"
    plant(tmp_path, models=(model,), label=HOSTILE, warnings=[HOSTILE])
    record = planted_record(model, label=HOSTILE)
    record["data"] = {**record["data"], "source": HOSTILE, "description": HOSTILE, "variant": HOSTILE}
    record["device"]["name"] = record["versions"]["python"] = HOSTILE
    write_json(tmp_path / model / "seed-0" / "run.json", record)
    entries = [{"model": model, "seed": 0, "label": HOSTILE}]
    write_json(tmp_path / "plan.json", {"profile": HOSTILE, "protocol": HOSTILE, "models": entries, "command": HOSTILE})
    page = build(tmp_path)
    assert_sound(page)
    assert f"Appendix 3. {HOSTILE}, seed 0" in [h.get_text() for h in page.find_all("h2")]
    assert page.get_text().count(HOSTILE) >= 8


def test_without_findings_the_report_names_the_command(tmp_path):
    section = build(plant(tmp_path, findings=False)).find(id="findings")
    assert section.select_one(".note code").string == "./run_all.sh --profile paper"


def test_empty_folder_gives_a_report_that_says_so(tmp_path):
    page = build(tmp_path)
    assert flags(page) == ["NO MODELS"]
    assert "./run_all.sh" in text_of(page.find(id="findings"))


def test_planned_models_that_were_not_trained_are_named(tmp_path):
    entries = [{"model": m, "seed": 0, "label": LABELS[m]} for m in ("traditional_cnn", "vgg16")]
    page = build(plant(tmp_path, models=("traditional_cnn",), plan={"models": entries}))
    assert flags(page) == ["INCOMPLETE RUN"]
    assert "VGG-16, seed 0" in text_of(page.select_one("header .banner"))


def test_without_a_plan_trainings_are_found_by_name(tmp_path):
    plant(tmp_path)
    (tmp_path / "plan.json").unlink()
    page = build(tmp_path)
    assert [s["id"] for s in page.select("section.part")][3:] == ["resnet50-seed-0", "traditional_cnn-seed-0"]


def test_broken_files_are_named_and_do_not_stop_the_report(tmp_path):
    plant(tmp_path)
    (tmp_path / "methods" / "notebook.ipynb").write_text("{")
    (tmp_path / "resnet50" / "seed-0" / "run.json").write_text('{"model": ')
    page = build(tmp_path)
    assert "methods/notebook.ipynb cannot be shown: NotJSONError" in text_of(page.find(id="methods"))
    assert "run.json cannot be read" in text_of(page.find(id="resnet50-seed-0"))
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(ResultsError, match=r"plan\.json.*expected an object"):
        report.build_report(tmp_path)


def test_failed_build_leaves_the_old_report(tmp_path, monkeypatch):
    path = report.build_report(plant(tmp_path))
    before = path.read_bytes()
    monkeypatch.setattr(report, "style_sheet", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.build_report(tmp_path)
    assert path.read_bytes() == before


def test_missing_folder_is_an_error(tmp_path, capsys):
    with pytest.raises(ResultsError, match="no such folder"):
        report.build_report(tmp_path / "none")
    assert report.main([str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_command_prints_the_path_last(tmp_path):
    plant(tmp_path / "a run", models=())
    done = subprocess.run(
        [sys.executable, "-m", "fer_utils.report.page", str(tmp_path / "a run")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.splitlines()[-1]) == tmp_path / "a run" / "report.html"


# ---------------------------------------------------------------- the whole, and its look


def plant_realistic(out):
    """Four models with real figures: what a run's report weighs and takes."""
    rng = np.random.default_rng(0)
    plant(out, models=("traditional_cnn", "resnet50", "vgg16", "mobilenet_v3"))
    figures.use_style()
    for number in range(5):
        fig, axes = plt.subplots(2, 2, figsize=(8, 6))
        for ax in axes.flat:
            ax.plot(rng.random((45, 4)).cumsum(axis=0))
        out_figure = figures.publish(
            fig, None, number=f"5.{number}", slug="x", title="T", caption="C", alt="A", folder=out / "figures"
        )
        for model in (
            "findings",
            "traditional_cnn/seed-0",
            "resnet50/seed-0",
            "vgg16/seed-0",
            "mobilenet_v3/seed-0",
        ):
            path = out / model / "notebook.ipynb"
            notebook = nbformat.read(path, 4)
            notebook.cells.append(code("publish(fig)\n" * 20, shown(out_figure._repr_html_())))
            nbformat.write(notebook, path)
    return out


def test_size_and_speed_of_four_models(tmp_path):
    plant_realistic(tmp_path)
    start = time.process_time()
    path = report.build_report(tmp_path)
    assert time.process_time() - start < 5
    assert 100_000 < path.stat().st_size < 15_000_000
    assert_sound(BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser"))


def luminance(colour):
    """Relative luminance of a ``#rrggbb`` colour (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_enough_for_every_text_colour():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    css = report.style_sheet()
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css))
    grounds = {"paper", "tint", "danger-tint", "warning-tint"}
    pairs = [(colour[ink], colour[ground]) for ink in ("ink", "soft", "link", "danger") for ground in grounds]
    pairs += [(colour["warning-ink"], colour["warning-tint"]), ("#ffffff", colour["danger"])]
    code_colours = set(re.findall(r"\.(?:ansi-\w+-fg|highlight \.\w+) \{[^}]*?(?<!-)color: (#[0-9a-fA-F]{6})", css))
    assert len(code_colours) > 10
    pairs += [(c, colour["code"]) for c in code_colours]
    assert {pair: round(contrast(*pair), 2) for pair in pairs if contrast(*pair) < 4.5} == {}


def test_page_names_its_language_and_landmarks(tmp_path):
    page = build(plant(tmp_path))
    assert page.html["lang"] == "en" and page.find("meta", attrs={"name": "viewport"})
    assert page.select_one("a.skip")["href"] == "#main" and page.find("main", id="main")
    assert page.header and page.footer and all(nav["aria-label"] for nav in page.find_all("nav"))
    for section in page.select("section.part"):
        assert page.find(id=section["aria-labelledby"]).name == "h2"


def test_notebooks_hold_no_formulas_that_need_mathjax():
    for path in sorted((project_root() / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.S) if cell.cell_type == "markdown" else ""
            assert "$" not in prose and "\\(" not in prose, (
                f"{path.name}: write the formula in Unicode: {html.escape(prose)}"
            )
