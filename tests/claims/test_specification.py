"""The specification curve and the checklists, on planted runs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import planted
import pytest
from bs4 import BeautifulSoup
from sklearn import metrics as sk
from thesis_run import RANDOM, from_confusion, plant, with_accuracy

from fer_utils.claims import checklist, claims, specification
from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.files import write_json
from fer_utils.findings import results


@pytest.fixture
def run(tmp_path):
    """ResNet-50 from scratch, with another last epoch; ten of its test images were trained on."""
    run = plant(tmp_path, {"resnet50": from_confusion()}, models=("resnet50",), weights=RANDOM)
    (result,) = run.models
    last = with_accuracy(60)
    vars(result)["predictions_last"] = last[last["usage"] != "Training"]
    images = result.predictions[["id", "usage", "label"]].assign(pixel_hash=lambda t: t["id"], std=50.0)
    images.loc[images.index[-10:], "pixel_hash"] = images["pixel_hash"].iloc[:10].to_numpy()
    vars(run)["images"] = images
    return run


def test_every_choice_of_the_analyst_is_a_specification(run):
    table = specification.specifications(run)
    counts = table.groupby(["claim", "quantity"]).size()
    # Best or last epoch, three parts, three ways to count, whole or balanced, with or without those trained on.
    assert (counts == 2 * 3 * 3 * 2 * 2).all() and len(counts) == 5
    assert not table.duplicated(["claim", "quantity", *specification.CHOICES]).any()
    assert set(table["reading"]) == {"from scratch"}


@pytest.mark.parametrize("epoch", ["best", "last"])
@pytest.mark.parametrize("duplicates", ["all", "without those trained on"])
def test_specifications_agree_with_scikit_learn(run, epoch, duplicates):
    (result,) = run.models
    predictions = result.predictions if epoch == "best" else result.predictions_last
    rows = predictions[predictions["usage"] == "PrivateTest"]
    if duplicates != "all":
        rows = rows[~rows["id"].isin([f"image-{i}" for i in range(10)])]
    y_true, y_proba = rows["label"], rows[list(PROBABILITY_COLUMNS)].to_numpy()
    y_pred, weights = y_proba.argmax(axis=1), 1 / y_true.map(y_true.value_counts())
    table = specification.specifications(run)
    table = table[(table["epoch"] == epoch) & (table["images"] == "private") & (table["duplicates"] == duplicates)]
    found = table.set_index(["claim", "quantity", "counting", "sample"])["value"]
    sure, right = y_proba.max(axis=1) > 0.5, y_pred == y_true.to_numpy()
    for key, expected in {
        ("F02", "accuracy", "arg-max, pooled", "whole"): right.mean(),
        ("F27", "precision", "above 0.5, pooled", "whole"): right[sure].mean(),
        ("F27", "recall", "above 0.5, pooled", "balanced"): np.average(right & sure, weights=weights),
        ("F27", "f1", "arg-max, macro", "balanced"): sk.f1_score(
            y_true, y_pred, average="macro", sample_weight=weights
        ),
    }.items():
        assert found[key] == pytest.approx(expected), key


def test_the_share_within_the_tolerance(run):
    table = specification.specifications(run)
    found = specification.summary(table).set_index(["claim", "quantity"])
    for (name, quantity), rows in table.groupby(["claim", "quantity"]):
        within = (rows["value"] - rows["stated"]).abs() <= rows["tolerance"]
        assert found.loc[(name, quantity), "share"] == pytest.approx(within.mean())
    assert 0 < found.loc[("F02", "accuracy"), "share"] < 1
    figure, drawn = specification.plot(table)
    assert drawn["value"].is_monotonic_increasing and len(drawn) == 72
    assert len(figure.axes[1].get_yticklabels()) == 2 + 3 + 3 + 2 + 2


def test_an_older_folder_has_fewer_specifications(run, tmp_path):
    vars(run.models[0])["predictions_last"] = None
    vars(run)["images"] = None
    table = specification.specifications(run)
    assert set(table["epoch"]) == {"best"} and set(table["duplicates"]) == {"all"}
    assert specification.specifications(results.read_run(tmp_path / "none")).empty
    assert specification.summary(specification.specifications(results.read_run(tmp_path / "none"))).empty


# ---- the checklists


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    folder = planted.plant_run(tmp_path_factory.mktemp("run"))
    write_json(folder / "dataset" / "dataset.json", planted.DATASET)
    return results.read_run(folder)


@pytest.fixture(scope="module")
def verdicts(read):
    return claims.judge(read, 20)


def changed(run, **changes):
    """The run with entries of each training's record replaced; tables are read again."""
    return replace(run, trainings=[replace(result, record=result.record | changes) for result in run.trainings])


def answers(run, verdicts):
    lists = checklist.checklist_items(run, verdicts)
    return {item.asked: item for sections in lists.values() for items in sections.values() for item in items}


def find(items, start):
    (found,) = [item for asked, item in items.items() if asked.startswith(start)]
    return found


