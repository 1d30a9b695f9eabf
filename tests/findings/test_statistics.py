"""Intervals, tests and calibration against SciPy, scikit-learn and by hand."""

import numpy as np
import pandas as pd
import pytest
from planted import plant_model, plant_run, planted_predictions, read_model
from scipy import stats
from sklearn import metrics as sk

from fer_utils import metrics
from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS
from fer_utils.findings import statistics
from fer_utils.findings.results import read_run


def predictions(n=400, skill=1.5, seed=1):
    table = planted_predictions(n, skill, seed)
    return table["label"].to_numpy(dtype=int), table[list(PROBABILITY_COLUMNS)].to_numpy()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(plant_run(tmp_path_factory.mktemp("run"), models=("resnet50", "vgg16", "mobilenet_v3")))


def test_counted_metrics_are_those_of_scores():
    y_true, y_proba = predictions()
    counts = statistics.outcome_counts(y_true, y_proba)
    assert counts.shape == (7, 7, 2)
    assert counts.sum() == len(y_true)
    found, expected = statistics.counted_metrics(counts), metrics.scores(y_true, y_proba)
    for name in statistics.COUNTED:
        assert found[name] == pytest.approx(expected[name]), name
    for k, name in enumerate(CLASSES):
        assert found["class_recall"][k] == pytest.approx(expected["per_class"][name]["recall"])


def pooled_f1(y_true, y_proba):
    """F1 above 0.5, from its definition."""
    hits = (y_proba[np.arange(len(y_true)), y_true] > 0.5).sum()
    return 2 * hits / ((y_proba > 0.5).sum() + len(y_true))


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("accuracy", lambda y_true, y_proba: (y_proba.argmax(axis=1) == y_true).mean()),
        ("macro_recall", lambda y_true, y_proba: sk.balanced_accuracy_score(y_true, y_proba.argmax(axis=1))),
        ("f1", pooled_f1),
    ],
)
def test_bootstrap_of_counts_agrees_with_scipy(name, metric):
    y_true, y_proba = predictions(300)
    found = statistics.intervals(y_true, y_proba, n_resamples=4000).set_index("metric").loc[name]
    expected = stats.bootstrap(
        (np.arange(len(y_true)),),
        lambda index: metric(y_true[index], y_proba[index]),
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert found["low"] == pytest.approx(expected.low, abs=0.01)
    assert found["high"] == pytest.approx(expected.high, abs=0.01)
    assert found["low"] < found["value"] < found["high"]


def test_resampled_counts_are_those_of_the_drawn_images():
    """And an accuracy has one interval, in the tables as in the claims."""
    y_true, y_proba = predictions()
    weights = statistics.resample(len(y_true), 3)
    counts = statistics.resampled_counts(y_true, y_proba, weights)
    for row, drawn in zip(counts, weights, strict=True):
        index = np.repeat(np.arange(len(y_true)), drawn.astype(int))
        assert len(index) == len(y_true)
        assert (row == statistics.outcome_counts(y_true[index], y_proba[index])).all()


def test_intervals_repeat_and_cover_every_metric():
    y_true, y_proba = predictions()
    one, two = (statistics.intervals(y_true, y_proba) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert tuple(one["metric"]) == metrics.METRICS
    expected = metrics.scores(y_true, y_proba)
    for row in one.itertuples():
        assert row.value == pytest.approx(expected[row.metric]), row.metric
    methods = one.set_index("metric")["method"].to_dict()
    assert (methods.pop("auc"), methods.pop("loss"), *set(methods.values())) == ("DeLong", "normal", "bootstrap")


def test_loss_interval_agrees_with_a_bootstrap_of_the_mean():
    y_true, y_proba = predictions()
    found = statistics.intervals(y_true, y_proba).set_index("metric").loc["loss"]
    losses = -np.log(y_proba[np.arange(len(y_true)), y_true])
    expected = stats.bootstrap((losses,), np.mean, method="percentile", rng=np.random.default_rng(0))
    assert [found["low"], found["high"]] == pytest.approx(list(expected.confidence_interval), abs=0.02)


def test_auc_interval_by_hand():
    # Three of the four pairs are in order; structural components 1 and 1/2 on either side.
    value, low, high = statistics.auc_interval(np.array([0.9, 0.4]), np.array([0.1, 0.6]))
    assert value == 0.75
    variance = np.var([1, 0.5], ddof=1) / 2 + np.var([1, 0.5], ddof=1) / 2
    assert low == pytest.approx(0.75 - 1.959964 * np.sqrt(variance), abs=1e-5)
    assert high == 1.0


def test_auc_intervals_agree_with_sklearn_and_a_bootstrap():
    y_true, y_proba = predictions(350)
    value, low, high = statistics.pooled_auc_interval(y_true, y_proba)
    truth = metrics.one_hot(y_true)
    assert value == pytest.approx(sk.roc_auc_score(truth.ravel(), y_proba.ravel()))
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(y_true), len(y_true)) for _ in range(300)]
    pooled = [sk.roc_auc_score(truth[i].ravel(), y_proba[i].ravel()) for i in draws]
    assert [low, high] == pytest.approx(np.quantile(pooled, [0.025, 0.975]), abs=0.005)
    mine = y_true == 2
    value, low, high = statistics.auc_interval(y_proba[mine, 2], y_proba[~mine, 2])
    assert value == pytest.approx(sk.roc_auc_score(mine, y_proba[:, 2]))
    single = [sk.roc_auc_score(mine[i], y_proba[i, 2]) for i in draws]
    assert [low, high] == pytest.approx(np.quantile(single, [0.025, 0.975]), abs=0.01)


