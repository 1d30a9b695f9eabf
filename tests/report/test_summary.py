"""The summary and the checklist say what the run's files say, and nothing more."""

import json
import re
from dataclasses import replace

import pandas as pd
import planted
import pytest
from bs4 import BeautifulSoup
from sklearn.metrics import accuracy_score

from fer_utils.claims import claims
from fer_utils.claims.claims import CONTRADICTED, NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED
from fer_utils.findings import results
from fer_utils.report import checklist, summary

DATASET = {
    "source": "fer2013.zip",
    "fingerprint": {
        "variant": "fer2013-kaggle-jpeg",
        "known": True,
        "description": "All images match.",
        "counts": {"Training": {"angry": 5, "sad": 3}, "PublicTest": {"angry": 2}, "PrivateTest": {"sad": 4}},
        "n_images": 14,
        "decoder": "planted",
    },
}

ALTERED = {"variant": "fer2013-modified", "known": False, "description": "blurred"}


def read(folder, **changes):
    """A planted run with the dataset notebook's file, read back; keyword arguments go to `plant_run`."""
    planted.plant_run(folder, **changes)
    (folder / "dataset").mkdir()
    (folder / "dataset" / "dataset.json").write_text(json.dumps(DATASET))
    return results.read_run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def audit(run):
    return claims.judge(run)


@pytest.fixture
def empty(tmp_path):
    return results.read_run(tmp_path)


def changed(run, data=None, **changes):
    """The run with entries of each training's record, and of its data, replaced."""

    def record(result):
        return result.record | changes | {"data": result.record["data"] | (data or {})}

    return replace(run, models=[replace(result, record=record(result)) for result in run.models])


# ---- the first page


def test_what_was_difficult_names_data_weights_and_failures_and_escapes_them(tmp_path):
    planted.plant_run(tmp_path, models=("resnet50",))
    weights = {"requested": "imagenet", "used": "none", "sha256": None, "reason": "no <b>network</b>"}
    record = planted.planted_record("resnet50", 0, weights=weights)
    planted.plant_model(tmp_path, "resnet50", 0, record=record)
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["models"].append({"model": "vgg16", "seed": 3, "label": "VGG-16"})
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "failed").mkdir()
    failure = {"model": "vgg16", "seed": 3, "label": "VGG-16", "error": "<b>no memory</b>"}
    (tmp_path / "failed" / "vgg16-seed-3.json").write_text(json.dumps(failure))
    run = results.read_run(tmp_path)
    page = summary.opening(run, claims.judge(run))._repr_html_()
    assert "no &lt;b&gt;network" in page and "&lt;b&gt;no memory" in page
    assert "Random initialisation" in page and "Failed models" in page and "VGG-16" in page


def test_what_was_planned_and_never_begun_is_counted(tmp_path):
    planned = read(tmp_path, models=("vgg16", "resnet50", "mobilenet_v3"))
    stopped = replace(planned, models=planned.models[:1])
    assert "1 of 3 trainings ended without an error." in repr(summary.opening(stopped, claims.judge(stopped)))


def test_a_part_of_the_test_images_is_not_called_the_thesiss_test_set(run, audit):
    text = repr(summary.opening(run, audit))
    # A third of the 700 planted images is in training.
    assert f"the thesis's test set ({700 - 234} images)" in text
    few = changed(run, split=run.models[0].record["split"] | {"test_images_per_class": 70})
    text = repr(summary.opening(few, claims.judge(few)))
    assert f"{700 - 234} of the test images" in text and "thesis's test set" not in text
    drawn = changed(run, data={"known": False, "variant": "synthetic"})
    assert "test images of these data" in repr(summary.opening(drawn, claims.judge(drawn)))


def test_the_page_has_the_challenges_sections_in_order(run, audit):
    page = BeautifulSoup(summary.opening(run, audit)._repr_html_(), "html.parser")
    assert [h.get_text() for h in page.find_all("h3")] == [
        "Scope of reproducibility",
        "Methodology",
        "Results",
        "What was easy",
        "What was difficult",
        "Communication with the author",
    ]


