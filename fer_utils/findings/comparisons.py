"""Comparing trainings with each other, image by image: both are scored on the same images, so tests are paired."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.errors import ResultsError
from fer_utils.findings.statistics import normal_interval


def aligned(results, part="test"):
    """Bring the predictions of several trainings into one order of images.

    Returns ids (n,), labels (n,) and one array of probabilities (n, 7) for each training; `part` is as in
    `ModelResult.select`. ResultsError if the trainings did not predict the same images, or disagree about a label.
    """
    tables = [result.predictions[result.mask(part)].set_index("id") for result in results]
    first, name = tables[0], results[0].label
    for result, table in zip(results, tables, strict=True):
        same = table.index.equals(first.index)  # as they mostly are; to look up each id takes long
        if not same and (len(table) != len(first) or not table.index.isin(first.index).all()):
            raise ResultsError(
                f"{result.label} predicted {len(table)} images of the part {part!r}, {name} {len(first)}, and they are "
                "not the same ones. Run both on the same data and settings."
            )
        if (table["label"].reindex(first.index) != first["label"]).any():
            raise ResultsError(f"{result.label} has other labels than {name} for the same images: use the same data.")
    tables = [table.loc[first.index] for table in tables]
    y_true = first["label"].to_numpy(dtype=np.int64)
    return first.index, y_true, [table[list(PROBABILITY_COLUMNS)].to_numpy() for table in tables]


def comparable(results):
    """Return those trainings that can be ranked with the first: under its protocol, tested on the same images."""

    def key(result):
        return result.record["protocol"], frozenset(result.predictions.loc[result.mask("test"), "id"])

    return [result for result in results if key(result) == key(results[0])]


def ensemble(results, part):
    """Average the probabilities of several trainings (soft voting); labels (n,) and probabilities (n, 7)."""
    _, y_true, y_proba = aligned(results, part)
    return y_true, np.mean(y_proba, axis=0)


def compare(results, part="test"):
    """McNemar's exact test between each pair of trainings, with Holm's correction over the pairs.

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


def detectable(n, discordance):
    """Smallest difference in accuracy that a paired test of `n` images at 5% finds with a power of 80%.

    `discordance` is the share of the images that one of the two classifies correctly and the other does not.
    """
    return float(stats.norm.ppf([0.975, 0.8]).sum() * np.sqrt(discordance / n))
