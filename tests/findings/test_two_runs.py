"""Two runs side by side: what differs, by how much, and what is named as the cause."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from planted import plant_run, planted_predictions, planted_record
from statsmodels.stats.contingency_tables import mcnemar

from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.findings import comparisons
from fer_utils.findings.results import read_run


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return read_run(plant_run(tmp_path_factory.mktemp("run"), models=("traditional_cnn", "resnet50")))


def with_record(result, **changes):
    """Copy a training with other entries in its record; dictionaries are merged."""
    merged = {name: result.record[name] | v if isinstance(v, dict) else v for name, v in changes.items()}
    return dataclasses.replace(result, record=result.record | merged)


RECORD = planted_record()
ONE = {
    "batch_size": {"parameters": {"batch_size": 32}},
    "epochs": {"parameters": {"epochs": 12}, "epochs": {"requested": 12, "run": 12}, "shortened": True},
    "protocol": {"parameters": {"protocol": "thesis"}, "protocol": "thesis"},
    "training images (images_per_class)": {
        "parameters": {"images_per_class": 9}, "split": {"train": 63, "images_per_class": 9}, "shortened": True,
    },
    "weights": {"parameters": {"weights": "none"}, "weights": {"requested": "none", "used": "none", "sha256": None}},
    "precision": {"parameters": {"precision": "float32"}, "precision": "float32"},
    "threads": {"parameters": {"threads": 8}, "device": RECORD["device"] | {"threads": 8}},
    "data": {"data": {"fingerprint": "1" * 64}},
    "augmentation": {"augmentation": {"horizontal_flip": False}},
    "tensorflow": {"versions": {"tensorflow": "2.22.0"}},
    "code": {"git": {"commit": "1" * 40}},
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_one_difference_is_the_only_one_named(planted, name):
    cnn, resnet = planted.models
    table = comparisons.side_by_side([(cnn, cnn), (resnet, with_record(resnet, **ONE[name]))])
    assert list(comparisons.causes(table)["condition"]) == [name]
    assert list(comparisons.causes(table)["differs"]) == ["ResNet-50"]
    assert {"data", "protocol", "weights", "seed", "precision", "device", "code", "python"} <= set(table["condition"])


def test_the_sentence_names_the_cause(planted):
    cnn, resnet = planted.models
    paired = [(resnet, with_record(resnet, parameters={"batch_size": 32}))]
    told = comparisons.sentence(comparisons.score(paired), comparisons.side_by_side(paired))
    assert told == "The predictions are the same, bit by bit. One condition differs: batch_size (64 against 32)."


def test_what_a_parameter_builds_is_no_second_cause_and_the_likeliest_comes_first(planted):
    cnn, resnet = planted.models
    changes = {"parameters": {"dropout": 0.3}, "split": {"train": 63}, "versions": {"keras": "4"}, "precision": None}
    other = with_record(resnet, **changes)
    vars(other)["architecture"] = {"parameters": {"total": 7}}
    vars(resnet)["architecture"] = {"parameters": {"total": 8}}
    causes = comparisons.causes(comparisons.side_by_side([(cnn, cnn), (resnet, other)]))
    # One side has no dropout, the other no precision in its record: what is not known comes last.
    assert list(causes["condition"]) == ["training images (images_per_class)", "keras", "dropout", "precision"]
    vars(other)["record"]["parameters"].pop("dropout")
    assert "network" in list(comparisons.causes(comparisons.side_by_side([(resnet, other)]))["condition"])


def test_scores_are_paired_on_the_images_of_both(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        plant_run(tmp_path / name, models=("resnet50",))
        table = planted_predictions(skill=2.0)
        noise = np.random.default_rng(seed).dirichlet(np.ones(7), len(table))
        table[list(PROBABILITY_COLUMNS)] = (table[list(PROBABILITY_COLUMNS)] + 2 * noise) / 3
        # The second run predicted two thirds of the images, in another order.
        table = table.sample(frac=1 if name == "a" else 0.66, random_state=0)
        table.to_parquet(tmp_path / name / "resnet50" / "seed-0" / "predictions.parquet", index=False)
    first, second = (read_run(tmp_path / name) for name in "ab")
    row = comparisons.score(comparisons.pairs(first, second)).set_index("part").loc["test"]
    sides = [run.models[0].predictions.query("usage != 'Training'").set_index("id") for run in (first, second)]
    both = sides[0].index.intersection(sides[1].index)
    right = [
        side.loc[both, list(PROBABILITY_COLUMNS)].to_numpy().argmax(axis=1) == side.loc[both, "label"] for side in sides
    ]
    assert row["n"] == len(both) < len(sides[0])
    assert (row["accuracy_a"], row["accuracy_b"]) == pytest.approx((right[0].mean(), right[1].mean()))
    assert row["difference"] == pytest.approx(right[0].mean() - right[1].mean())
    counts = pd.crosstab(right[0], right[1]).to_numpy()
    assert row["p"] == pytest.approx(mcnemar(counts, exact=True).pvalue)
    spread = np.std(right[0].astype(float) - right[1].astype(float)) / np.sqrt(len(both))
    assert row["high"] - row["low"] == pytest.approx(2 * 1.959964 * spread, rel=1e-5)
    assert not row["identical"]


def test_other_images_have_no_interval_and_other_seeds_are_paired(tmp_path):
    plant_run(tmp_path / "a", models=("resnet50",), seeds=(0, 1))
    plant_run(tmp_path / "b", models=("resnet50", "vgg16"), seeds=(1,))
    ours, theirs = (read_run(tmp_path / name) for name in "ab")
    assert [(a.seed, b.seed, a.model) for a, b in comparisons.pairs(ours, theirs)] == [(1, 1, "resnet50")]
    assert [(a.seed, b.seed) for a, b in comparisons.pairs(theirs, ours)] == [(1, 1)]
    place = tmp_path / "b" / "resnet50" / "seed-1" / "predictions.parquet"
    table = pd.read_parquet(place)
    table.assign(id="other/" + table["id"]).to_parquet(place, index=False)
    paired = comparisons.pairs(ours, read_run(tmp_path / "b"))
    scored = comparisons.score(paired)
    assert list(scored["n"]) == [0, 0] and scored[["difference", "low", "p"]].isna().all(axis=None)
    assert scored["accuracy_b"].iloc[1] == pytest.approx(paired[0][1].metrics["best"]["test"]["accuracy"])
    assert "there is no interval" in comparisons.sentence(scored, comparisons.side_by_side(paired))
