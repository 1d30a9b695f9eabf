"""The code of the findings' and the audit's notebook on whole, partial and odd runs, executed in this process."""

import json
import re
from pathlib import Path

import IPython.display
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from planted import edit_json, plant_model, plant_run, planted_history, planted_predictions, planted_record

from fer_utils.claims import claims
from fer_utils.constants import CLASSES, USAGES
from fer_utils.files import write_json
from fer_utils.findings import comparisons, figures

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def cells(name):
    """The code cells of a notebook, with their tags."""
    (path,) = NOTEBOOKS.glob(f"*_{name}.ipynb")
    found = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in found]


@pytest.fixture(scope="module")
def execute():
    """Return a function that runs a notebook's cells on a run folder and returns what they show."""

    def run(name, folder):
        shown, names = [], {}
        with pytest.MonkeyPatch.context() as patch:
            # Four fifths of the time; batch/test_workflow.py draws every figure, for a screen and for a phone.
            patch.setattr(figures, "render", lambda figure, title: (b"<svg/>", b""))
            patch.setattr(figures, "stacked", lambda figure: None)
            patch.setattr(IPython.display, "display", lambda *items: shown.extend(items))
            patch.setattr(comparisons, "PUBLISHED", folder / "published")
            for source, tags in cells(name):
                if source.startswith("facts.show"):  # the value of a cell's last line is shown too
                    source = f"display({source})"
                exec(compile(source, name, "exec"), names)
                if "parameters" in tags:
                    names.update(out=str(folder), resamples=20)
        return shown

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory, execute):
    """A run folder of two models and two seeds, and what both notebooks show of it, beside a published one."""
    folder = plant_run(tmp_path_factory.mktemp("run"), models=("resnet50", "vgg16"), seeds=(0, 1))
    settings = planted_record()["parameters"] | {"batch_size": 32}
    plant_run(folder / "published", models=("resnet50",), parameters=settings)
    return folder, *(page(execute(name, folder)) for name in ("findings", "audit"))


def page(shown):
    return BeautifulSoup("".join(item._repr_html_() for item in shown), "html.parser")


def text_of(shown):
    return "\n".join(map(str, shown))


@pytest.mark.parametrize("name", ["findings", "audit"])
def test_nothing_run_yet_names_the_command(tmp_path, execute, name):
    assert "./run_all.sh" in page(execute(name, tmp_path)).get_text()
    assert list(tmp_path.iterdir()) == []


def test_findings_show_chapter_five_and_nothing_else(whole):
    folder, soup, _ = whole
    ids = [tag["id"] for tag in soup.find_all("figure")]
    # In planted runs VGG-16 is the better one, so its matrix is shown too.
    assert ids == [f"fig-5-{i}" for i in range(1, 9)] + ["fig-5-8b", "fig-E2"]
    assert all(tag["alt"].strip() for tag in soup.find_all("img"))
    tables = [tag["id"] for tag in soup.find_all("table") if tag.get("id")]
    assert tables == ["table-5-1", "table-E1", "table-E2", "table-E3", "table-E4", "table-E5"]
    for number in range(1, 9):
        for suffix in ("svg", "png", "csv"):
            assert list((folder / "figures").glob(f"fig-5.{number}-*.{suffix}")), (number, suffix)
    settings = soup.find(id="table-5-1").get_text(" ")
    assert re.search(r"Learning rate 0\.001 0\.001 0\.001", settings)
    assert re.search(r"Loss CategoricalCrossentropy CategoricalCrossentropy", settings)


