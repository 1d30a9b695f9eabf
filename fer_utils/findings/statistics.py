"""What the thesis's figures lack: intervals, spread over seeds, calibration, costs.

SciPy and scikit-learn do the arithmetic where they have it. Two things are written out here: the bootstrap, which
draws the same images for every training and every figure, and DeLong's interval of an AUC.
"""

import numpy as np
import pandas as pd
from scipy import stats

from fer_utils.constants import CLASSES
from fer_utils.metrics import (
    METRICS,
    THRESHOLD,
    confusion_counts,
    confusion_scores,
    cross_entropies,
    one_hot,
    precision_recall_f1,
)

LEVEL = 0.95
RESAMPLES = 1000

#: Metrics that are functions of the counts of (true class, predicted class, above the threshold or not).
COUNTED = ("accuracy", "precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1")


def outcomes(y_true, y_proba):
    """Label each image by true class, arg-max class, and whether its probability is above the threshold.

    Flat indices into an array of shape (7, 7, 2). No class but the most probable one can be above 0.5.
    """
    y_proba, n = np.asarray(y_proba), len(CLASSES)
    sure = (y_proba.max(axis=1) > THRESHOLD).astype(int)
    return np.ravel_multi_index((y_true, y_proba.argmax(axis=1), sure), (n, n, 2))


def outcome_counts(y_true, y_proba):
    """Count the `outcomes`; ndarray of int, shape (7, 7, 2)."""
    n = len(CLASSES)
    return np.bincount(outcomes(y_true, y_proba), minlength=2 * n * n).reshape(n, n, 2)


def counted_metrics(counts):
    """Compute the metrics of `COUNTED` from counts of outcomes, shape (..., 7, 7, 2); leading axes are resamples.

    Each has shape (...); ``class_precision``, ``class_recall`` and ``class_f1`` have shape (..., 7).
    """
    sure = counts[..., 1]
    n = counts.sum(axis=(-1, -2, -3))
    pooled = precision_recall_f1(np.trace(sure, axis1=-2, axis2=-1), sure.sum(axis=(-1, -2)), n)
    return dict(zip(("precision", "recall", "f1"), pooled, strict=True)) | confusion_scores(counts.sum(axis=-1))


