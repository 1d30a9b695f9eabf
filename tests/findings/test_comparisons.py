"""Comparisons of trainings against SciPy, second implementations and simulated draws."""

import numpy as np
import pytest
from planted import changed, plant_model, plant_run, planted_predictions
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.errors import ResultsError
from fer_utils.findings import comparisons, statistics
from fer_utils.findings.results import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(plant_run(tmp_path_factory.mktemp("run"), models=("resnet50", "vgg16", "mobilenet_v3")))


def test_mcnemar_is_a_binomial_test_on_the_images_that_one_alone_has_right(run):
    pairs = comparisons.compare(run.models, "test")
    assert len(pairs) == 3
    for row in pairs.itertuples():
        sides = [next(m for m in run.models if m.label == label) for label in (row.a, row.b)]
        right = [y_proba.argmax(axis=1) == y_true for y_true, y_proba in (side.select("test") for side in sides)]
        only_a, only_b = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
        assert (row.only_a, row.only_b) == (only_a, only_b)
        assert row.p == pytest.approx(stats.binomtest(int(only_a), int(only_a + only_b), 0.5).pvalue)
        gaps = right[0].astype(float) - right[1]
        assert row.difference == pytest.approx(gaps.mean())
        expected = stats.norm.interval(0.95, gaps.mean(), gaps.std() / np.sqrt(len(gaps)))
        assert (row.low, row.high) == pytest.approx(expected)


def test_holm_by_hand(run):
    pairs = comparisons.compare(run.models, "test")
    running, expected = 0.0, {}
    for rank, index in enumerate(np.argsort(pairs["p"])):
        running = max(running, min(1.0, (len(pairs) - rank) * pairs["p"][index]))
        expected[index] = running
    assert list(pairs["p_holm"]) == pytest.approx([expected[i] for i in range(len(pairs))])
    assert comparisons.compare(run.models[:1]).empty


def test_a_training_against_itself_is_no_difference(run):
    row = comparisons.compare([run.models[0], run.models[0]]).iloc[0]
    assert (row["difference"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)


def test_alignment_goes_by_id_and_not_by_row(run):
    other = changed(run.models[1], predictions=run.models[1].predictions.sample(frac=1, random_state=4))
    ids, y_true, (_, two) = comparisons.aligned([run.models[0], other], "test")
    rows = run.models[1].predictions.set_index("id").loc[ids]
    assert (two == rows[list(PROBABILITY_COLUMNS)].to_numpy()).all()
    assert (y_true == rows["label"].to_numpy()).all()


def test_alignment_refuses_other_images_and_other_labels(run):
    first, second = run.models[:2]
    fewer = changed(second, predictions=second.predictions.iloc[:-30])
    with pytest.raises(ResultsError, match="not the same ones"):
        comparisons.aligned([first, fewer], "test")
    relabelled = second.predictions.assign(label=(second.predictions["label"] + 1) % 7)
    with pytest.raises(ResultsError, match="other labels"):
        comparisons.aligned([first, changed(second, predictions=relabelled)], "test")
    assert comparisons.comparable([first, second, fewer]) == [first, second]
    assert comparisons.comparable([]) == []


def test_ensemble_is_the_mean_probability(run):
    y_true, y_proba = comparisons.ensemble(run.models, "private")
    first = [model.select("private") for model in run.models]
    assert (y_true == first[0][0]).all()
    assert y_proba[5] == pytest.approx((first[0][1][5] + first[1][1][5] + first[2][1][5]) / 3)


def test_resampling_one_seed_is_the_bootstrap_over_images(run):
    result = run.models[0]
    ((value, draws),) = comparisons.resample([[result]], n_resamples=4000)
    expected = statistics.intervals(*result.select("test"), n_resamples=4000).set_index("metric")
    for metric in statistics.COUNTED:
        assert value[metric] == pytest.approx(expected.at[metric, "value"])
        found = statistics.percentile_interval(draws[metric])
        assert list(found) == pytest.approx(list(expected.loc[metric, ["low", "high"]]), abs=0.01)
    assert draws["class_recall"].shape == (4000, 7)


def test_difference_over_seeds_and_images_is_that_of_drawing_both(tmp_path):
    """Against a second implementation that draws seeds and images by index and scores with scikit-learn."""
    for seed, skill in enumerate((1.2, 1.4, 1.6, 1.8)):
        plant_model(tmp_path, "resnet50", seed, planted_predictions(400, skill, 0))
    plant_model(tmp_path, "vgg16", 0, planted_predictions(400, 1.0, 0))
    run = read_run(tmp_path)
    a, b = run.by_name("resnet50"), run.by_name("vgg16")
    value, low, high = comparisons.difference(a, b, "macro_f1", n_resamples=3000)
    predicted = [result.select("test")[1].argmax(axis=1) for result in (*a, *b)]
    y_true = a[0].select("test")[0]

    def scored(k, rows):
        return f1_score(y_true[rows], predicted[k][rows], labels=range(7), average="macro", zero_division=0)

    rng, draws, every = np.random.default_rng(9), [], np.arange(len(y_true))
    for _ in range(150):
        rows = rng.integers(0, len(y_true), len(y_true))
        draws.append(np.mean([scored(k, rows) for k in rng.integers(0, 4, 4)]) - scored(4, rows))
    assert value == pytest.approx(np.mean([scored(k, every) for k in range(4)]) - scored(4, every))
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.04)
    with pytest.raises(ValueError, match="expected one of accuracy"):
        comparisons.difference(a, b, "mood")


def test_paired_auc_difference_agrees_with_sklearn_and_a_paired_bootstrap():
    rng = np.random.default_rng(3)
    belongs = np.arange(600) % 3 == 0
    common = rng.normal(size=600) + belongs
    one, two = common + rng.normal(size=600) * 0.5, common + rng.normal(size=600)
    value, low, high, p = comparisons.auc_difference(belongs, one, two)
    assert value == pytest.approx(roc_auc_score(belongs, one) - roc_auc_score(belongs, two))
    rows = [rng.integers(0, 600, 600) for _ in range(200)]
    draws = [roc_auc_score(belongs[i], one[i]) - roc_auc_score(belongs[i], two[i]) for i in rows]
    assert [low, high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.015)
    assert (p < 0.05) == (low > 0 or high < 0)
    assert comparisons.auc_difference(belongs, one, one) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.66, 0.68, True),
        (0.65, 0.69, True),
        (0.60, 0.64, False),
        (0.70, 0.75, False),
        (0.64, 0.66, None),
        (0.6, 0.8, None),
        (np.nan, np.nan, None),
    ],
)
def test_decision_by_two_one_sided_tests(low, high, verdict):
    assert comparisons.decide(low, high, 0.67, 0.02) is verdict


def test_the_detectable_difference_is_found_with_the_power():
    n, discordance = 2000, 0.3
    gap = comparisons.detectable(n, discordance)
    rng = np.random.default_rng(0)
    shares = [(discordance + gap) / 2, (discordance - gap) / 2, 1 - discordance]
    draws = rng.multinomial(n, shares, size=1000)
    z = (draws[:, 0] - draws[:, 1]) / np.sqrt(draws[:, 0] + draws[:, 1])
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.04)
