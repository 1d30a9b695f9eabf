"""Metrics against scikit-learn, against Keras and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk

from fer_utils import metrics


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(5)
    y_true = rng.integers(0, 7, 500)
    logits = rng.normal(size=(500, 7))
    logits[np.arange(500), y_true] += 1.5
    y_proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return y_true, y_proba.astype("float32")


def probabilities(*rows):
    """Rows of seven probabilities from (class, probability) pairs; what is left is spread over the others."""
    table = np.zeros((len(rows), 7))
    for i, (k, p) in enumerate(rows):
        table[i] = (1 - p) / 6
        table[i, k] = p
    return table


def test_thresholded_by_hand():
    # Above 0.5: image 0 rightly, image 1 wrongly, images 2 and 3 not at all.
    y_true = np.array([3, 3, 0, 1])
    y_proba = probabilities((3, 0.9), (5, 0.8), (0, 0.4), (1, 0.5))
    found = metrics.thresholded(y_true, y_proba)
    assert found["precision"] == pytest.approx(1 / 2)
    assert found["recall"] == pytest.approx(1 / 4)
    assert found["f1"] == pytest.approx(2 * 0.5 * 0.25 / 0.75)


def test_thresholded_is_zero_where_nothing_is_predicted():
    found = metrics.thresholded(np.array([0, 1]), probabilities((0, 0.3), (1, 0.3)))
    assert found == {"precision": 0, "recall": 0, "f1": 0}


def test_scores_by_hand():
    y_true = np.array([0, 0, 1, 2])
    y_proba = probabilities((0, 0.9), (1, 0.6), (1, 0.7), (2, 0.4))
    found = metrics.scores(y_true, y_proba)
    assert found["n"] == 4
    assert found["accuracy"] == pytest.approx(3 / 4)
    # Classes 0, 1, 2: precision 1, 1/2, 1; recall 1/2, 1, 1; the four absent classes count 0.
    assert found["macro_precision"] == pytest.approx(2.5 / 7)
    assert found["macro_recall"] == pytest.approx(2.5 / 7)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 7)
    assert found["loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4 / 6, 0.7, 0.4])))
    assert found["per_class"]["angry"]["support"] == 2
    assert found["per_class"]["happy"]["auc"] is None


def test_scores_against_sklearn(sample):
    y_true, y_proba = sample
    found = metrics.scores(y_true, y_proba)
    y_pred = y_proba.argmax(axis=1)
    exact = y_proba.astype("float64")
    assert found["accuracy"] == pytest.approx((y_pred == y_true).mean())
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average="macro"))
    assert found["loss"] == pytest.approx(sk.log_loss(y_true, exact / exact.sum(axis=1, keepdims=True)), abs=1e-6)
    report = sk.classification_report(y_true, y_pred, output_dict=True)
    assert found["per_class"]["angry"]["precision"] == pytest.approx(report["0"]["precision"])
    assert found["per_class"]["surprise"]["recall"] == pytest.approx(report["6"]["recall"])
    areas = sk.roc_auc_score(y_true, y_proba, multi_class="ovr", average=None)
    assert [found["per_class"][name]["auc"] for name in metrics.CLASSES] == pytest.approx(list(areas))


def test_scores_against_keras(sample):
    keras = pytest.importorskip("keras")
    y_true, y_proba = sample
    truth = metrics.one_hot(y_true).astype("float32")
    found = metrics.scores(y_true, y_proba)
    for name, metric, tolerance in (
        ("accuracy", keras.metrics.CategoricalAccuracy(), 1e-6),
        ("precision", keras.metrics.Precision(), 1e-6),
        ("recall", keras.metrics.Recall(), 1e-6),
        ("f1", keras.metrics.F1Score(average="micro", threshold=0.5), 1e-6),
        ("loss", keras.metrics.CategoricalCrossentropy(), 1e-5),
        # Keras sums a curve of so many thresholds where scikit-learn takes every score.
        ("auc", keras.metrics.AUC(num_thresholds=2000), 1e-3),
        ("macro_f1", keras.metrics.F1Score(average="macro"), 1e-6),
    ):
        metric.update_state(truth, y_proba)
        assert float(metric.result()) == pytest.approx(found[name], abs=tolerance), name


@pytest.mark.parametrize("shape", [(0, 7), (3, 6), (4, 7)])
def test_wrong_shapes_are_refused(shape):
    labels = np.zeros(3 if shape[0] else 0, dtype=int)
    with pytest.raises(ValueError, match="expected labels"):
        metrics.scores(labels, np.full(shape, 1 / 7))
