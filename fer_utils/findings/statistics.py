"""What the thesis's figures lack: intervals, spread over seeds, tests between models, calibration.

SciPy, scikit-learn and statsmodels do the arithmetic where they have it. Two things are written out here, since
they have neither: the bootstrap of figures that depend on counts alone, drawn as multinomial counts (the same
distribution as drawing images with replacement, and much faster), and DeLong's interval of an AUC.
"""

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS
from fer_utils.errors import ResultsError
from fer_utils.metrics import LABELS, METRICS, THRESHOLD, class_auc, cross_entropy, one_hot

LEVEL = 0.95
RESAMPLES = 1000

#: Metrics that are functions of the counts of (true class, predicted class, above the threshold or not).
COUNTED = ("accuracy", "precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1")


def outcome_counts(y_true, y_proba, threshold=THRESHOLD):
    """Count images by true class, arg-max class, and whether its probability is above the threshold.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels in 0..6.
    y_proba : ndarray of float, shape (n, 7)
        Class probabilities.
    threshold : float
        At least 0.5, so that no class but the most probable one can be above it.

    Returns
    -------
    ndarray of int, shape (7, 7, 2)
        Indexed by true class, arg-max class, and 1 where the probability is above the threshold.
    """
    if threshold < 0.5:
        raise ValueError(f"threshold must be at least 0.5, got {threshold}")
    y_proba = np.asarray(y_proba)
    y_pred = y_proba.argmax(axis=1)
    sure = y_proba[np.arange(len(y_pred)), y_pred] > threshold
    counts = np.zeros((len(CLASSES), len(CLASSES), 2), dtype=np.int64)
    np.add.at(counts, (np.asarray(y_true), y_pred, sure.astype(np.int64)), 1)
    return counts


def divide(numerator, denominator):
    """Quotient that is 0 where the denominator is 0, as the metrics in `fer_utils.metrics` have it."""
    numerator = np.asarray(numerator, dtype=np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=np.asarray(denominator) > 0)


def counted_metrics(counts):
    """Compute the metrics of `COUNTED` from counts of outcomes.

    Parameters
    ----------
    counts : ndarray of int, shape (..., 7, 7, 2)
        As from `outcome_counts`; leading axes are resamples.

    Returns
    -------
    dict of str to ndarray, shape (...)
        And under ``class_precision``, ``class_recall``, ``class_f1`` arrays of shape (..., 7).
    """
    n = counts.sum(axis=(-1, -2, -3))
    confusion = counts.sum(axis=-1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    actual, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    sure = counts[..., 1]
    sure_hits = np.trace(sure, axis1=-2, axis2=-1)
    sure_all = sure.sum(axis=(-1, -2))
    by_class = {
        "precision": divide(hits, predicted),
        "recall": divide(hits, actual),
        "f1": divide(2 * hits, actual + predicted),
    }
    return {
        "accuracy": divide(hits.sum(axis=-1), n),
        "precision": divide(sure_hits, sure_all),
        "recall": divide(sure_hits, n),
        "f1": divide(2 * sure_hits, sure_all + n),
        **{f"macro_{name}": values.mean(axis=-1) for name, values in by_class.items()},
        **{f"class_{name}": values for name, values in by_class.items()},
    }


def resampled_counts(counts, n_resamples=RESAMPLES, seed=0):
    """Draw bootstrap resamples of counts: images drawn with replacement, seen only through their counts.

    Parameters
    ----------
    counts : ndarray of int
        Any shape; its sum is the number of images.
    n_resamples : int
    seed : int

    Returns
    -------
    ndarray of int, shape (n_resamples, *counts.shape)
    """
    flat = counts.ravel()
    n = int(flat.sum())
    draws = np.random.default_rng(seed).multinomial(n, flat / n, size=n_resamples)
    return draws.reshape(n_resamples, *counts.shape)


def percentile_interval(values, level=LEVEL):
    """Lower and upper bound of the middle `level` of the resampled values, along the first axis."""
    tail = (1 - level) / 2
    return np.quantile(values, [tail, 1 - tail], axis=0)


def placements(scores, others):
    """Share of `others` below each score, ties counting half: DeLong's structural components."""
    others = np.sort(others)
    below = np.searchsorted(others, scores, side="left") + np.searchsorted(others, scores, side="right")
    return below / (2 * len(others))


def normal_interval(value, variance, level=LEVEL):
    """Return the normal interval about an AUC, kept within 0..1."""
    reach = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance)
    return float(max(0.0, value - reach)), float(min(1.0, value + reach))


