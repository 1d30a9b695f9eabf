"""Each explanation on planted data whose answer is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import planted
import pytest
from planted import NO_WEIGHTS, changed, plant_model, plant_run, planted_history, planted_predictions, planted_record

from fer_utils.constants import CLASSES, USAGES
from fer_utils.findings import duplicates, explanations
from fer_utils.findings.results import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(plant_run(tmp_path_factory.mktemp("run"), models=("resnet50", "vgg16")))


def test_threshold_curves_by_hand(run):
    y_true, y_proba = run.models[0].select("test")
    table = explanations.threshold_curves(run.models, "test").query("model == 'resnet50'").set_index("threshold")
    for cut in np.float32([0.1, 0.3, 0.5, 0.7]):
        above = y_proba > cut
        hits = above[np.arange(len(y_true)), y_true].sum()
        assert table.at[cut, "precision"] == pytest.approx(hits / above.sum())
        assert table.at[cut, "recall"] == pytest.approx(hits / len(y_true))
    # Above 0 everything is predicted: seven classes per image, one of them right.
    assert (table.at[0.0, "recall"], table.at[0.0, "precision"]) == (1, pytest.approx(1 / 7))


def test_threshold_explains_precision_above_recall(run):
    part = explanations.threshold(run.models, "test", 0.3, 0.05)
    row = part.table.set_index("model").loc["resnet50"]
    y_true, y_proba = run.by_name("resnet50")[0].select("test")
    assert row["undecided"] == pytest.approx((y_proba <= 0.5).all(axis=1).mean())
    assert row["precision"] > row["accuracy"] > row["recall"]
    widest = part.table.loc[(part.table["precision"] - part.table["recall"]).idxmax()]
    assert f"For {widest['label']}, where the two differ most, precision is {widest['precision']:.3f}" in part.text
    # Above 0.5 the planted probabilities give gaps of 0.5 and more, wider than the thesis's.
    assert (part.table["precision"] - part.table["recall"]).min() > 0.35
    assert "For ResNet-50 and VGG-16 the gap is as wide as in the thesis's curves" in part.text


def test_a_small_gap_is_not_called_the_thesiss(run):
    """Sure predictions, 60% of them right: precision and recall are equal; with 10% unsure, 0.6 and 0.54."""
    label = np.tile(np.arange(7), 100)
    right, sure = np.arange(700) % 10 < 6, np.arange(700) // 7 % 10 > 0
    proba = np.full((700, 7), 0.01)
    proba[np.arange(700), np.where(right, label, (label + 1) % 7)] = np.where(sure, 0.9, 0.4)
    table = pd.DataFrame({"id": "x", "usage": "PublicTest", "label": label})
    table[[f"p_{name}" for name in CLASSES]] = proba
    part = explanations.threshold([changed(run.models[0], predictions=table)], "test", 0.3, 0.05)
    assert 0 < (part.table["precision"] - part.table["recall"]).iloc[0] < 0.1
    assert "does not explain it in this run" in part.text and "where the two" not in part.text
    assert "can explain" not in part.text


def test_dataset_counts_find_the_rows_that_add_up():
    counts = {usage: dict.fromkeys(CLASSES, n) for usage, n in zip(USAGES, (80, 10, 10), strict=True)}
    stated = dict(zip(CLASSES, (200, 100, 100, 100, 100, 100, 33), strict=True))
    part = explanations.dataset_counts(counts, stated, 690)
    assert list(part.table["difference"]) == [-100, 0, 0, 0, 0, 0, 67]
    assert "has 700 images. The thesis's text states 690, and the 7 rows of its Table 3.1 add up to 733" in part.text
    assert "The first 6 rows alone add up to 700" in part.text
    assert "in the table: 5 of 7. The largest difference is -100 (angry: 100 here, 200 stated)" in part.text
    assert "Without" not in part.text


def test_dataset_counts_name_the_class_that_the_total_lacks():
    counts = {usage: dict.fromkeys(CLASSES, 10) | {"disgust": 3} for usage in USAGES}
    part = explanations.dataset_counts(counts, dict.fromkeys(CLASSES, 30) | {"disgust": 9}, 180)
    assert "Without disgust this copy has 180 images" in part.text
    assert "Every class has the number of images in the table." in part.text


def planted_images(predictions):
    """An audit in which each image has its own pixels and plenty of contrast."""
    table = predictions[["id", "usage", "label"]].copy()
    table["pixel_hash"] = [f"{i:016x}" for i in range(len(table))]
    table["std"] = 50.0
    return table


def test_flags_by_hand():
    images = pd.DataFrame(
        [
            ("a", "Training", 0, "x", 50.0),
            ("b", "PublicTest", 0, "x", 50.0),  # trained on as a
            ("c", "PublicTest", 1, "y", 50.0),
            ("d", "PrivateTest", 2, "y", 50.0),  # repeats c, and they disagree
            ("e", "PrivateTest", 2, "z", 1.0),  # one grey level
            ("f", "Training", 2, "z", 1.0),  # left out of a shortened training
        ],
        columns=["id", "usage", "label", "pixel_hash", "std"],
    )
    marks = duplicates.flags(images, ["a"])
    assert list(marks.index) == ["b", "c", "d", "e"]
    assert list(marks["seen"]) == [True, False, False, False]
    assert list(marks["repeated"]) == [False, False, True, False]
    assert list(marks["conflicting"]) == [False, True, True, False]
    assert list(marks["constant"]) == [False, False, False, True]
    assert duplicates.flags(images, ["a", "f"])["seen"].sum() == 2


def test_accuracy_at_the_same_class_mix_by_hand():
    # Seen: two of class 0, one of class 1. Unseen: class 0 is right half of the time, class 1 always, class 2 never.
    y_true = np.array([0, 0, 1, 0, 0, 1, 2, 2])
    right = np.array([1, 1, 1, 1, 0, 1, 0, 0], dtype=bool)
    seen = np.arange(8) < 3
    assert duplicates.same_mix_accuracy(y_true, right, seen) == pytest.approx(2 / 3 * 0.5 + 1 / 3)
    assert np.isnan(duplicates.same_mix_accuracy(y_true, right, seen | (y_true == 1)))
    assert np.isnan(duplicates.same_mix_accuracy(y_true, right, np.zeros(8, dtype=bool)))


@pytest.fixture
def audited(tmp_path):
    """One model that is right on ten leaked test images, and wrong on every other."""
    predictions = planted_predictions(210, seed=3)
    names = [f"p_{name}" for name in CLASSES]
    test = np.flatnonzero(predictions["usage"] != "Training")
    leaked = test[:10]
    proba = np.full((len(predictions), 7), 0.05)
    label = predictions["label"].to_numpy().astype(int)
    right = np.isin(np.arange(len(predictions)), leaked)
    proba[np.arange(len(predictions)), np.where(right, label, (label + 1) % 7)] = 0.7
    predictions[names] = proba.astype("float32")
    images = planted_images(predictions)
    train = np.flatnonzero(predictions["usage"] == "Training")
    for place in leaked:
        twin = next(i for i in train if label[i] == label[place])
        images.loc[place, "pixel_hash"] = images.loc[twin, "pixel_hash"]
    plant_model(tmp_path, "resnet50", 0, predictions)
    (tmp_path / "dataset").mkdir()
    images.to_parquet(tmp_path / "dataset" / "images.parquet")
    return tmp_path, len(test)


def test_duplicates_show_what_seen_images_do(audited):
    folder, n = audited
    part = duplicates.explain(read_run(folder))
    table = part.table.set_index("subset")
    assert table.at["all", "value"] == pytest.approx(10 / n)
    assert table.at["without those trained on", "n"] == n - 10
    assert table.at["without those trained on", "value"] == 0
    assert table.at["only those trained on", "value"] == 1
    assert table.at["without those trained on", "change"] == pytest.approx(-10 / n)
    assert "Also trained on: 10;" in part.text
    assert "ResNet-50 reaches 1.000, and on the others, at the same class mix, 0.000." in part.text


def test_duplicates_need_the_audit_of_the_same_images(audited):
    folder, _ = audited
    images = folder / "dataset" / "images.parquet"
    pd.read_parquet(images).iloc[:-5].to_parquet(images)
    part = duplicates.explain(read_run(folder))
    assert part.table is None
    assert "it was run on other data" in part.text
    images.unlink()
    part = duplicates.explain(read_run(folder))
    assert part.table is None
    assert part.command.startswith("./run_all.sh --profile paper")


def test_selection_by_hand(tmp_path):
    history = planted_history(3)
    history["public_accuracy"] = [0.5, 0.7, 0.6]
    history["private_accuracy"] = [0.4, 0.55, 0.65]
    history["test_accuracy"] = [0.45, 0.625, 0.626]
    plant_model(tmp_path, "vgg16", 0, history=history)
    row = explanations.selection(read_run(tmp_path)).table.iloc[0]
    assert (row["epoch_by_public"], row["epoch_by_private"], row["epoch_by_both"]) == (2, 3, 3)
    assert (row["private_sound"], row["private_circular"]) == (0.55, 0.65)
    assert row["optimism_private"] == pytest.approx(0.1)
    assert row["optimism_both"] == pytest.approx(0.001)


def test_selection_leaves_out_the_thesiss_protocol_and_names_the_subset(tmp_path):
    history = planted_history(3)
    history["public_accuracy"], history["private_accuracy"] = [0.5, 0.7, 0.6], [0.4, 0.55, 0.65]
    record = planted_record("vgg16")
    record["split"]["epoch_images_per_class"] = 50
    plant_model(tmp_path, "vgg16", 0, history=history, record=record)
    other = planted_record("resnet50_thesis_protocol", protocol="thesis")
    plant_model(tmp_path, "resnet50_thesis_protocol", 0, record=other)
    part = explanations.selection(read_run(tmp_path))
    assert list(part.table["model"]) == ["vgg16"]
    assert "adds 10.00 percentage points" in part.text and "over 1 training," in part.text
    assert "at most 50 images a class" in part.text
    alone = replace(read_run(tmp_path), trainings=read_run(tmp_path).by_name("resnet50_thesis_protocol"))
    assert explanations.selection(alone).table is None


@pytest.mark.parametrize(("epochs", "text"), [(1, "none to select"), (3, "is also the best one")])
def test_selection_without_a_choice_says_so(tmp_path, epochs, text):
    plant_model(tmp_path, "vgg16", 0, history=planted_history(epochs))
    part = explanations.selection(read_run(tmp_path))
    assert text in part.text and (part.command is None or "--set epochs=" in part.command)


@pytest.mark.parametrize("batch_size", [64, 32])
def test_protocols_pair_trainings_that_differ_in_nothing_else(tmp_path, batch_size):
    plant_model(tmp_path, "resnet50", 0, planted_predictions(300, 1.0))
    record = planted_record("resnet50_thesis_protocol", protocol="thesis", notebook="resnet50.ipynb")
    record["parameters"]["batch_size"] = batch_size
    plant_model(tmp_path, "resnet50_thesis_protocol", 0, planted_predictions(300, 2.5), record=record)
    run = read_run(tmp_path)
    part = explanations.protocols(run)
    if batch_size == 32:
        assert part.table is None and "resnet50_thesis_protocol" in part.command
        return
    (row,) = part.table.to_dict("records")
    sound, thesis = (result.metrics["best"] for result in run.models)
    assert row["sound_private"] == sound["private"]["accuracy"] and row["thesis_test"] == thesis["test"]["accuracy"]
    assert row["difference"] == pytest.approx(row["thesis_test"] - row["sound_private"])


def test_pretraining_counts_only_where_the_weights_were_there(tmp_path):
    scratch = planted_record("resnet50_scratch", weights=NO_WEIGHTS)
    plant_model(tmp_path, "resnet50", 0, planted_predictions(400, 2.5))
    plant_model(tmp_path, "resnet50_scratch", 0, planted_predictions(400, 1.0), record=scratch)
    wanted = explanations.PRETRAINED_PAIRS
    part = explanations.pairs(read_run(tmp_path), wanted, pretrained=True)
    row = part.table.iloc[0]
    assert row["a"] == "ResNet-50"
    assert row["accuracy_a"] - row["accuracy_b"] == pytest.approx(row["difference"])
    assert "of these two trainings, ResNet-50 is better" in part.text
    assert "Initial weights: ResNet-50 imagenet and ResNet-50 (scratch) none." in part.text
    assert "Not run: mobilenet_v3 and mobilenet_v3_scratch." in part.text

    weights = planted_record()["weights"] | {"used": "none", "reason": "no network"}
    planted.edit_json(tmp_path / "resnet50" / "seed-0" / "run.json", weights=weights)
    part = explanations.pairs(read_run(tmp_path), wanted, pretrained=True)
    assert part.table is None
    assert "started from random values in this run; ImageNet weights were unavailable. So it shows" in part.text
    assert "no network" not in part.text


def test_pairs_compare_or_name_the_command(tmp_path):
    plant_model(tmp_path, "mobilenet_v3", 0, planted_predictions(300))
    part = explanations.pairs(read_run(tmp_path), explanations.MOBILENETS)
    assert part.table is None
    assert part.command == "./run_all.sh --profile paper --models mobilenet_v3,mobilenet_v1"
    plant_model(tmp_path, "mobilenet_v1", 0, planted_predictions(300))
    part = explanations.pairs(read_run(tmp_path), explanations.MOBILENETS)
    assert part.table["difference"].iloc[0] == 0
    assert "does not tell them apart" in part.text
    plant_model(tmp_path, "mobilenet_v1", 0, planted_predictions(200))
    part = explanations.pairs(read_run(tmp_path), explanations.MOBILENETS)
    assert part.table is None
    assert "not the same ones" in part.text