def test_audit_shows_the_claims_and_what_explains_them(whole):
    folder, findings, soup = whole
    assert [tag["id"] for tag in soup.find_all("figure") if tag.get("id", "").startswith("fig-E")] == [
        "fig-E3",
        "fig-E4",
        "fig-E5",
        "fig-E7",
    ]
    tables = {tag["id"] for tag in soup.find_all("table") if tag.get("id", "").startswith("table-")}
    assert {f"table-E{i}" for i in (6, 7, 8, 9, 13, 17, 18, 19)} <= tables
    assert "One condition differs: batch_size (64 against 32)." in soup.get_text()
    assert len(soup.find(id="table-E17").find("tbody").find_all("tr")) == 2  # PrivateTest, and all test images
    rows = soup.find_all("tr", id=lambda i: i and i.startswith("claim-"))
    assert set(pd.read_csv(folder / "claims.csv")["id"]) == {row["id"].removeprefix("claim-") for row in rows}
    # What this run lacks is named by a command.
    commands = " ".join(tag.get_text() for tag in soup.find_all("pre"))
    for model in ("resnet50_scratch", "resnet50_thesis_protocol", "mobilenet_v1"):
        assert model in commands
    # What the claims link to is there.
    there = {tag["id"] for part in (findings, soup) for tag in part.find_all(["figure", "table"]) if tag.get("id")}
    named = {anchor for claim in claims.load_claims() for anchor in claim.figures}
    assert {anchor for anchor in named if "-E" in anchor or "-5-" in anchor} <= there


def test_models_of_another_protocol_are_not_ranked_with_these(tmp_path, execute):
    plant_run(tmp_path, models=("resnet50", "vgg16", "resnet50_thesis_protocol"))
    edit_json(tmp_path / "resnet50_thesis_protocol" / "seed-0" / "run.json", protocol="thesis")
    soup = page(execute("findings", tmp_path))
    assert "Soft vote of 2" in soup.find(id="table-E1").get_text()
    assert "some of these images: resnet50_thesis_protocol." in soup.find(id="table-E1").get_text()
    assert not soup.find(id="fig-5-8b") or "resnet50_thesis_protocol" not in soup.find(id="fig-5-8b").get_text()
    soup = page(execute("audit", tmp_path))
    assert not soup.find(id="table-E17")
    assert len(soup.find(id="table-E7").find("tbody").find_all("tr")) == 1


@pytest.mark.parametrize("what", ["dataset", "failed"])
def test_without_a_model_the_claims_are_judged_all_the_same(tmp_path, execute, what):
    if what == "failed":
        failure = {"error": "no memory", "traceback": "", "notebook": None}
        write_json(tmp_path / "failed" / "resnet50-seed-0.json", failure)
    else:
        counts = {usage: dict.fromkeys(CLASSES, 10) for usage in USAGES}
        data = {"variant": "fer2013-kaggle-jpeg", "known": True, "description": "planted.", "counts": counts}
        write_json(tmp_path / "dataset" / "dataset.json", {"fingerprint": data | {"n_images": 210}})
    text = text_of(execute("audit", tmp_path))
    verdicts = pd.read_csv(tmp_path / "claims.csv").set_index("id")["verdict"]
    assert (verdicts == claims.CONTRADICTED).any()
    assert (verdicts["D01"] == claims.NOT_REPRODUCED) == (what == "dataset")
    assert ("This copy has 210 images" in text) == (what == "dataset")
    execute("findings", tmp_path)


def test_one_model_and_a_failed_one(tmp_path, execute):
    plant_run(tmp_path, models=("vgg16",))
    (tmp_path / "plan.json").unlink()
    failure = {"error": "<b>no memory</b>", "traceback": "", "notebook": None}
    write_json(tmp_path / "failed" / "resnet50-seed-0.json", failure)
    shown = execute("findings", tmp_path)
    markup = "".join(item._repr_html_() for item in shown)
    assert "&lt;b&gt;no memory&lt;/b&gt;" in markup
    assert "<b>no memory</b>" not in markup
    assert "ResNet-50 was not run" in text_of(shown)
    assert "there is no pair to test" in text_of(execute("audit", tmp_path))


def test_a_smoke_run_on_drawn_faces_says_so(tmp_path, execute):
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
    for name in ("findings", "audit"):
        shown = execute(name, tmp_path)
        text = text_of(shown)
        assert "SYNTHETIC" in text and "SMOKE" in text
        found = re.search(r".{60}\bnan\b", page(shown).get_text(" "), re.IGNORECASE)
        assert not found, found
        assert "the thesis's test set (" not in text and "test images of these data" in text
