"""A specification curve: ResNet-50's headline figures under every choice that an analyst could make, without training.

The thesis gives accuracy, precision, recall and F1 as 0.67 and 0.68 and does not say how they were counted.
"""

from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fer_utils.claims.checks import EPS
from fer_utils.claims.claims import load_claims
from fer_utils.claims.evidence import READINGS, Evidence
from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.findings import duplicates
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

#: The quantities of each value claim; `stated` and the tolerance are the only ones that ``claims.yaml`` gives it.
VALUES = {"F01": ("accuracy",), "F02": ("accuracy",), "F27": ("precision", "recall", "f1")}
CHOICES = ("epoch", "images", "counting", "sample", "duplicates")


def figures_of(table, seen):
    """Yield (images, sample, duplicates, figures) of one epoch's predictions of the test images."""
    cells = outcomes(table["label"].to_numpy(dtype=np.int64), table[list(PROBABILITY_COLUMNS)].to_numpy())
    for part, without in product(("public", "private", "test"), (False, True) if seen is not None else (False,)):
        kept = table["usage"].isin(PARTS[part]).to_numpy() & ~(table["id"].isin(seen or ()).to_numpy() & without)
        counts = np.bincount(cells[kept], minlength=98).reshape(7, 7, 2).astype(float)
        by_class = counts.sum(axis=(1, 2), keepdims=True)
        for sample, array in (("whole", counts), ("balanced", counts / np.maximum(by_class, 1))):
            if array.sum():
                yield part, sample, "without those trained on" if without else "all", counted_metrics(array)


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
    rows = []
    wanted = [(claim, quantity) for claim in load_claims() for quantity in VALUES.get(claim.id, ())]
    for reading in READINGS:
        for result in Evidence(run, reading, loose=True).used(MODEL):
            epochs = {"best": result.predictions[result.mask("test")], "last": result.predictions_last}
            marks = duplicates.flags_of(run, result)
            seen = None if marks is None else set(marks.index[marks["seen"]])
            for epoch, table in epochs.items():
                for part, sample, repeated, found in figures_of(table, seen) if table is not None else ():
                    for claim, quantity in wanted:
                        (stated,), tolerance = claim.stated.values(), next(iter(claim.within.values()))
                        for counting, metric in COUNTING[quantity].items():
                            row = (claim.id, quantity, reading, result.label, result.seed)
                            row += (epoch, part, counting, sample, repeated)
                            rows.append((*row, float(found[metric]), stated, tolerance))
    columns = ["claim", "quantity", "reading", "label", "seed", *CHOICES, "value", "stated", "tolerance"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(within=(table["value"] - table["stated"]).abs() <= table["tolerance"] + EPS)


def summary(table):
    """Share of the specifications within the tolerance, and their range, for each value claim and reading."""
    groups = table.groupby(["claim", "quantity", "reading", "stated"], sort=False)
    found = groups.agg(
        share=("within", "mean"),
        specifications=("within", "size"),
        within=("within", "sum"),
        lowest=("value", "min"),
        highest=("value", "max"),
    )
    return found.reset_index()


def plot(table):
    """Draw the specification curve of the accuracy (claim F02): sorted values above, the choices behind each below.

    Returns the figure and the rows drawn, in order.
    """
    rows = table[table["claim"] == "F02"].drop_duplicates([*CHOICES, "reading", "seed"])
    rows = rows.sort_values("value", kind="stable", ignore_index=True)
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 3])
    place = rows["within"].map({True: "within", False: "outside"})
    looks = {"palette": {"within": "#0b5d3b", "outside": "#9b1c1c"}, "markers": {"within": "o", "outside": "X"}}
    sns.scatterplot(x=rows.index, y=rows["value"], hue=place, style=place, s=18, ax=top, **looks)
    if len(rows):
        stated, tolerance = rows.loc[0, ["stated", "tolerance"]]
        top.axhspan(stated - tolerance, stated + tolerance, color="#949494", alpha=0.25, label="stated, tolerance")
    top.set_ylabel("accuracy")
    top.legend(loc="best")
    options = [(name, value) for name in CHOICES for value in rows[name].unique()][::-1]
    for y, (name, value) in enumerate(options):
        chosen = rows.index[rows[name] == value]
        below.scatter(chosen, np.full(len(chosen), y), s=6, color="#333333", marker="|")
    below.set_yticks(range(len(options)), [f"{name}: {value}" for name, value in options])
    below.set_xticks([])
    below.set_xlabel(f"{len(rows)} specifications, in order of their value")
    return figure, rows