def auc_interval(positive, negative, level=LEVEL):
    """Area under a ROC curve with DeLong's interval.

    DeLong, DeLong and Clarke-Pearson (1988), by the ranks.

    Parameters
    ----------
    positive, negative : ndarray of float
        Scores of the images that belong to the class, and of those that do not.
    level : float

    Returns
    -------
    value, low, high : float
        NaN where a side has no image; NaN bounds where one has fewer than two.
    """
    if len(positive) == 0 or len(negative) == 0:
        return np.nan, np.nan, np.nan
    of_positive, of_negative = placements(positive, negative), 1 - placements(negative, positive)
    value = float(of_positive.mean())
    if len(positive) < 2 or len(negative) < 2:
        return value, np.nan, np.nan
    variance = of_positive.var(ddof=1) / len(positive) + of_negative.var(ddof=1) / len(negative)
    return value, *normal_interval(value, variance, level)


def pooled_auc_interval(y_true, y_proba, level=LEVEL):
    """Micro one-vs-rest AUC (all classes pooled) with its interval.

    An image gives seven of the pooled scores, which are not independent; the variance is that of Obuchowski
    (1997) for clustered data, DeLong's with the image as the unit.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels in 0..6.
    y_proba : ndarray of float, shape (n, 7)
    level : float

    Returns
    -------
    value, low, high : float
    """
    truth = one_hot(y_true).astype(bool)
    y_proba = np.asarray(y_proba)
    n = len(y_true)
    positive, negative = y_proba[truth], y_proba[~truth]  # row by row: one and six an image
    of_positive = placements(positive, negative)
    of_negative = (1 - placements(negative, positive)).reshape(n, -1).mean(axis=1)
    value = float(of_positive.mean())
    if n < 2:
        return value, np.nan, np.nan
    influence = of_positive + of_negative - 2 * value
    return value, *normal_interval(value, (influence**2).sum() / (n * (n - 1)), level)


