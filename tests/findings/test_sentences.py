"""Sentences say what their tables hold."""

import numpy as np
import pandas as pd
import pytest

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


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.6], "the accuracy is: A 0.600 [0.590, 0.610]."),
        ([0.6, 0.6], "all models have the same accuracy, 0.600."),
        ([0.6, 0.5, 0.5], "the highest accuracy is A 0.600 [0.590, 0.610], the lowest B and C 0.500 [0.490, 0.510]."),
    ],
)
def test_accuracy_of_one_model_and_ties(values, text):
    assert sentences.about_accuracy(bars(*values)) == f"On PublicTest and PrivateTest {text}"


def test_curves_end_with_the_first_seed():
    rows = [
        ("A", seed, epoch, "accuracy", part, seed + epoch / 10 + (part == "validation") / 100)
        for seed in (0, 1)
        for epoch in (1, 2)
        for part in ("training", "validation")
    ]
    data = pd.DataFrame(rows, columns=["label", "seed", "epoch", "metric", "part", "value"])
    better = "Accuracy: the last epoch is better on the training than on the validation images for "
    assert sentences.about_curves(data, "accuracy", "Accuracy") == f"{better}no model."
    assert sentences.curve_ends(data).round(3).to_dict("records") == [
        {"label": "A", "metric": "accuracy", "training": 0.2, "validation": 0.21}
    ]
    loss = sentences.about_curves(data.assign(metric="loss"), "loss", "Loss")
    assert loss.endswith("for A, by 0.010 at most (A).")
    other = data.assign(label="B", value=1 - data["value"])
    assert (
        sentences.about_curves(pd.concat([data, other]), "accuracy", "Accuracy") == f"{better}B, by 0.010 at most (B)."
    )
    assert sentences.about_curves(pd.concat([other, other.assign(label="C")]), "accuracy", "Accuracy") == (
        f"{better}every model, by 0.010 at most (B)."
    )


def test_areas_name_the_worst_and_the_best_class():
    rows = [("A", "fear", 0.7), ("A", "happy", 0.9), ("B", "fear", 0.6), ("B", "happy", 0.8), ("C", "sad", 0.5)]
    data = pd.DataFrame(rows, columns=["label", "class", "auc"])
    assert sentences.about_roc(data) == (
        "One-vs-rest AUC is lowest for fear (A and B); for sad (C), and highest for happy (A and B); for sad (C)."
    )
    assert sentences.about_roc(data[:0]) == "No class has images."


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
    assert "correct: surprise 88% at best, angry 35% at worst" in text
    assert "angry taken for fear, 22%" in text
    assert "With fewer than 100 images: angry (23), disgust (21)" in text
    assert "Each of the 7 classes has 20 images in the balanced sample." in sentences.about_confusion(data, 20)


def test_confusion_without_errors_and_with_ties():
    data = pd.DataFrame([(t, p) for t in CLASSES for p in CLASSES], columns=["true", "predicted"])
    data = data.assign(sample="balanced", n=np.eye(7).ravel() * 10, percent=np.eye(7).ravel() * 100)
    assert "(mean of the classes 100.0%); no class is confused." in sentences.about_confusion(data, 10)
    data.loc[[1, 2], "percent"] = 20.0
    assert "angry taken for disgust and angry taken for fear, 20%." in sentences.about_confusion(data, 10)


@pytest.mark.parametrize(
    ("recalls", "text"),
    [
        (
            {"happy": 0.9, "fear": 0.4, "sad": 0.4},
            "F1 is lowest for fear and sad (0.400) and highest for happy (0.900).",
        ),
        ({"happy": 0.5, "fear": 0.5}, "F1 is 0.500 in every class."),
    ],
)
def test_classes_with_ties(recalls, text):
    table = pd.DataFrame({"class": list(recalls), "metric": "f1", "value": list(recalls.values())})
    assert sentences.about_classes(table).endswith(text)


def test_calibration_says_on_which_side():
    data = pd.DataFrame({"label": "A", "ece": 0.1, "n": [5, 0], "confidence": [0.9, np.nan], "accuracy": [0.8, np.nan]})
    other = data.assign(label="B", accuracy=[0.95, np.nan])
    text = "On average overconfident: A; underconfident: B."
    assert sentences.about_calibration(pd.concat([data, other])) == text


def test_pairs_are_told_apart_after_the_correction():
    pairs = pd.DataFrame({"a": ["A", "A"], "b": ["B", "C"], "p_holm": [0.04, 0.05], "n": 7178, "detectable": 0.018})
    assert sentences.about_pairs(pairs) == (
        "At the 5% level, after Holm's correction, the test tells apart: A and B. At the 5% level, after Holm's "
        "correction, the test does not tell apart: A and C. With 7,178 images it finds a difference of 1.8 percentage "
        "points or more with a power of 80%."
    )
    assert "tells apart" not in sentences.about_pairs(pairs.iloc[1:])


@pytest.mark.parametrize(("items", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), ("abc", "a, b and c")])
def test_a_list_of_words(items, text):
    assert words.listed(items) == text


def test_interval_without_bounds_is_the_value():
    assert words.interval(0.5, np.nan, np.nan) == "0.500"
    assert words.interval(np.nan, np.nan, np.nan) == "–"
