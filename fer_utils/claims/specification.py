"""A specification curve: ResNet-50's headline figures under every choice that an analyst could make, without training.

The thesis gives accuracy, precision, recall and F1 as 0.67 and 0.68 and does not say how they were counted.
"""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from fer_utils.claims.claims import load_claims
from fer_utils.claims.evidence import READINGS, Evidence
from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.findings.results import PARTS
from fer_utils.findings.statistics import counted_metrics, outcomes

MODEL = "resnet50"

#: For each quantity, the metric of `fer_utils.findings.statistics.COUNTED` under each way of counting.
COUNTING = {
    quantity: {"arg-max, pooled": "accuracy", "above 0.5, pooled": above, "arg-max, macro": macro}
    for quantity, above, macro in (
        ("accuracy", "recall", "macro_recall"),
        ("precision", "precision", "macro_precision"),
        ("recall", "recall", "macro_recall"),
        ("f1", "f1", "macro_f1"),
    )
}

#: The value claims: claim, quantity, the key of its number in ``claims.yaml``, and its tolerance.
VALUES = (
    ("F01", "accuracy", "accuracy", "score"),
    ("F02", "accuracy", "accuracy", "score"),
    *(("F27", quantity, "all", "macro_score") for quantity in ("precision", "recall", "f1")),
)

CHOICES = ("epoch", "images", "counting", "sample", "duplicates")


def figures_of(table, seen):
    """Yield (images, sample, duplicates, figures) of one epoch's predictions of the test images."""
    cells = outcomes(table["label"].to_numpy(dtype=np.int64), table[list(PROBABILITY_COLUMNS)].to_numpy())
    for (part, usages), without in product(list(PARTS.items())[1:], (False, True) if seen is not None else (False,)):
        kept = table["usage"].isin(usages).to_numpy() & ~(table["id"].isin(seen or ()).to_numpy() & without)
        counts = np.bincount(cells[kept], minlength=98).reshape(7, 7, 2).astype(float)
        by_class = counts.sum(axis=(1, 2), keepdims=True)
        for sample, array in (("whole", counts), ("balanced", counts / np.maximum(by_class, 1))):
            if array.sum():
                yield part, sample, "without those trained on" if without else "all", counted_metrics(array)


def trained_on(run, result):
    """Ids of test images whose pixels the training saw; None where the dataset notebook was not run."""
    if run.images is None:
        return None
    own = set(result.predictions.loc[result.mask("train"), "id"])
    hashes = set(run.images.loc[run.images["id"].isin(own), "pixel_hash"])
    return set(run.images.loc[run.images["pixel_hash"].isin(hashes) & (run.images["usage"] != "Training"), "id"])


def specifications(run):
    """Compute every specification of every value claim about ResNet-50.

    Parameters
    ----------
    run : fer_utils.findings.results.Run
        Trainings of any length; older folders lack the last epoch's predictions, and then its specifications.

    Returns
    -------
    DataFrame
        One row each: ``claim``, ``quantity``, ``reading``, ``label``, ``seed``, the `CHOICES`, ``value``, ``stated``,
        ``tolerance`` and ``within`` (bool). Empty without a training of ResNet-50.
    """
    claims, rows = {claim.id: claim for claim in load_claims()}, []
    for reading in READINGS:
        for result in Evidence(run, reading, loose=True).used(MODEL):
            epochs = {"best": result.predictions[result.mask("test")], "last": result.predictions_last}
            seen = trained_on(run, result)
            for epoch, table in epochs.items():
                for part, sample, duplicates, found in figures_of(table, seen) if table is not None else ():
                    for name, quantity, key, tolerance in VALUES:
                        stated, within = claims[name].stated[key], claims[name].within[tolerance]
                        for counting, metric in COUNTING[quantity].items():
                            value = float(found[metric])
                            choices = (epoch, part, counting, sample, duplicates)
                            row = (name, quantity, reading, result.label, result.seed, *choices, value, stated, within)
                            rows.append((*row, abs(value - stated) <= within + 1e-9))
    columns = ["claim", "quantity", "reading", "label", "seed", *CHOICES, "value", "stated", "tolerance", "within"]
    return pd.DataFrame(rows, columns=columns)


def summary(table):
    """Share of the specifications within the tolerance, for each value claim and reading.

    Returns
    -------
    DataFrame
        ``claim``, ``quantity``, ``reading``, ``stated``, ``specifications``, ``within``, ``share``, ``lowest``,
        ``highest``.
    """
    groups = table.groupby(["claim", "quantity", "reading", "stated"], sort=False)
    found = groups.agg(
        specifications=("within", "size"), within=("within", "sum"), lowest=("value", "min"), highest=("value", "max")
    )
    found.insert(2, "share", found["within"] / found["specifications"])
    return found.reset_index()


def plot(table, claim="F02", quantity="accuracy"):
    """Draw the specification curve of one value claim: sorted values above, the choices behind each below.

    Returns
    -------
    figure : matplotlib Figure
    table : DataFrame
        The rows drawn, in order.
    """
    rows = table[(table["claim"] == claim) & (table["quantity"] == quantity)]
    rows = (
        rows.drop_duplicates([*CHOICES, "reading", "seed"]).sort_values("value", kind="stable").reset_index(drop=True)
    )
    options = [(name, value) for name in CHOICES for value in rows[name].unique()]
    figure, (top, below) = plt.subplots(
        2, 1, figsize=(7.5, 5.2), sharex=True, height_ratios=[2, 3], layout="constrained"
    )
    for within, colour, marker in ((True, "#0b5d3b", "o"), (False, "#9b1c1c", "x")):
        part = rows[rows["within"] == within]
        top.scatter(
            part.index, part["value"], s=14, color=colour, marker=marker, label="within" if within else "outside"
        )
    if len(rows):
        stated, tolerance = rows.loc[0, ["stated", "tolerance"]]
        top.axhspan(stated - tolerance, stated + tolerance, color="#949494", alpha=0.25, label="stated, tolerance")
    top.set_ylabel(quantity if quantity != "f1" else "F1")
    top.legend(loc="best")
    for place, (name, value) in enumerate(reversed(options)):
        chosen = rows.index[rows[name] == value]
        below.scatter(chosen, np.full(len(chosen), place), s=6, color="#333333", marker="|")
    below.set_yticks(range(len(options)), [f"{name}: {value}" for name, value in reversed(options)])
    below.set_xticks([])
    below.set_xlabel(f"{len(rows)} specifications, in order of their value")
    return figure, rows