def loss_interval(y_true, y_proba, n_resamples=RESAMPLES, level=LEVEL, seed=0):
    """Mean cross-entropy with SciPy's percentile bootstrap.

    Returns
    -------
    value, low, high : float
        In nats.
    """
    picked = np.asarray(y_proba, dtype=np.float64)[np.arange(len(y_true)), y_true]
    value = cross_entropy(y_true, y_proba)
    if len(picked) < 2:
        return value, np.nan, np.nan
    found = stats.bootstrap(
        (-np.log(np.clip(picked, 1e-7, 1 - 1e-7)),),
        np.mean,
        n_resamples=n_resamples,
        batch=100,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return value, float(found.low), float(found.high)


def counted_intervals(y_true, y_proba, n_resamples=RESAMPLES, level=LEVEL, seed=0):
    """Percentile bootstrap intervals of the metrics of `COUNTED`; arguments and result as in `intervals`."""
    counts = outcome_counts(y_true, y_proba)
    value = counted_metrics(counts)
    draws = counted_metrics(resampled_counts(counts, n_resamples, seed))
    rows = [(name, float(value[name]), *map(float, percentile_interval(draws[name], level))) for name in COUNTED]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"]).assign(method="bootstrap", n=len(y_true))


def intervals(y_true, y_proba, n_resamples=RESAMPLES, level=LEVEL, seed=0):
    """Every headline figure with its interval.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels in 0..6.
    y_proba : ndarray of float, shape (n, 7)
        Class probabilities.
    n_resamples : int
        Bootstrap resamples.
    level : float
        Coverage, 0..1.
    seed : int
        The same seed gives the same interval.

    Returns
    -------
    DataFrame
        One row a metric: ``metric``, ``value``, ``low``, ``high``, ``method`` and ``n`` (images). The method
        is ``bootstrap`` (percentile) but for ``auc`` (``DeLong``).
    """
    others = [
        ("loss", *loss_interval(y_true, y_proba, n_resamples, level, seed), "bootstrap"),
        ("auc", *pooled_auc_interval(y_true, y_proba, level), "DeLong"),
    ]
    others = pd.DataFrame(others, columns=["metric", "value", "low", "high", "method"]).assign(n=len(y_true))
    table = pd.concat([counted_intervals(y_true, y_proba, n_resamples, level, seed), others])
    return table.set_index("metric").loc[list(METRICS)].reset_index()


def class_intervals(y_true, y_proba, n_resamples=RESAMPLES, level=LEVEL, seed=0):
    """Precision, recall, F1 (of the arg-max class) and one-vs-rest AUC of each class, with intervals.

    Parameters
    ----------
    y_true, y_proba, n_resamples, level, seed
        As in `intervals`.

    Returns
    -------
    DataFrame
        ``class``, ``metric`` (``precision``, ``recall``, ``f1``, ``auc``), ``value``, ``low``, ``high``,
        ``support``; NaN where a class has no image.
    """
    y_true, y_proba = np.asarray(y_true), np.asarray(y_proba)
    counts = outcome_counts(y_true, y_proba)
    value = counted_metrics(counts)
    draws = counted_metrics(resampled_counts(counts, n_resamples, seed))
    support = counts.sum(axis=(1, 2))
    rows = []
    for k, name in enumerate(CLASSES):
        for metric in ("precision", "recall", "f1"):
            bounds = percentile_interval(draws[f"class_{metric}"][:, k], level)
            row = (float(value[f"class_{metric}"][k]), *map(float, bounds))
            rows.append((name, metric, *(row if support[k] else (np.nan,) * 3), int(support[k])))
        mine = y_true == k
        rows.append((name, "auc", *auc_interval(y_proba[mine, k], y_proba[~mine, k], level), int(support[k])))
    return pd.DataFrame(rows, columns=["class", "metric", "value", "low", "high", "support"])


def headline(results, part=None, n_resamples=RESAMPLES, seed=0):
    """Headline figures of several trainings, from their predictions (best epoch).

    Parameters
    ----------
    results : list of ModelResult
    part : str or None
        ``"private"``, ``"test"`` and so on; None takes each training's final part (`ModelResult.final_part`).

    Returns
    -------
    DataFrame
        ``model``, ``label``, ``seed``, ``part`` and the columns of `intervals`.
    """
    tables = []
    for result in results:
        where = part or result.final_part
        table = intervals(*result.select(where), n_resamples=n_resamples, seed=seed)
        table.insert(0, "model", result.model)
        table.insert(1, "label", result.label)
        table.insert(2, "seed", result.seed)
        table.insert(3, "part", where)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def seed_spread(results, part=None, metrics=("accuracy", "macro_f1", "precision", "recall", "f1", "auc")):
    """Mean and spread of each model over its seeds.

    Parameters
    ----------
    results : list of ModelResult
    part : str or None
        As in `headline`.
    metrics : sequence of str

    Returns
    -------
    DataFrame
        ``model``, ``label``, ``metric``, ``seeds``, ``mean``, ``sd`` (of the sample; NaN for one seed),
        ``min``, ``max``.
    """
    rows = [
        {
            "model": result.model,
            "label": result.label,
            "metric": metric,
            "value": result.metrics["best"][part or result.final_part][metric],
        }
        for result in results
        for metric in metrics
    ]
    if not rows:
        return pd.DataFrame()
    groups = pd.DataFrame(rows).groupby(["model", "label", "metric"], sort=False)["value"]
    spread = groups.agg(seeds="count", mean="mean", sd="std", min="min", max="max")
    return spread.reset_index()


def class_aucs(results, parts=("train", "test")):
    """List the one-vs-rest AUC of each class on several parts of the data.

    Parameters
    ----------
    results : list of ModelResult
    parts : sequence of str
        As in `ModelResult.select`.

    Returns
    -------
    DataFrame
        ``model``, ``label``, ``part``, ``class``, ``auc`` (None where a class has no image, or all).
    """
    rows = [
        {"model": result.model, "label": result.label, "part": part, "class": name, "auc": area}
        for result in results
        for part in parts
        for name, area in class_auc(*result.select(part)).items()
    ]
    return pd.DataFrame(rows)


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


def same_images(results, part="test"):
    """Whether all trainings predicted the same images, so that they can be compared image by image."""
    ids = [set(result.predictions.loc[result.mask(part), "id"]) for result in results]
    return all(other == ids[0] for other in ids[1:])


def ensemble(results, part="test"):
    """Average the probabilities of several trainings (soft voting).

    Parameters
    ----------
    results : list of ModelResult
    part : str

    Returns
    -------
    y_true : ndarray of int, shape (n,)
    y_proba : ndarray of float, shape (n, 7)

    Raises
    ------
    ResultsError
        As `aligned`.
    """
    _, y_true, y_proba = aligned(results, part)
    return y_true, np.mean(y_proba, axis=0)


def compare(results, part="test"):
    """McNemar's exact test between each pair of trainings, with Holm's correction over the pairs.

    Parameters
    ----------
    results : list of ModelResult
        Aligned by image first (see `aligned`).
    part : str

    Returns
    -------
    DataFrame
        One row a pair: ``a``, ``b`` (labels), ``n``, ``only_a`` and ``only_b`` (images that only one of them
        classifies rightly), ``difference`` (accuracy of a less that of b) with its bootstrap interval ``low``,
        ``high``, ``p`` and ``p_holm``. Empty for fewer than two trainings.
    """
    columns = ["a", "b", "n", "only_a", "only_b", "difference", "low", "high", "p", "p_holm"]
    if len(results) < 2:
        return pd.DataFrame(columns=columns)
    _, y_true, y_proba = aligned(results, part)
    right = [proba.argmax(axis=1) == y_true for proba in y_proba]
    rows = []
    for i in range(len(results)):
        for j in range(i + 1, len(results)):
            table = np.array(
                [
                    [(right[i] & right[j]).sum(), (right[i] & ~right[j]).sum()],
                    [(~right[i] & right[j]).sum(), (~right[i] & ~right[j]).sum()],
                ]
            )
            draws = resampled_counts(table)
            low, high = percentile_interval((draws[:, 0, 1] - draws[:, 1, 0]) / len(y_true))
            rows.append(
                {
                    "a": results[i].label,
                    "b": results[j].label,
                    "n": len(y_true),
                    "only_a": int(table[0, 1]),
                    "only_b": int(table[1, 0]),
                    "difference": float(table[0, 1] - table[1, 0]) / len(y_true),
                    "low": float(low),
                    "high": float(high),
                    "p": float(mcnemar(table, exact=True).pvalue),
                }
            )
    pairs = pd.DataFrame(rows)
    pairs["p_holm"] = multipletests(pairs["p"], method="holm")[1]
    return pairs[columns]


def reliability(y_true, y_proba, bins=15):
    """Confidence against accuracy in bins of equal width (Guo et al. 2017).

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
    y_proba : ndarray of float, shape (n, 7)
    bins : int
        Bins (low, high] over 0..1.

    Returns
    -------
    DataFrame
        ``low``, ``high``, ``n``, ``confidence`` (mean probability of the arg-max class), ``accuracy``; the last
        two NaN in an empty bin.
    """
    y_proba = np.asarray(y_proba, dtype=np.float64)
    confidence = y_proba.max(axis=1)
    right = y_proba.argmax(axis=1) == y_true
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "low": edges[:-1],
                "high": edges[1:],
                "n": n,
                "confidence": np.bincount(place, confidence, minlength=bins) / n,
                "accuracy": np.bincount(place, right, minlength=bins) / n,
            }
        )