def test_both_checklists_have_their_sections_and_items(read, verdicts):
    first, second = checklist.checklist_items(read, verdicts).values()
    # Version 2.0 of the first: three, two, five, five and six items.
    assert [len(items) for items in first.values()] == [3, 2, 5, 5, 6]
    assert "Data leakage" in second and sum(map(len, second.values())) == 20
    every = [item for sections in (first, second) for items in sections.values() for item in items]
    assert {item.answer for item in every} <= {"yes", "no", "not applicable"}
    assert all(item.evidence and "{" not in item.evidence for item in every)


def test_an_empty_run_can_tick_nothing(tmp_path):
    empty = results.read_run(tmp_path)
    assert {item.answer for item in answers(empty, claims.judge(empty)).values()} == {"no", "not applicable"}


def test_one_seed_shows_no_variation_and_two_do(read, verdicts, tmp_path):
    assert find(answers(read, verdicts), "Central tendency").answer == "no"
    two = results.read_run(planted.plant_run(tmp_path, models=("vgg16",), seeds=(0, 1)))
    item = find(answers(two, verdicts), "Central tendency")
    assert item.answer == "yes" and "2 seeds" in item.evidence
    assert "2 trainings (VGG-16: 2)" in find(answers(two, verdicts), "The exact number").evidence


def test_code_needs_a_clean_commit(read, verdicts):
    assert find(answers(read, verdicts), "Training code").answer == "yes"
    dirty = find(answers(changed(read, git={"commit": "f" * 40, "dirty": True}), verdicts), "Training code")
    assert dirty.answer == "no" and "uncommitted" in dirty.evidence
    unknown = changed(read, git={"commit": None, "dirty": None})
    assert find(answers(unknown, verdicts), "2b. Code").answer == "no"


def test_trained_models_must_be_there(tmp_path, verdicts):
    run = results.read_run(planted.plant_run(tmp_path, models=("vgg16", "resnet50")))
    assert find(answers(run, verdicts), "Trained models").evidence.startswith("0 of 2 networks")
    for result in run.models:
        (result.folder / "model.keras").touch()
    assert find(answers(run, verdicts), "Trained models").answer == "yes"


def test_data_and_leakage_are_told_as_they_are(read, verdicts):
    items = answers(read, verdicts)
    assert "14 images (Training 8, PublicTest 2, PrivateTest 4)" in find(items, "The relevant statistics").evidence
    assert find(items, "A link").evidence.endswith("msambare/fer2013")
    assert "no image was left out" in find(items, "What data were left out").evidence
    assert (
        find(items, "6b").evidence.startswith("568 test images also appear")
        and "13 nearly" in find(items, "4b").evidence
    )
    assert find(items, "6a").answer == "yes"
    assert find(answers(changed(read, protocol="thesis"), verdicts), "6a").answer == "no"
    drawn = replace(
        read, dataset={"fingerprint": planted.DATASET["fingerprint"] | {"variant": "synthetic", "known": False}}
    )
    assert find(answers(drawn, verdicts), "For new data").answer == "yes"
    few = read.models[0].record["split"] | {"images_per_class": 40}
    assert "40 training images" in find(answers(changed(read, split=few), verdicts), "4a").evidence


def test_runtime_machine_and_networks_come_from_the_files(read, verdicts):
    for result in read.models[:1]:
        vars(result)["architecture"] = {}
    items = answers(read, verdicts)
    assert find(items, "A clear description of the algorithm").answer == "no"
    for result in read.models:
        vars(result)["architecture"] = {"parameters": {"total": 1234567}, "layers": []}
    items = answers(read, verdicts)
    for start, words in (
        ("The average runtime", "ResNet-50 58 min"),  # 3,500 s
        ("A description of the computing", "CPU planted, 2 threads"),
        ("The range of hyperparameters", "learning_rate 0.001"),
        ("5a", "VGG-16 1,234,567 parameters"),
    ):
        assert words in find(items, start).evidence


def test_the_checklists_are_shown_as_escaped_tables_with_their_count(read, verdicts):
    evil = changed(read, device={"kind": "CPU", "name": "<script>x</script>", "threads": 1})
    shown = checklist.checklist(evil, verdicts)
    page = BeautifulSoup(shown._repr_html_(), "html.parser")
    assert page.find("script") is None
    # What is open is shown first, outside the folds, which hold every item.
    rows, above = page.select("details tbody tr"), [r for r in page.select("tbody tr") if not r.find_parent("details")]
    lacking = [row.find("th").get_text() for row in rows if row.select("td")[0].get_text() == "no"]
    assert [row.find("th").get_text() for row in above] == lacking
    assert len(rows) == 41 and all(row.find("th")["scope"] == "row" for row in rows)
    counted = pd.Series([row.select("td")[0].get_text() for row in rows]).value_counts()
    expected = ", ".join(f"{counted.get(a, 0)} {a}" for a in ("yes", "no", "not applicable"))
    assert repr(shown).splitlines()[0] == f"{expected}."
