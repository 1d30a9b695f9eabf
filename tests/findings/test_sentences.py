"""Sentences say what their tables hold."""

import numpy as np
import pandas as pd

from fer_utils import words
from fer_utils.constants import CLASSES
from fer_utils.findings import sentences


def bars(*values):
    rows = [
        {"model": name, "label": name.upper(), "part": "test", "value": v, "low": v - 0.01, "high": v + 0.01}
        for name, v in zip("abc", values, strict=False)
    ]
    return pd.DataFrame(rows)


def test_accuracy_names_best_worst_and_the_distance_to_the_thesis():
    text = sentences.about_accuracy(bars(0.6, 0.7, 0.5), {"b": 0.67, "z": 0.1})
    assert "the highest accuracy is B 0.700 [0.690, 0.710], the lowest C 0.500 [0.490, 0.510]." in text
    assert text.endswith("The thesis states 0.67 for B; the difference is +0.030 on PublicTest and PrivateTest.")


def test_accuracy_of_one_model_has_no_rank():
    assert (
        sentences.about_accuracy(bars(0.6)) == "On PublicTest and PrivateTest the accuracy is: A 0.600 [0.590, 0.610]."
    )


def test_curves_end_with_the_first_seed():
    rows = [
        ("A", seed, epoch, "accuracy", part, seed + epoch / 10 + (part == "validation") / 100)
        for seed in (0, 1)
        for epoch in (1, 2)
        for part in ("training", "validation")
    ]
    data = pd.DataFrame(rows, columns=["label", "seed", "epoch", "metric", "part", "value"])
    text = sentences.about_curves(data, "accuracy", "Accuracy")
    assert text == "Accuracy in the last epoch, training and validation: A 0.200 and 0.210."
    both = pd.concat([data, data[data["part"] == "validation"].assign(part="test", value=0.5)])
    assert "A 0.200 and 0.210 (0.500 on PublicTest and PrivateTest)." in sentences.about_curves(
        both, "accuracy", "Accuracy"
    )


def test_confusion_names_the_classes_with_too_few_images():
    matrix = np.full((7, 7), 2)
    np.fill_diagonal(matrix, [8, 9, 10, 11, 12, 13, 88])
    matrix[0, 2] = 5
    rows = [
        {"sample": sample, "true": CLASSES[i], "predicted": CLASSES[j], "n": matrix[i, j]}
        for sample in ("balanced", "all")
        for i in range(7)
        for j in range(7)
    ]
    data = pd.DataFrame(rows)
    data["percent"] = 100 * data["n"] / data.groupby(["sample", "true"])["n"].transform("sum")
    text = sentences.about_confusion(data, 100)
    assert "surprise 88%" in text
    assert "angry taken for fear, 22%" in text
    assert "With fewer than 100 images: angry (23), disgust (21)" in text
    assert "Each of the 7 classes has 20 images in the balanced sample." in sentences.about_confusion(data, 20)


def test_calibration_says_on_which_side():
    data = pd.DataFrame({"label": "A", "ece": 0.1, "n": [5, 0], "confidence": [0.9, np.nan], "accuracy": [0.8, np.nan]})
    assert sentences.about_calibration(data) == (
        "Expected calibration error: A 0.100 (on average more confident than right)."
    )


def test_pairs_are_counted_after_the_correction():
    pairs = pd.DataFrame({"a": ["A", "A"], "b": ["B", "C"], "p_holm": [0.04, 0.05]})
    assert sentences.about_pairs(pairs) == (
        "1 of 2 pairs of models can be told apart at the 5% level after Holm's correction. Not told apart: A and C."
    )


def test_interval_without_bounds_is_the_value():
    assert words.interval(0.5, np.nan, np.nan) == "0.500"
    assert words.interval(np.nan, np.nan, np.nan) == "–"