def resample(n, n_resamples=RESAMPLES):
    """Draw n images with replacement; how often each is drawn: ndarray of float32, shape (n_resamples, n).

    The draws are the same for the same n. So trainings scored on the same images are paired, and a number has one
    interval wherever it stands.
    """
    drawn = np.random.default_rng(0).integers(0, n, (n_resamples, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(np.float32)


def resampled_counts(y_true, y_proba, weights):
    """Count the `outcomes` in each resample; ndarray of float32, shape (n_resamples, 7, 7, 2)."""
    n = len(CLASSES)
    hot = np.eye(2 * n * n, dtype=np.float32)[outcomes(y_true, y_proba)]
    return (weights @ hot).reshape(-1, n, n, 2)


def percentile_interval(values, level=LEVEL):
    """Lower and upper bound of the middle `level` of the resampled values, along the first axis."""
    tail = (1 - level) / 2
    return np.quantile(values, [tail, 1 - tail], axis=0)


def placements(scores, others):
    """Share of `others` below each score, ties counting half: DeLong's structural components."""
    others = np.sort(others)
    below = np.searchsorted(others, scores, side="left") + np.searchsorted(others, scores, side="right")
    return below / (2 * len(others))


def normal_interval(value, variance, bounds=(0.0, 1.0)):
    """Return the normal 95% interval about a value, kept within bounds."""
    reach = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance)
    return float(max(bounds[0], value - reach)), float(min(bounds[1], value + reach))


def auc_interval(positive, negative):
    """Area under a ROC curve with the interval of DeLong, DeLong and Clarke-Pearson (1988); value, low, high.

    `positive` are the scores of the images that belong to the class. NaN where a side has no image; NaN bounds where
    one has fewer than two.
    """
    if len(positive) == 0 or len(negative) == 0:
        return np.nan, np.nan, np.nan
    of_positive, of_negative = placements(positive, negative), 1 - placements(negative, positive)
    value = float(of_positive.mean())
    if len(positive) < 2 or len(negative) < 2:
        return value, np.nan, np.nan
    variance = of_positive.var(ddof=1) / len(positive) + of_negative.var(ddof=1) / len(negative)
    return value, *normal_interval(value, variance)


def pooled_auc_interval(y_true, y_proba):
    """Micro one-vs-rest AUC (all classes pooled) with its interval; value, low, high.

    An image gives seven of the pooled scores, which are not independent; the variance is that of Obuchowski
    (1997) for clustered data, DeLong's with the image as the unit.
    """
    truth = one_hot(y_true).astype(bool)
    y_proba = np.asarray(y_proba)
    n = len(y_true)
    positive, negative = y_proba[truth], y_proba[~truth]  # row by row: one and six per image
    of_positive = placements(positive, negative)
    of_negative = (1 - placements(negative, positive)).reshape(n, -1).mean(axis=1)
    value = float(of_positive.mean())
    if n < 2:
        return value, np.nan, np.nan
    influence = of_positive + of_negative - 2 * value
    return value, *normal_interval(value, (influence**2).sum() / (n * (n - 1)))


def counted_intervals(y_true, y_proba, n_resamples=RESAMPLES):
    """Percentile bootstrap intervals of the metrics of `COUNTED`; arguments and result as in `intervals`."""
    value = counted_metrics(outcome_counts(y_true, y_proba))
    draws = counted_metrics(resampled_counts(y_true, y_proba, resample(len(y_true), n_resamples)))
    rows = [(name, float(value[name]), *map(float, percentile_interval(draws[name]))) for name in COUNTED]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"]).assign(method="bootstrap", n=len(y_true))


def intervals(y_true, y_proba, n_resamples=RESAMPLES):
    """Every metric of Table 5.1 with its 95% interval.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels in 0..6.
    y_proba : ndarray of float, shape (n, 7)
        Class probabilities.
    n_resamples : int
        Bootstrap resamples; the same draws at each call.

    Returns
    -------
    DataFrame
        One row per metric: ``metric``, ``value``, ``low``, ``high``, ``method`` and ``n`` (images). The method
        is ``bootstrap`` (percentile), for ``auc`` ``DeLong`` and for ``loss``, a mean, ``normal``.
    """
    losses = cross_entropies(y_true, y_proba)
    spread = losses.var(ddof=1) / len(losses) if len(losses) > 1 else np.nan
    others = [
        ("loss", losses.mean(), *normal_interval(losses.mean(), spread, bounds=(0, np.inf)), "normal"),
        ("auc", *pooled_auc_interval(y_true, y_proba), "DeLong"),
    ]
    others = pd.DataFrame(others, columns=["metric", "value", "low", "high", "method"]).assign(n=len(y_true))
    table = pd.concat([counted_intervals(y_true, y_proba, n_resamples), others])
    return table.set_index("metric").loc[list(METRICS)].reset_index()


def class_intervals(y_true, y_proba, n_resamples=RESAMPLES):
    """Precision, recall, F1 (of the arg-max class) and one-vs-rest AUC of each class, with intervals.

    Returns
    -------
    DataFrame
        ``class``, ``metric`` (``precision``, ``recall``, ``f1``, ``auc``), ``value``, ``low``, ``high``,
        ``support``; NaN where a class has no image.
    """
    y_true, y_proba = np.asarray(y_true), np.asarray(y_proba)
    counts = outcome_counts(y_true, y_proba)
    value = counted_metrics(counts)
    draws = counted_metrics(resampled_counts(y_true, y_proba, resample(len(y_true), n_resamples)))
    support = counts.sum(axis=(1, 2))
    metrics, rows = ("precision", "recall", "f1"), []
    found = {m: np.stack([value[f"class_{m}"], *percentile_interval(draws[f"class_{m}"])]) for m in metrics}
    for k, name in enumerate(CLASSES):
        mine = y_true == k
        scored = {m: found[m][:, k] if support[k] else [np.nan] * 3 for m in metrics}
        scored["auc"] = auc_interval(y_proba[mine, k], y_proba[~mine, k])
        rows += [(name, metric, *values, support[k]) for metric, values in scored.items()]
    return pd.DataFrame(rows, columns=["class", "metric", "value", "low", "high", "support"])


def headline(results, part, n_resamples=RESAMPLES, compute=intervals):
    """Scores of several trainings on one part of the data, from the predictions of their best epoch.

    `compute` is `intervals`, or `class_intervals` for the scores of each class; its columns follow ``model``,
    ``label``, ``seed`` and ``part``.
    """
    tables = []
    for result in results:
        names = {"model": result.model, "label": result.label, "seed": result.seed, "part": part}
        table = compute(*result.select(part), n_resamples=n_resamples)
        tables.append(table.assign(**names)[[*names, *table.columns]])
    return pd.concat(tables, ignore_index=True)


def seed_spread(results, part):
    """Mean and spread of each model over its seeds.

    Returns
    -------
    DataFrame
        ``model``, ``label``, ``metric``, ``seeds``, ``mean``, ``sd`` (of the sample; NaN for one seed), ``min`` and
        ``max``.
    """
    rows = [
        (result.model, result.label, metric, result.metrics["best"][part][metric])
        for result in results
        for metric in ("accuracy", "macro_f1", "precision", "recall", "f1", "auc")
    ]
    names = ["model", "label", "metric"]
    groups = pd.DataFrame(rows, columns=[*names, "value"]).groupby(names, sort=False)["value"]
    return groups.agg(seeds="count", mean="mean", sd="std", min="min", max="max").reset_index()


def reliability(y_true, y_proba, bins=15):
    """Confidence against accuracy in bins (low, high] of equal width (Guo et al. 2017).

    Returns
    -------
    DataFrame
        ``low``, ``high``, ``n``, ``confidence`` (mean probability of the arg-max class), ``accuracy``; the last
        two NaN in an empty bin.
    """
    y_proba = np.asarray(y_proba, dtype=np.float64)
    edges = np.linspace(0, 1, bins + 1)
    table = pd.DataFrame({"confidence": y_proba.max(axis=1), "accuracy": y_proba.argmax(axis=1) == y_true})
    place = pd.cut(table["confidence"].clip(0, 1), edges, labels=False, include_lowest=True)
    found = table.astype(float).groupby(place).mean().reindex(range(bins))
    n = np.bincount(place, minlength=bins)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": n, **found})


def calibration_error(table):
    """Return the expected calibration error of a `reliability` table: the mean gap over its images."""
    gap = (table["accuracy"] - table["confidence"]).abs().fillna(0)
    return float((gap * table["n"]).sum() / table["n"].sum())


def balanced_sample(y_true, per_class=140, seed=0):
    """Draw up to `per_class` images of each class (thesis, Fig. 5.8); their positions in `y_true`, ascending."""
    rng = np.random.default_rng(seed)
    of_class = [np.flatnonzero(np.asarray(y_true) == k) for k in range(len(CLASSES))]
    picked = [mine if len(mine) <= per_class else rng.choice(mine, per_class, replace=False) for mine in of_class]
    return np.sort(np.concatenate(picked))


def confusion(y_true, y_pred):
    """Confusion matrix in counts and in percent of the true class.

    Returns
    -------
    DataFrame
        49 rows: ``true``, ``predicted``, ``n``, ``percent`` (NaN where the true class has no image).
    """
    matrix = confusion_counts(y_true, y_pred)
    with np.errstate(invalid="ignore"):
        percent = 100 * matrix / matrix.sum(axis=1, keepdims=True)
    names = pd.MultiIndex.from_product([CLASSES, CLASSES], names=["true", "predicted"]).to_frame(index=False)
    return names.assign(n=matrix.ravel(), percent=percent.ravel())


def costs(results):
    """List what each training took and left.

    Returns
    -------
    DataFrame
        ``label``, ``seed``, ``device``, ``threads``, ``epochs``, times in seconds, memory in MB (None where the record
        has no value), and ``networks``, the files of the trained network that the training left.
    """
    names = ("train_seconds", "seconds_per_epoch", "evaluate_seconds", "peak_rss_mb", "gpu_peak_mb")
    rows = []
    for result in results:
        device = result.record.get("device", {})
        measured = result.record.get("times", {}) | result.record.get("memory", {})
        row = {"label": result.label, "seed": result.seed}
        row |= {"device": f"{device.get('kind', '?')}: {device.get('name', '?')}", "threads": device.get("threads")}
        row |= {"epochs": result.record["epochs"].get("run")} | {name: measured.get(name) for name in names}
        rows.append(row | {"networks": ", ".join(result.networks) or None})
    return pd.DataFrame(rows)
