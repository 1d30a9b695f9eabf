"""Comparing trainings with each other and with what the thesis states.

A comparison of two trainings is paired: both are scored on the same images. With several seeds of a model, seeds and
images are resampled together, since the interval over the images of one training is not that of the model.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS
from fer_utils.errors import ResultsError
from fer_utils.findings.statistics import (
    COUNTED,
    LEVEL,
    RESAMPLES,
    counted_metrics,
    normal_interval,
    outcome_counts,
    outcomes,
    percentile_interval,
    placements,
)

#: Resamples computed at a time: 200 rows of weights for 7,178 images take 11 MB.
BATCH = 200


def aligned(results, part="test"):
    """Bring the predictions of several trainings into one order of images.

    Parameters
    ----------
    results : list of ModelResult
    part : str
        As in `ModelResult.select`.

    Returns
    -------
    ids : Index of str, length n
    y_true : ndarray of int, shape (n,)
    y_proba : list of ndarray of float, shape (n, 7)
        One for each training.

    Raises
    ------
    ResultsError
        If the trainings did not predict the same images, or disagree about a label.
    """
    tables = [result.predictions[result.mask(part)].set_index("id") for result in results]
    first = tables[0]
    for result, table in zip(results, tables, strict=True):
        if len(table) != len(first) or not table.index.isin(first.index).all():
            raise ResultsError(
                f"{result.label} predicted {len(table)} images of the part {part!r}, {results[0].label} "
                f"{len(first)}, and they are not the same ones. Run both on the same data and settings."
            )
    tables = [table.loc[first.index] for table in tables]
    for result, table in zip(results, tables, strict=True):
        if not (table["label"].to_numpy() == first["label"].to_numpy()).all():
            raise ResultsError(
                f"{result.label} has other labels than {results[0].label} for the same images. "
                "Run both on the same data."
            )
    y_true = first["label"].to_numpy(dtype=np.int64)
    return first.index, y_true, [table[list(PROBABILITY_COLUMNS)].to_numpy() for table in tables]


def comparable(results, part="test"):
    """Return those trainings that can be ranked with the first: under its protocol, scored on the same images."""

    def key(result):
        return result.record["protocol"], frozenset(result.predictions.loc[result.mask(part), "id"])

    return [result for result in results if key(result) == key(results[0])]


def ensemble(results, part="test"):
    """Average the probabilities of several trainings (soft voting); labels (n,) and probabilities (n, 7)."""
    _, y_true, y_proba = aligned(results, part)
    return y_true, np.mean(y_proba, axis=0)


def resample(groups, part="test", n_resamples=RESAMPLES, seed=0):
    """Bootstrap models over seeds and images together, every model on the same drawn images.

    Parameters
    ----------
    groups : list of list of ModelResult
        For each model its trainings, one per seed.
    part : str
    n_resamples : int
    seed : int

    Returns
    -------
    list of (dict, dict)
        For each model, its metrics of `statistics.COUNTED` (and ``class_recall`` and so on, shape (7,)) as means over
        the seeds, and the same for each resample (leading axis `n_resamples`). Differences of two models' resamples
        are paired.

    Raises
    ------
    ResultsError
        As `aligned`.
    """
    _, y_true, y_proba = aligned([result for group in groups for result in group], part)
    rng, n, cells = np.random.default_rng(seed), len(y_true), 2 * len(CLASSES) ** 2
    shape = (len(CLASSES), len(CLASSES), 2)
    hot = [np.eye(cells, dtype=np.float32)[outcomes(y_true, proba)] for proba in y_proba]
    batches = [[] for _ in hot]
    for begin in range(0, n_resamples, BATCH):
        rows = min(BATCH, n_resamples - begin)
        weights = np.stack([np.bincount(draw, minlength=n) for draw in rng.integers(0, n, (rows, n))])
        for place, outcome in enumerate(hot):
            batches[place].append((weights.astype(np.float32) @ outcome).reshape(rows, *shape))
    found, place = [], 0
    for group in groups:
        k = len(group)
        value = [counted_metrics(outcome_counts(y_true, proba)) for proba in y_proba[place : place + k]]
        draws = [counted_metrics(np.concatenate(parts)) for parts in batches[place : place + k]]
        picked = rng.integers(0, k, (n_resamples, k))
        rows = np.arange(n_resamples)[:, None]
        found.append(
            (
                {name: np.mean([each[name] for each in value], axis=0) for name in value[0]},
                {name: np.stack([e[name] for e in draws], axis=1)[rows, picked].mean(axis=1) for name in draws[0]},
            )
        )
        place += k
    return found


def difference(a, b, metric="accuracy", part="test", n_resamples=RESAMPLES, level=LEVEL, seed=0):
    """Difference of two models in a metric (a less b), with its paired bootstrap interval over seeds and images.

    Parameters
    ----------
    a, b : list of ModelResult
        The seeds of each model.
    metric : str
        One of `statistics.COUNTED`.

    Returns
    -------
    value, low, high : float
    """
    if metric not in COUNTED:
        raise ValueError(f"metric {metric!r} unknown; expected one of {', '.join(COUNTED)}")
    (value_a, draws_a), (value_b, draws_b) = resample([a, b], part, n_resamples, seed)
    low, high = percentile_interval(draws_a[metric] - draws_b[metric], level)
    return float(value_a[metric] - value_b[metric]), float(low), float(high)


def compare(results, part="test"):
    """McNemar's exact test between each pair of trainings, with Holm's correction over the pairs.

    Parameters
    ----------
    results : list of ModelResult
    part : str

    Returns
    -------
    DataFrame
        One row per pair: ``a``, ``b`` (labels), ``n``, ``only_a`` and ``only_b`` (images that only one of them
        classifies correctly), ``difference`` (accuracy of a less that of b) with its interval ``low``, ``high``
        (normal, of paired proportions), ``p``, ``p_holm``, and ``detectable``, the difference that this pair's
        disagreement lets a test find (see `detectable`). Empty for fewer than two trainings.
    """
    columns = ["a", "b", "n", "only_a", "only_b", "difference", "low", "high", "p", "p_holm", "detectable"]
    if len(results) < 2:
        return pd.DataFrame(columns=columns)
    _, y_true, y_proba = aligned(results, part)
    n, right = len(y_true), [proba.argmax(axis=1) == y_true for proba in y_proba]
    rows = []
    for i, j in combinations(range(len(results)), 2):
        only_a, only_b = int((right[i] & ~right[j]).sum()), int((right[j] & ~right[i]).sum())
        gap, apart = (only_a - only_b) / n, (only_a + only_b) / n
        low, high = normal_interval(gap, (apart - gap**2) / n, bounds=(-1.0, 1.0))
        p = float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)
        rows.append((results[i].label, results[j].label, n, only_a, only_b, gap, low, high, p, detectable(n, apart)))
    pairs = pd.DataFrame(rows, columns=[name for name in columns if name != "p_holm"])
    return pairs.assign(p_holm=multipletests(pairs["p"], method="holm")[1])[columns]


def auc_difference(belongs, scores_a, scores_b, level=LEVEL):
    """Difference of two correlated AUCs (a less b), DeLong's paired test.

    Parameters
    ----------
    belongs : ndarray of bool, shape (n,)
        Which images belong to the class; at least two on either side.
    scores_a, scores_b : ndarray of float, shape (n,)
        Both models' probabilities of the class, for the same images.
    level : float

    Returns
    -------
    value, low, high, p : float
        p is 1 where the two rank alike.
    """
    parts = [
        (placements(scores[belongs], scores[~belongs]), 1 - placements(scores[~belongs], scores[belongs]))
        for scores in (scores_a, scores_b)
    ]
    gaps = [parts[0][side] - parts[1][side] for side in (0, 1)]
    value = float(gaps[0].mean())
    variance = sum(gap.var(ddof=1) / len(gap) for gap in gaps)
    p = 2 * stats.norm.sf(abs(value) / np.sqrt(variance)) if variance > 0 else float(value == 0)
    return value, *normal_interval(value, variance, level, bounds=(-1.0, 1.0)), float(p)


def decide(low, high, stated, tolerance):
    """Decide by two one-sided tests whether a value is the stated one, within a tolerance.

    Parameters
    ----------
    low, high : float
        Interval of our value. A 90% interval makes each of the tests one at 5%.
    stated : float
    tolerance : float
        The largest difference that still counts as the same value.

    Returns
    -------
    bool or None
        True if the interval lies within the tolerance, False if outside, None (undecided) if it reaches over an
        edge or is NaN.
    """
    if stated - tolerance <= low and high <= stated + tolerance:
        return True
    return False if high < stated - tolerance or low > stated + tolerance else None


def detectable(n, discordance, power=0.8, alpha=0.05):
    """Smallest difference in accuracy that a paired test finds with a given power.

    Parameters
    ----------
    n : int
        Images.
    discordance : float
        Share of the images that one of the two classifies correctly and the other does not.

    Returns
    -------
    float
    """
    return float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * np.sqrt(discordance / n))
