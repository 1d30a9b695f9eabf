"""What is wrong with the images: duplicates, conflicting labels, leaks between splits, flat images.

Everything is computed from the table of images (:func:`image_table`), in which equal ``pixel_hash`` means equal
decoded pixels.
"""

import numpy as np
import pandas as pd

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data.identity import pixel_hash, statistics

#: Images whose grey levels have a standard deviation below this (of 255) show nothing.
NEAR_CONSTANT = 2.0

#: Images per class as the thesis states them (Table 3.1), and in total (section 3.1).
THESIS_COUNTS = {
    "angry": 6989,
    "disgust": 1766,
    "fear": 6096,
    "happy": 7849,
    "neutral": 7011,
    "sad": 6176,
    "surprise": 4005,
}
THESIS_TOTAL = 35340


def image_table(images: np.ndarray, labels: np.ndarray, usage: np.ndarray, ids: np.ndarray) -> pd.DataFrame:
    """Return the layout of ``images.parquet``: one row per image.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    labels : ndarray of int, shape (n,)
        Index into :data:`fer_utils.constants.CLASSES`.
    usage, ids : ndarray of str, shape (n,)

    Returns
    -------
    DataFrame
        Columns id, usage (str), label (int8), pixel_hash (16 hexadecimal digits), mean, std, sharpness (float32).
    """
    table = pd.DataFrame({"id": ids, "usage": usage, "label": labels.astype(np.int8), "pixel_hash": pixel_hash(images)})
    return table.join(statistics(images))


def class_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Return the number of images per class and usage, beside the thesis's Table 3.1.

    Parameters
    ----------
    table : DataFrame
        Columns ``usage`` and ``label``.

    Returns
    -------
    DataFrame of int64
        One row per class and a last row ``"all"``; columns: each usage, ``"all"`` and ``"thesis"``. The sum of the
        thesis's rows differs from the total that its text states (``THESIS_TOTAL``).
    """
    counts = pd.crosstab(table["label"], table["usage"])
    counts = counts.reindex(index=range(len(CLASSES)), columns=list(USAGES), fill_value=0)
    counts.index = pd.Index(CLASSES, name="class")
    counts.columns.name = None
    counts["all"] = counts.sum(axis=1)
    counts["thesis"] = pd.Series(THESIS_COUNTS)
    counts.loc["all"] = counts.sum()
    return counts


def duplicate_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Return the groups of identical images.

    Parameters
    ----------
    table : DataFrame
        Columns ``id``, ``usage``, ``label``, ``pixel_hash``.

    Returns
    -------
    DataFrame
        One row per group of two images or more, indexed by ``pixel_hash``, largest first: ``n_images``, ``n_labels``,
        ``n_usages``, ``labels`` (class names with their number, e.g. ``"angry 2, fear 1"``), ``usages`` (the same for
        usages), ``ids`` (list of str).
    """
    repeated = table[table["pixel_hash"].duplicated(keep=False)].sort_values(["pixel_hash", "id"])
    repeated = repeated.assign(name=repeated["label"].map(dict(enumerate(CLASSES))))
    groups = repeated.groupby("pixel_hash")
    summary = pd.DataFrame(
        {
            "n_images": groups.size(),
            "n_labels": groups["label"].nunique(),
            "n_usages": groups["usage"].nunique(),
            "labels": groups["name"].agg(lambda names: _tally(names, CLASSES)),
            "usages": groups["usage"].agg(lambda usages: _tally(usages, USAGES)),
            "ids": groups["id"].agg(list),
        }
    )
    return summary.sort_values("n_images", ascending=False, kind="stable")


def _tally(values: pd.Series, order: tuple[str, ...]) -> str:
    counts = values.value_counts()
    return ", ".join(f"{name} {counts[name]}" for name in order if name in counts.index)


def conflicting_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Return the groups of identical images that carry more than one label; see :func:`duplicate_groups`."""
    groups = duplicate_groups(table)
    return groups[groups["n_labels"] > 1]


def in_training(table: pd.DataFrame) -> pd.Series:
    """Return which test images also appear in train, whatever their label: Series of bool in the table's index."""
    training = table["usage"] == "Training"
    return ~training & table["pixel_hash"].isin(table.loc[training, "pixel_hash"])


def near_constant(table: pd.DataFrame) -> pd.Series:
    """Return which images have a standard deviation below ``NEAR_CONSTANT`` grey levels."""
    return table["std"] < NEAR_CONSTANT


def sharpness_by_usage(table: pd.DataFrame) -> pd.DataFrame:
    """Return quartiles of the sharpness: one row per usage; splits of one origin have like medians."""
    quartiles = table.groupby("usage")["sharpness"].quantile([0.25, 0.5, 0.75]).unstack().astype(float)
    quartiles.columns = ["lower_quartile", "median", "upper_quartile"]
    return quartiles.reindex([usage for usage in USAGES if usage in quartiles.index])


def audit(table: pd.DataFrame) -> dict:
    """Return the audit's figures.

    Parameters
    ----------
    table : DataFrame
        As :func:`image_table` makes it, or ``images.parquet``.

    Returns
    -------
    dict
        JSON-able. ``n_images``; ``n_distinct`` (different decoded pixels); ``n_duplicate_groups`` (groups of
        two or more identical images), of these ``n_conflicting_groups`` (more than one label) and
        ``n_groups_across_usages``; ``n_conflicting_images``; ``n_duplicates_within`` (per usage, images
        beyond the first of their group in that usage); ``n_test_in_train``, ``n_test_in_train_public``,
        ``n_test_in_train_private`` (test images that also appear in train),
        ``n_test_in_train_other_label`` (of these, those that train knows only under other labels);
        ``n_near_constant``; ``sharpness`` ({usage: quartiles}); ``counts`` ({usage: {class: n}}).
    """
    groups = duplicate_groups(table)
    leaked = table[in_training(table)]
    training = table.loc[table["usage"] == "Training", ["pixel_hash", "label"]].drop_duplicates()
    same_label = len(leaked.merge(training, on=["pixel_hash", "label"]))
    per_usage = leaked["usage"].value_counts()
    repeats = table.duplicated(["usage", "pixel_hash"]).groupby(table["usage"]).sum()
    counts = class_counts(table)
    return {
        "n_images": len(table),
        "n_distinct": int(table["pixel_hash"].nunique()),
        "n_duplicate_groups": len(groups),
        "n_conflicting_groups": int((groups["n_labels"] > 1).sum()),
        "n_conflicting_images": int(groups.loc[groups["n_labels"] > 1, "n_images"].sum()),
        "n_groups_across_usages": int((groups["n_usages"] > 1).sum()),
        "n_duplicates_within": {usage: int(repeats.get(usage, 0)) for usage in USAGES},
        "n_test_in_train": len(leaked),
        "n_test_in_train_public": int(per_usage.get("PublicTest", 0)),
        "n_test_in_train_private": int(per_usage.get("PrivateTest", 0)),
        "n_test_in_train_other_label": len(leaked) - same_label,
        "n_near_constant": int(near_constant(table).sum()),
        "sharpness": sharpness_by_usage(table).to_dict(orient="index"),
        "counts": {usage: counts.loc[list(CLASSES), usage].astype(int).to_dict() for usage in USAGES},
    }
