"""Comparisons of trainings against SciPy, by hand and by simulated draws."""

import numpy as np
import pytest
from planted import changed, plant_run
from scipy import stats

from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.errors import ResultsError
from fer_utils.findings import comparisons
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


def test_the_detectable_difference_is_found_with_the_power():
    n, discordance = 2000, 0.3
    gap = comparisons.detectable(n, discordance)
    rng = np.random.default_rng(0)
    shares = [(discordance + gap) / 2, (discordance - gap) / 2, 1 - discordance]
    draws = rng.multinomial(n, shares, size=1000)
    z = (draws[:, 0] - draws[:, 1]) / np.sqrt(draws[:, 0] + draws[:, 1])
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.04)
