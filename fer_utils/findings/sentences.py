"""Sentences about figures, made from the tables that the figures draw.

They serve as the prose around a figure and as its text alternative, so neither can be wrong about the numbers.
"""

from fer_utils.constants import CLASSES
from fer_utils.findings.plots import PART_NAMES
from fer_utils.words import interval, listed


def about_accuracy(table, references=None):
    """Say which model has the highest and the lowest accuracy, for each part of the data.

    Parameters
    ----------
    table : DataFrame
        As for `plots.accuracy_bars`.
    references : dict of str to float, optional
        What the thesis states, by model.
    """
    sentences = []
    for part, rows in table.groupby("part", sort=False):
        best, worst = rows.loc[rows["value"].idxmax()], rows.loc[rows["value"].idxmin()]
        first = f"{best['label']} {interval(best['value'], best['low'], best['high'])}"
        where = f"On {PART_NAMES[part]}"
        if best["value"] == worst["value"]:
            sentences.append(f"{where} the accuracy is: {first}" + (", of all models." if len(rows) > 1 else "."))
        else:
            last = f"{worst['label']} {interval(worst['value'], worst['low'], worst['high'])}"
            sentences.append(f"{where} the highest accuracy is {first}, the lowest {last}.")
    for model, value in (references or {}).items():
        ours = table[table["model"] == model]
        if len(ours):
            found = listed(f"{row.value - value:+.3f} on {PART_NAMES[row.part]}" for row in ours.itertuples())
            sentences.append(f"The thesis states {value:.2f} for {ours['label'].iloc[0]}; the difference is {found}.")
    return " ".join(sentences)


def about_curves(data, metric, name):
    """Say where each model's curves end: training, validation, and all test images where they are others.

    Parameters
    ----------
    data : DataFrame
        As from `plots.curves`; the first seed of a model speaks for it.
    metric : str
        A value of its ``metric``.
    name : str
        What the sentence calls it.
    """
    ends = []
    for label, rows in data[data["metric"] == metric].groupby("label", sort=False):
        rows = rows[(rows["seed"] == rows["seed"].min()) & (rows["epoch"] == rows["epoch"].max())]
        last = rows.set_index("part")["value"]
        test = f" ({last['test']:.3f} on {PART_NAMES['test']})" if "test" in last else ""
        ends.append(f"{label} {last['training']:.3f} and {last['validation']:.3f}{test}")
    return f"{name} in the last epoch, training and validation: {'; '.join(ends)}."


def about_roc(data):
    """Say which class each model ranks best and worst."""
    ends = []
    for label, rows in data.groupby("label", sort=False):
        areas = rows.drop_duplicates("class").set_index("class")["auc"]
        ends.append(f"{label} from {areas.min():.3f} ({areas.idxmin()}) to {areas.max():.3f} ({areas.idxmax()})")
    return f"One-vs-rest AUC, lowest to highest class: {'; '.join(ends)}." if ends else "No class has images."


def about_confusion(data, per_class):
    """Say which classes are classified best and worst, which are confused most, and what the sample holds.

    Parameters
    ----------
    data : DataFrame
        As from `plots.confusion_matrices`.
    per_class : int
        Images a class that the balanced sample asked for.
    """
    sentences = []
    supports = {}
    for sample, rows in data.groupby("sample", sort=False):
        supports[sample] = rows.groupby("true", sort=False)["n"].sum()
        rows = rows.dropna(subset="percent")
        right = rows[rows["true"] == rows["predicted"]].set_index("true")["percent"].sort_values(ascending=False)
        wrong = rows[rows["true"] != rows["predicted"]]
        worst = wrong.loc[wrong["percent"].idxmax()]
        ranks = ", ".join(f"{name} {value:.0f}%" for name, value in right.items())
        name = "On the balanced sample" if sample == "balanced" else "On all images"
        sentences.append(
            f"{name}, correct: {ranks} (mean of the classes {right.mean():.1f}%); most often confused: "
            f"{worst['true']} taken for {worst['predicted']}, {worst['percent']:.0f}%."
        )
    fewer = supports["balanced"][supports["balanced"] < per_class]
    if len(fewer):
        counts = listed(f"{name} ({n})" for name, n in fewer.items())
        sentences.append(
            f"With fewer than {per_class} images: {counts}. All of these are taken, and rows are in percent, so that "
            "every class weighs the same."
        )
    else:
        sentences.append(f"Each of the {len(CLASSES)} classes has {per_class} images in the balanced sample.")
    return " ".join(sentences)


def about_calibration(data):
    """Say how far each model's confidence lies from its accuracy, and on which side."""
    parts = []
    for label, rows in data.groupby("label", sort=False):
        filled = rows.dropna(subset="accuracy")
        gap = ((filled["confidence"] - filled["accuracy"]) * filled["n"]).sum() / filled["n"].sum()
        side = "more" if gap > 0 else "less"
        parts.append(f"{label} {rows['ece'].iloc[0]:.3f} (on average {side} confident than right)")
    return f"Expected calibration error: {'; '.join(parts)}."


def about_pairs(pairs):
    """Say how many pairs of models the test tells apart after Holm's correction."""
    close = pairs[pairs["p_holm"] >= 0.05]
    told = len(pairs) - len(close)
    text = (
        f"{told or 'None'} of {len(pairs)} pair{'s' if len(pairs) > 1 else ''} of models can be told apart at the 5% "
    )
    text += "level after Holm's correction."
    if len(close):
        text += " Not told apart: " + "; ".join(f"{row.a} and {row.b}" for row in close.itertuples()) + "."
    return text