def test_auc_of_an_empty_class_is_nan():
    assert np.isnan(statistics.auc_interval(np.array([]), np.array([0.5]))).all()
    value, low, high = statistics.auc_interval(np.array([0.7]), np.array([0.5, 0.6]))
    assert value == 1
    assert np.isnan([low, high]).all()


def test_class_scores_are_sklearns_and_nan_for_absent_classes():
    y_true, y_proba = predictions()
    y_true, y_proba = y_true[y_true != 1], y_proba[y_true != 1]
    found = statistics.class_intervals(y_true, y_proba).set_index(["class", "metric"])
    predicted, codes = y_proba.argmax(axis=1), range(7)
    expected = sk.precision_recall_fscore_support(y_true, predicted, labels=codes, zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
        for k in (0, *codes[2:]):
            row = found.loc[(CLASSES[k], name)]
            assert row["value"] == pytest.approx(values[k]) and row["low"] <= row["value"] <= row["high"]
            assert row["support"] == expected[3][k]
    assert found.loc[("sad", "auc"), "value"] == pytest.approx(sk.roc_auc_score(y_true == 5, y_proba[:, 5]))
    assert found.loc["disgust"][["value", "low", "high"]].isna().all().all()


def test_seed_spread_by_hand(tmp_path):
    run = read_run(plant_run(tmp_path, models=("resnet50",), seeds=(0, 1, 2)))
    row = statistics.seed_spread(run.models, "test").set_index("metric").loc["accuracy"]
    values = [result.metrics["best"]["test"]["accuracy"] for result in run.models]
    assert row["seeds"] == 3
    assert row["mean"] == pytest.approx(sum(values) / 3)
    assert row["sd"] == pytest.approx(np.sqrt(sum((v - sum(values) / 3) ** 2 for v in values) / 2))
    assert (row["min"], row["max"]) == (min(values), max(values))
    assert statistics.seed_spread(run.models[:1], "test")["sd"].isna().all()


def test_headline_scores_each_training(run):
    found = statistics.headline(run.models, "private")
    row = found[(found["model"] == "vgg16") & (found["metric"] == "macro_f1")].iloc[0]
    assert row["value"] == pytest.approx(run.by_name("vgg16")[0].metrics["best"]["private"]["macro_f1"])


def test_calibration_by_hand():
    y_proba = np.full((4, 7), 0.0)
    y_proba[:2, 0], y_proba[:2, 1] = 0.9, 0.1
    y_proba[2:, 0], y_proba[2:, 1] = 0.6, 0.4
    table = statistics.reliability(np.array([0, 0, 0, 1]), y_proba, bins=10)
    filled = table.dropna()
    assert list(filled["n"]) == [2, 2]
    assert list(filled["accuracy"]) == [0.5, 1.0]
    assert list(filled["confidence"]) == pytest.approx([0.6, 0.9])
    # Two images 0.1 too confident, two 0.1 too little.
    assert statistics.calibration_error(table) == pytest.approx(0.1)


def test_balanced_sample_takes_so_many_of_each_class_or_all():
    y_true = np.repeat(np.arange(7), [300, 111, 140, 141, 0, 500, 200])
    picked = statistics.balanced_sample(y_true, 140, seed=1)
    assert list(np.bincount(y_true[picked], minlength=7)) == [140, 111, 140, 140, 0, 140, 140]
    assert len(set(picked)) == len(picked)
    assert (picked == statistics.balanced_sample(y_true, 140, seed=1)).all()
    assert (picked != statistics.balanced_sample(y_true, 140, seed=2)).any()


def test_confusion_by_hand():
    table = statistics.confusion([0, 0, 0, 2], [0, 0, 1, 2]).set_index(["true", "predicted"])
    assert table.loc[("angry", "angry"), "n"] == 2
    assert table.loc[("angry", "disgust"), "percent"] == pytest.approx(100 / 3)
    assert table.loc[("fear", "fear"), "percent"] == 100
    assert np.isnan(table.loc[("happy", "happy"), "percent"])


def test_costs_come_from_the_record_and_the_folder(tmp_path):
    folder = plant_model(tmp_path, "vgg16")
    result = read_model(folder)
    row = statistics.costs([result]).iloc[0]
    assert row["train_seconds"] == result.record["times"]["train_seconds"]
    assert row["device"] == "CPU: planted"
    assert row["gpu_peak_mb"] is None and row["networks"] is None
    for name in ("model.keras", "model.h5"):
        (folder / name).touch()
    assert statistics.costs([result])["networks"].item() == "model.h5, model.keras"