def test_the_tally_is_the_audits(run, audit):
    counts = audit["verdict"].value_counts()
    expected = ", ".join(f"{counts.get(v, 0)} {v}" for v in (REPRODUCED, NOT_REPRODUCED, CONTRADICTED, NOT_TESTABLE))
    assert f"Of 63 claims: {expected}." in repr(summary.opening(run, audit))


def test_accuracies_are_those_of_the_predictions(run, audit):
    text = repr(summary.opening(run, audit))
    for result in run.models:
        y_true, y_proba = result.select("test")
        value = accuracy_score(y_true, y_proba.argmax(axis=1))
        assert f"{result.label}: accuracy {value:.3f} [" in text
        assert f"on {len(y_true)} test images" in text


def test_the_contradictions_are_counted(run, audit):
    names = audit.loc[audit["verdict"] == CONTRADICTED, "id"]
    text = repr(summary.opening(run, audit))
    assert f"contradicts itself in {len(names)} places" in text and all(name in text for name in names)


def small_audit(*rows):
    return pd.DataFrame(rows, columns=["id", "verdict", "difference", "see"])


def test_the_telling_claims_follow_their_rule():
    table = small_audit(
        ("A", NOT_REPRODUCED, 0.1, "E"),
        ("B", NOT_REPRODUCED, 0.7, ""),
        ("C", REPRODUCED, 0.01, ""),
        ("D", REPRODUCED, 0.0, ""),
        ("E", CONTRADICTED, 0.1, ""),
        ("F", CONTRADICTED, 1.0, ""),
        ("G", NOT_TESTABLE, 9.0, ""),
        ("H", NOT_REPRODUCED, float("nan"), ""),
    )
    assert summary.telling(table)["id"].tolist() == ["B", "D", "E"]


def test_what_a_verdict_lacks_is_filled_up_in_order():
    nan = float("nan")
    table = small_audit(("A", NOT_TESTABLE, 1.0, ""), ("B", CONTRADICTED, 0.2, ""), ("C", CONTRADICTED, 0.5, ""))
    assert summary.telling(table)["id"].tolist() == ["C", "B"]
    table = small_audit(("A", NOT_REPRODUCED, nan, ""), ("B", NOT_REPRODUCED, 0.2, ""), ("C", CONTRADICTED, nan, ""))
    assert summary.telling(table)["id"].tolist() == ["B", "C", "A"]
    assert summary.telling(small_audit(("A", NOT_TESTABLE, 1.0, ""))).empty


def test_the_telling_claims_are_linked(run, audit):
    page = BeautifulSoup(summary.opening(run, audit)._repr_html_(), "html.parser")
    links = [a["href"] for a in page.select("ol a")]
    assert links == [f"#claim-{name}" for name in summary.telling(audit)["id"]] and len(links) == 3


def test_nothing_is_called_easy_that_was_not_run(empty):
    text = repr(summary.opening(empty, claims.judge(empty)))
    assert "Nothing yet" in text and "accuracy 0." not in text


# ---- the checklist


def answers(run):
    items = checklist.checklist_items(run, claims.judge(run))
    return {item.asked: item for section in items.values() for item in section}


def find(items, start):
    (found,) = [item for asked, item in items.items() if asked.startswith(start)]
    return found


def test_the_checklist_has_the_versions_sections_and_items(run, audit):
    sections = checklist.checklist_items(run, audit)
    # Version 2.0: three, two, five, five and six items.
    assert [len(items) for items in sections.values()] == [3, 2, 5, 5, 6]
    assert {item.answer for items in sections.values() for item in items} <= {"yes", "no", "not applicable"}
    assert all(item.evidence for items in sections.values() for item in items)


def test_an_empty_run_can_tick_nothing(empty):
    assert {item.answer for item in answers(empty).values()} == {"no", "not applicable"}