def calibration_error(table):
    """Return the expected calibration error of a `reliability` table: the mean gap over its images."""
    gap = (table["accuracy"] - table["confidence"]).abs().fillna(0)
    return float((gap * table["n"]).sum() / table["n"].sum())


def balanced_sample(y_true, per_class=140, seed=0):
    """Draw the same number of images of each class, all of them where a class has fewer (thesis, Fig. 5.8).

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
    per_class : int
    seed : int

    Returns
    -------
    ndarray of int
        Positions in `y_true`, ascending, each at most once.
    """
    rng = np.random.default_rng(seed)
    picked = []
    for k in LABELS:
        mine = np.flatnonzero(np.asarray(y_true) == k)
        picked.append(mine if len(mine) <= per_class else rng.choice(mine, per_class, replace=False))
    return np.sort(np.concatenate(picked))


def confusion(y_true, y_pred):
    """Confusion matrix in counts and in percent of the true class.

    Returns
    -------
    DataFrame
        49 rows: ``true``, ``predicted``, ``n``, ``percent`` (NaN where the true class has no image).
    """
    matrix = sk.confusion_matrix(y_true, y_pred, labels=LABELS)
    with np.errstate(invalid="ignore"):
        percent = 100 * matrix / matrix.sum(axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "true": np.repeat(CLASSES, len(CLASSES)),
            "predicted": np.tile(CLASSES, len(CLASSES)),
            "n": matrix.ravel(),
            "percent": percent.ravel(),
        }
    )


def costs(results):
    """List what each training took, time, device and memory, and the networks that it left.

    Returns
    -------
    DataFrame
        ``label``, ``seed``, ``device``, ``threads``, ``epochs``, ``train_seconds``, ``seconds_per_epoch``,
        ``evaluate_seconds``, ``peak_rss_mb``, ``gpu_peak_mb``; None where the record has no value. ``networks`` are
        the files of the trained network that lie in its folder.
    """
    rows = []
    for result in results:
        record = result.record
        device, times, memory = record["device"], record["times"], record["memory"]
        several = f"{device['replicas']} x " if device.get("replicas", 1) > 1 else ""
        rows.append(
            {
                "label": result.label,
                "seed": result.seed,
                "device": f"{several}{device['kind']}: {device['name']}",
                "threads": device.get("threads"),
                "epochs": record["epochs"]["run"],
                "train_seconds": times.get("train_seconds"),
                "seconds_per_epoch": times.get("seconds_per_epoch"),
                "evaluate_seconds": times.get("evaluate_seconds"),
                "peak_rss_mb": memory.get("peak_rss_mb"),
                "gpu_peak_mb": memory.get("gpu_peak_mb"),
                "networks": ", ".join(sorted(path.name for path in result.folder.glob("model.*"))) or None,
            }
        )
    return pd.DataFrame(rows)
