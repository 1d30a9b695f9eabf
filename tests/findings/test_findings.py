"""The findings notebook's code on whole, partial and odd runs, executed in this process."""

import json
import re
import subprocess
import sys
from pathlib import Path

import IPython.display
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from planted import plant_model, plant_run, planted_history, planted_predictions, planted_record

from fer_utils.claims import claims
from fer_utils.constants import CLASSES, USAGES

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "07_findings.ipynb"


@pytest.fixture
def findings(monkeypatch):
    """Return a function that runs the notebook's cells on a run folder and returns what they show."""

    def run(folder):
        shown = []
        monkeypatch.setattr(IPython.display, "display", lambda *items: shown.extend(items))
        names = {}
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
                if "parameters" in cell["metadata"].get("tags", []):
                    names.update(out=str(folder), resamples=20)
        return shown

    return run


def page(shown):
    return BeautifulSoup("".join(item._repr_html_() for item in shown), "html.parser")


def test_nothing_run_yet_names_the_command(tmp_path, findings):
    text = "\n".join(map(str, findings(tmp_path)))
    assert "Nothing to show yet" in text
    assert "./run_all.sh" in text
    assert not (tmp_path / "figures").exists()
    assert not (tmp_path / "claims.csv").exists()


def test_a_whole_run_shows_every_figure_and_table(tmp_path, findings):
    models = ("resnet50", "vgg16")
    soup = page(findings(plant_run(tmp_path, models=models)))
    wanted = [f"fig-5-{i}" for i in range(1, 9)] + ["fig-3-15", "fig-3-18", "fig-E1", "fig-E2", "fig-E4"]
    ids = [tag["id"] for tag in soup.find_all("figure")]
    assert set(wanted) <= set(ids)
    # In planted runs VGG-16 is the better one, so its matrix stands beside that of ResNet-50.
    assert "fig-5-8b" in ids
    assert len(ids) == len(set(ids))
    assert all(tag["alt"].strip() for tag in soup.find_all("img"))
    tables = [tag["id"] for tag in soup.find_all("table") if tag.get("id", "").startswith("table-")]
    assert {"table-5-1", "table-E1", "table-E2", "table-E3", "table-E5", "table-E6", "table-E7"} <= set(tables)
    # Every figure and table of this notebook that the audit links to.
    named = {anchor for claim in claims.load_claims() for anchor in claim.figures}
    assert {anchor for anchor in named if "-E" in anchor or "-5-" in anchor} <= {*ids, *tables}
    for number in range(1, 9):
        for suffix in ("svg", "png", "csv"):
            assert list((tmp_path / "figures").glob(f"fig-5.{number}-*.{suffix}")), (number, suffix)
    assert len(pd.read_csv(tmp_path / "claims.csv")) == len(soup.find_all("tr", id=lambda i: i and "claim-" in i))
    # What this run lacks is named by a command.
    commands = " ".join(tag.get_text() for tag in soup.find_all("pre"))
    for model in ("resnet50_scratch", "resnet50_thesis_protocol", "mobilenet_v1"):
        assert model in commands


def test_models_of_another_protocol_are_not_ranked_with_these(tmp_path, findings):
    plant_run(tmp_path, models=("resnet50", "vgg16", "resnet50_thesis_protocol"))
    path = tmp_path / "resnet50_thesis_protocol" / "seed-0"
    record = json.loads((path / "run.json").read_text()) | {"protocol": "thesis"}
    (path / "run.json").write_text(json.dumps(record))
    soup = page(findings(tmp_path))
    assert "Soft vote of 2" in soup.find(id="table-E1").get_text()
    assert "these very images: resnet50_thesis_protocol." in soup.find(id="table-E1").get_text()
    assert len(soup.find(id="table-E5").find("tbody").find_all("tr")) == 1
    assert not soup.find(id="fig-5-8b") or "resnet50_thesis_protocol" not in soup.find(id="fig-5-8b").get_text()


@pytest.mark.parametrize("what", ["dataset", "failed"])
def test_without_a_model_the_claims_are_judged_all_the_same(tmp_path, findings, what):
    (tmp_path / what).mkdir()
    if what == "failed":
        failure = {"model": "resnet50", "seed": 0, "error": "no memory", "traceback": "", "notebook": None}
        (tmp_path / "failed" / "resnet50-seed-0.json").write_text(json.dumps(failure))
    else:
        counts = {usage: dict.fromkeys(CLASSES, 10) for usage in USAGES}
        data = {"variant": "fer2013-kaggle-jpeg", "known": True, "description": "planted.", "counts": counts}
        (tmp_path / "dataset" / "dataset.json").write_text(json.dumps({"fingerprint": data | {"n_images": 210}}))
    text = "\n".join(map(str, findings(tmp_path)))
    verdicts = pd.read_csv(tmp_path / "claims.csv").set_index("id")["verdict"]
    assert (verdicts == claims.CONTRADICTED).sum() == 12
    assert (verdicts["D01"] == claims.NOT_REPRODUCED) == (what == "dataset")
    assert "Scope of reproducibility" in text and "A clear description of the algorithm" in text


def test_one_model_and_a_failed_one(tmp_path, findings):
    plant_run(tmp_path, models=("vgg16",))
    (tmp_path / "plan.json").unlink()
    (tmp_path / "failed").mkdir()
    failure = {"model": "resnet50", "seed": 0, "error": "<b>no memory</b>", "traceback": "", "notebook": None}
    (tmp_path / "failed" / "resnet50-seed-0.json").write_text(json.dumps(failure))
    shown = findings(tmp_path)
    markup = "".join(item._repr_html_() for item in shown)
    assert "&lt;b&gt;no memory&lt;/b&gt;" in markup
    assert "<b>no memory</b>" not in markup
    text = "\n".join(map(str, shown))
    assert "ResNet-50 was not run" in text
    assert "there is no pair to test" in text


def test_a_smoke_run_on_drawn_faces_says_so(tmp_path, findings):
    table = planted_predictions(60)
    record = planted_record(
        "resnet50",
        profile="smoke",
        protocol="thesis",
        shortened=True,
        synthetic=True,
        epochs={"requested": 1, "run": 1, "best": 1},
    )
    record["data"].update(variant="synthetic", known=False, source="synthetic")
    plant_model(tmp_path, "resnet50", 0, table[table["label"] != 1], planted_history(1), record)
    shown = findings(tmp_path)
    text = "\n".join(map(str, shown))
    assert "SYNTHETIC" in text
    assert "SMOKE" in text
    found = re.search(r".{60}\bnan\b", page(shown).get_text(" "), re.IGNORECASE)
    assert not found, found
    assert "validation (PublicTest and PrivateTest)" in text
    assert "the thesis's test set (" not in text and "test images of these data" in text


def test_the_findings_need_no_tensorflow():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    lines = [line.strip() for cell in cells if cell["cell_type"] == "code" for line in cell["source"]]
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert any("fer_utils" in line for line in imports)
    code = "\n".join([*imports, "import sys", "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
