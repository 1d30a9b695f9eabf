"""What duplicates, conflicting labels and test images that were trained on do to a score."""

import numpy as np
import pandas as pd

from fer_utils.data import audit
from fer_utils.findings import statistics
from fer_utils.findings.explanations import Part
from fer_utils.findings.results import command


def flags(images, trained):
    """Mark the test images that make a score questionable, from ``dataset/images.parquet`` and the ids trained on.

    Returns booleans by ``id``: ``seen`` (the same pixels were trained on), ``repeated`` (they appear earlier in the
    test split), ``conflicting`` (they have different labels in the dataset), ``constant`` (nearly one grey level).
    """
    labels = images.groupby("pixel_hash")["label"].nunique()
    seen = set(images.loc[images["id"].isin(trained), "pixel_hash"])
    test = images[images["usage"] != "Training"].set_index("id")
    hashes = test["pixel_hash"]
    found = {"seen": hashes.isin(seen), "repeated": hashes.duplicated(), "conflicting": hashes.map(labels) > 1}
    return pd.DataFrame(found | {"constant": audit.near_constant(test)})


def flags_of(run, result):
    """Apply `flags` to one training of a run; None where the dataset notebook was not run."""
    trained = result.predictions.loc[result.mask("train"), "id"]
    return None if run.images is None else flags(run.images, trained)


#: Subsets of the test images, from the columns of `flags`.
SUBSETS = {
    "all": lambda marks: pd.Series(True, marks.index),
    "without those trained on": lambda marks: ~marks["seen"],
    "without repeats": lambda marks: ~marks["repeated"],
    "without conflicting labels": lambda marks: ~marks["conflicting"],
    "without nearly constant ones": lambda marks: ~marks["constant"],
    "without any of these": lambda marks: ~marks.any(axis=1),
    "only those trained on": lambda marks: marks["seen"],
}


def same_mix_accuracy(y_true, right, seen):
    """Accuracy on the unseen images, weighted to the class mix of the seen ones; NaN if a class is lacking."""
    table = pd.DataFrame({"class": y_true, "right": right, "seen": seen})
    mix = table.loc[table["seen"], "class"].value_counts(normalize=True)
    unseen = table[~table["seen"]].groupby("class")["right"].mean()
    return float((mix * unseen.reindex(mix.index)).sum(skipna=False)) if len(mix) else np.nan


def explain(run):
    """Score each model with and without duplicates, conflicting labels and test images that were trained on.

    Returns
    -------
    Part
        One row per model and subset: ``n``, ``value``, ``low``, ``high`` (accuracy), ``macro_f1`` and ``change``
        (accuracy less that on all images).
    """
    if run.images is None:
        return Part("The dataset notebook was not run, so duplicates are not known.", command=command(run))
    rows, same_mix = [], {}
    for result in run.first_seeds:
        predictions = result.predictions[result.mask("test")]
        marks = flags_of(run, result)
        unknown = int((~predictions["id"].isin(marks.index)).sum())
        if unknown:
            return Part(
                f"The dataset notebook lacks {unknown:,} of the {len(predictions):,} images that {result.label} "
                "predicted, so it was run on other data.",
                command=command(run),
            )
        y_true, y_proba = result.select("test")
        used = marks.loc[predictions["id"]]
        same_mix[result.label] = same_mix_accuracy(y_true, y_proba.argmax(axis=1) == y_true, used["seen"].to_numpy())
        for name, choose in SUBSETS.items():
            kept = choose(used).to_numpy()
            if kept.any():
                found = statistics.counted_intervals(y_true[kept], y_proba[kept]).set_index("metric")
                rows.append(
                    {"model": result.model, "label": result.label, "subset": name, "n": int(kept.sum())}
                    | found.loc["accuracy", ["value", "low", "high"]].to_dict()
                    | {"macro_f1": float(found.at["macro_f1", "value"])}
                )
    table = pd.DataFrame(rows)
    # The first row of a model is that of all images.
    table["change"] = table["value"] - table.groupby("model")["value"].transform("first")
    text = (
        f"Test images scored: {len(used):,}. Also trained on: {used['seen'].sum():,}; repeating another test image: "
        f"{used['repeated'].sum():,}; with a label that the same picture contradicts elsewhere: "
        f"{used['conflicting'].sum():,}; nearly one grey level: {used['constant'].sum():,}. "
    )
    clean = table[table["subset"] == "without any of these"]
    if len(clean):
        most = clean.loc[clean["change"].abs().idxmax()]
        text += (
            f"Without all of these, no model's accuracy changes by more than {100 * abs(most['change']):.2f} "
            f"percentage points ({most['label']}, to {most['value']:.3f}). "
        )
    seen = table[table["subset"] == "only those trained on"]
    if len(seen):
        easiest = seen.loc[seen["change"].idxmax()]
        text += f"On the images that were also trained on, {easiest['label']} reaches {easiest['value']:.3f}"
        other = same_mix[easiest["label"]]
        text += f", and on the others, at the same class mix, {other:.3f}." if other == other else "."
    return Part(text.strip(), table)
