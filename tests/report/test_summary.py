"""The first screen says what the verdicts and the predictions say, and nothing more."""

import re
from dataclasses import replace

import planted
import pytest
from bs4 import BeautifulSoup
from sklearn.metrics import accuracy_score
from thesis_run import plant, with_accuracy

from fer_utils.claims import claims
from fer_utils.files import read_json, write_json
from fer_utils.findings import statistics
from fer_utils.findings.results import read_run
from fer_utils.report import summary


def show(run, verdicts):
    return BeautifulSoup(summary.opening(run, verdicts)._repr_html_(), "html.parser")


def text_of(element):
    return " ".join(element.get_text(" ").split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = planted.plant_run(tmp_path_factory.mktemp("run"))
    write_json(folder / "dataset" / "dataset.json", planted.DATASET)
    return read_run(folder)


@pytest.fixture(scope="module")
def verdicts(run):
    return claims.judge(run, resamples=100)


@pytest.fixture(scope="module")
def page(run, verdicts):
    return show(run, verdicts)


def test_the_answer_is_the_verdict_on_the_central_claim(page, verdicts):
    answer = text_of(page.select_one(".fer-answer"))
    for row in verdicts[verdicts["id"] == "F01"].itertuples():
        assert row.statement in answer and f"{row.verdict} ({row.reading})" in answer
    # The planted models grow in skill in this order.
    assert "the highest is MobileNet-V3 with 0." in answer


def test_the_highest_is_that_of_the_mean_over_the_seeds(tmp_path):
    """First seeds 0.68 and 0.66; means 0.64 and 0.66, as claim F01 has them."""
    run = plant(tmp_path, models=("resnet50", "vgg16"), seeds=(0, 1))
    for result, percent in zip(run.models, (68, 60, 66, 66), strict=True):
        vars(result)["predictions"] = with_accuracy(percent)
    verdicts = claims.judge(run, resamples=100)
    answer = text_of(show(run, verdicts).select_one(".fer-answer"))
    assert "the highest is VGG-16 with 0.660 [" in answer and "mean of 2 seeds" in answer
    claim = verdicts.set_index(["id", "reading"]).loc[("F01", "ImageNet weights")]
    assert "VGG-16 0.660, ResNet-50 0.640" in claim["ours"]


def test_the_chips_are_the_tally(page, verdicts):
    chips = [text_of(chip).split(" ", 2)[1:] for chip in page.select(".fer-chips .fer-chip")]
    assert {verdict: int(n) for n, verdict in chips} == verdicts["verdict"].value_counts().to_dict()
    assert f"{verdicts['id'].nunique()} claims" in text_of(page.select_one(".fer-chips"))


def test_accuracies_are_those_of_the_predictions(page, run):
    cells = {text_of(row.th): text_of(row.td) for row in page.select(".fer-models tbody tr") if row.th}
    assert list(cells) == [result.label for result in run.models]
    for result in run.models:
        y_true, y_proba = result.select("test")
        value, low, high = map(float, re.findall(r"0\.\d{3}", cells[result.label])[:3])
        assert value == round(accuracy_score(y_true, y_proba.argmax(axis=1)), 3) and low < value < high
        in_table = statistics.intervals(y_true, y_proba).set_index("metric").loc["accuracy"]
        assert (low, high) == (round(in_table["low"], 3), round(in_table["high"], 3))


def test_claims_beside_a_model_are_linked_with_their_verdicts(page, verdicts):
    by_id = verdicts.groupby("id")["verdict"].agg(set)
    links = page.select(".fer-models a")
    assert "F01" in [link.string for link in links]
    for link in links:
        assert link["href"] == f"#claim-{link.string}"
        assert {text_of(chip).split(" ", 1)[1] for chip in link.parent.select(".fer-chip")} == by_id[link.string]


def test_the_folded_summary_has_the_challenges_sections(page, run):
    folded = page.find("details")
    assert [h.get_text() for h in folded.find_all("h2")] == [
        "Scope of reproducibility",
        "Methodology",
        "Results",
        "What was easy",
        "What was difficult",
        "Communication with the author",
    ]
    text = text_of(folded)
    # A third of the 700 planted images is in training.
    assert "the thesis's test set (466 images)" in text and "ResNet-50 from ImageNet weights, seed 0, 45 epochs" in text
    assert "4 of 4 trainings ended without an error." in text and "All images match." in text
    part = [
        replace(r, record=r.record | {"split": r.record["split"] | {"test_images_per_class": 70}}) for r in run.models
    ]
    few = replace(run, trainings=part)
    assert "466 of the test images" in repr(summary.opening(few, claims.judge(few, resamples=100)))


def test_a_run_that_is_no_result_answers_nothing_and_says_why(tmp_path):
    weights = {"requested": "imagenet", "used": "none", "sha256": None, "reason": "no <b>network</b>"}
    planted.plant_run(tmp_path, models=("resnet50",), weights=weights, shortened=True)
    failure = {"model": "vgg16", "seed": 3, "label": "VGG-16", "error": "<b>no memory</b>"}
    planned = read_json(tmp_path / "plan.json")["models"]
    planted.change_plan(tmp_path, models=[*planned, {"model": "vgg16", "seed": 3, "label": "VGG-16"}])
    write_json(tmp_path / "failed" / "vgg16-seed-3.json", failure)
    run = read_run(tmp_path)
    page = show(run, claims.judge(run, resamples=100))
    assert "cannot say whether the thesis's results hold: shortened run" in text_of(page.select_one(".fer-answer"))
    difficult = text_of(page.find("details"))
    assert "Random initialisation:" in difficult and "Failed models:" in difficult
    assert "no <b>network" in difficult and "<b>no memory" in difficult and not page.find("b")
    assert "1 of 2 trainings ended without an error." in difficult


def test_an_empty_run_has_no_numbers(tmp_path):
    run = read_run(tmp_path)
    page = show(run, claims.judge(run, resamples=100))
    assert "no model has been trained" in text_of(page) and not page.select(".fer-models")
    assert "Nothing has been trained yet." in text_of(page)


def test_the_models_that_were_not_trained_are_named(tmp_path, page):
    assert "Not trained" not in text_of(page.select_one(".fer-models caption"))
    run = read_run(planted.plant_run(tmp_path, models=("mobilenet_v1", "resnet50_scratch")))
    caption = text_of(show(run, claims.judge(run, resamples=20)).select_one(".fer-models caption"))
    assert caption.endswith("Not trained in this run: Traditional CNN and VGG-16.")