def test_one_seed_shows_no_variation_and_two_do(run, tmp_path):
    assert find(answers(run), "Central tendency").answer == "no"
    two = read(tmp_path / "two", models=("vgg16",), seeds=(0, 1))
    item = find(answers(two), "Central tendency")
    assert item.answer == "yes" and "2 seeds" in item.evidence
    assert "2 trainings (VGG-16: seeds 0 and 1)" in find(answers(two), "The exact number").evidence


def test_code_needs_a_clean_commit(run):
    assert find(answers(run), "Training code").answer == "yes"
    dirty = find(answers(changed(run, git={"commit": "f" * 40, "dirty": True})), "Training code")
    assert dirty.answer == "no" and "uncommitted" in dirty.evidence
    assert find(answers(changed(run, git={"commit": None, "dirty": None})), "Evaluation code").answer == "no"


def test_trained_models_must_lie_there(tmp_path):
    run = read(tmp_path / "run", models=("vgg16", "resnet50"))
    assert find(answers(run), "Trained models").evidence == "0 of 2 networks lie in the run's folder"
    for result in run.models:
        (result.folder / "model.keras").touch()
    assert find(answers(run), "Trained models").answer == "yes"


def test_the_data_are_told_as_they_are(run):
    items = answers(run)
    assert "14 images (Training 8, PublicTest 2, PrivateTest 4)" in find(items, "The relevant statistics").evidence
    assert find(items, "A link").evidence.endswith("msambare/fer2013")
    assert find(items, "For new data").answer == "not applicable"
    assert "no image was left out" in find(items, "What data were left out").evidence
    drawn = replace(run, dataset={"fingerprint": DATASET["fingerprint"] | {"variant": "synthetic", "known": False}})
    assert find(answers(drawn), "For new data").answer == "yes"
    other = replace(run, dataset={"fingerprint": DATASET["fingerprint"] | ALTERED})
    assert find(answers(other), "A link").answer == "no" and "blurred" in find(answers(other), "A link").evidence
    few = run.models[0].record["split"] | {"images_per_class": 40}
    assert "40 training images" in find(answers(changed(run, split=few)), "What data were left out").evidence


def test_runtime_and_machine_come_from_the_record(run):
    items = answers(run)
    assert "ResNet-50 58 min a training" in find(items, "The average runtime").evidence  # 3,500 s
    assert "CPU planted, 2 threads" in find(items, "A description of the computing").evidence
    assert "learning_rate 0.001" in find(items, "The range of hyperparameters").evidence


def test_a_network_without_its_description_is_no_clear_description(run):
    assert find(answers(run), "A clear description of the algorithm").answer == "no"
    sized = [replace(r, architecture={"parameters": {"total": 1234567}, "layers": []}) for r in run.models]
    item = find(answers(replace(run, models=sized)), "A clear description of the algorithm")
    assert item.answer == "yes" and "VGG-16 1,234,567 parameters" in item.evidence


def test_the_checklist_is_shown_as_tables_with_its_count(run, audit):
    shown = checklist.checklist(run, audit)
    page = BeautifulSoup(shown._repr_html_(), "html.parser")
    rows = page.select("tbody tr")
    assert len(rows) == 21 and all(row.find("th")["scope"] == "row" for row in rows)
    assert all(table.find("caption") for table in page.find_all("table"))
    counted = [row.select("td")[0].get_text() for row in rows]
    first = repr(shown).splitlines()[0]
    assert [int(n) for n in re.findall(r"\d+", first)] == [counted.count(a) for a in ("yes", "no", "not applicable")]


def test_markup_in_the_record_is_escaped(run):
    evil = changed(run, device={"kind": "CPU", "name": "<script>x</script>", "threads": 1})
    audit = claims.judge(evil)
    assert "<script>" not in summary.opening(evil, audit)._repr_html_()
    assert "<script>" not in checklist.checklist(evil, audit)._repr_html_()
