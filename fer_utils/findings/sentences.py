"""Sentences about figures, made from the tables that the figures draw.

They serve as the prose around a figure and as its text alternative, so neither can be wrong about the numbers.
"""

from fer_utils.constants import CLASSES
from fer_utils.findings.plots import PART_NAMES
from fer_utils.words import interval, listed


def about_accuracy(table, references=None):
    """Say which model of an accuracy table (`plots.accuracy_bars`) is highest and lowest, for each part of the data.

    `references` maps a model to what the thesis states.
    """
    sentences = []
    for part, rows in table.groupby("part", sort=False):
        where, ends = f"On {PART_NAMES[part]}", []
        for value in (rows["value"].max(), rows["value"].min()):
            tied = rows[rows["value"] == value]
            ends.append(f"{listed(tied['label'])} {interval(*tied.iloc[0][['value', 'low', 'high']])}")
        if len(rows) == 1:
            sentences.append(f"{where} the accuracy is: {ends[0]}.")
        elif ends[0] == ends[1]:
            sentences.append(f"{where} all models have the same accuracy, {rows['value'].iloc[0]:.3f}.")
        else:
            sentences.append(f"{where} the highest accuracy is {ends[0]}, the lowest {ends[1]}.")
    for model, value in (references or {}).items():
        ours = table[table["model"] == model]
        if len(ours):
            found = listed(f"{row.value - value:+.3f} on {PART_NAMES[row.part]}" for row in ours.itertuples())
            sentences.append(f"The thesis states {value:.2f} for {ours['label'].iloc[0]}; the difference is {found}.")
    return " ".join(sentences)


def about_curves(data, metric, name):
    """Say where each model's curves end (first seed): training, validation, and all test images where these differ."""
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
    """Say which classes are classified best and worst, which are confused most, and what the balanced sample holds."""
    sentences = []
    supports = {}
    for sample, rows in data.groupby("sample", sort=False):
        supports[sample] = rows.groupby("true", sort=False)["n"].sum()
        rows = rows.dropna(subset="percent")
        right = rows[rows["true"] == rows["predicted"]].set_index("true")["percent"].sort_values(ascending=False)
        wrong = rows[rows["true"] != rows["predicted"]]
        ranks = ", ".join(f"{name} {value:.0f}%" for name, value in right.items())
        name = "On the balanced sample" if sample == "balanced" else "On all images"
        most = wrong["percent"].max()
        confused = [f"{row.true} taken for {row.predicted}" for row in wrong[wrong["percent"] == most].itertuples()]
        confusion = f"most often confused: {listed(confused[:3])}, {most:.0f}%" if most > 0 else "no class is confused"
        sentences.append(f"{name}, correct: {ranks} (mean of the classes {right.mean():.1f}%); {confusion}.")
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


def about_classes(table):
    """Say which classes have the lowest and the highest F1, averaged over the models of a table of class scores."""
    f1 = table[table["metric"] == "f1"].dropna(subset="value").groupby("class", sort=False)["value"].mean()
    if f1.min() == f1.max():
        return f"Averaged over the models, F1 is {f1.max():.3f} in every class."
    least, most = (listed(f1.index[f1 == value]) for value in (f1.min(), f1.max()))
    return (
        f"Averaged over the models, F1 is lowest for {least} ({f1.min():.3f}) and highest for {most} ({f1.max():.3f})."
    )


def about_calibration(data):
    """Say how far each model's confidence is from its accuracy, and on which side."""
    parts = []
    for label, rows in data.groupby("label", sort=False):
        filled = rows.dropna(subset="accuracy")
        gap = ((filled["confidence"] - filled["accuracy"]) * filled["n"]).sum() / filled["n"].sum()
        side = "overconfident" if gap > 0 else "underconfident"
        parts.append(f"{label} {rows['ece'].iloc[0]:.3f} (on average {side})")
    return f"Expected calibration error: {'; '.join(parts)}."


def about_pairs(pairs):
    """Say which pairs of models (from `comparisons.compare`) the test tells apart after Holm's correction."""
    different = pairs["p_holm"] < 0.05
    sentences = [
        f"At the 5% level, after Holm's correction, the test {verb}: "
        + "; ".join(f"{row.a} and {row.b}" for row in rows.itertuples())
        + "."
        for verb, rows in (("tells apart", pairs[different]), ("does not tell apart", pairs[~different]))
        if len(rows)
    ]
    most = pairs["detectable"].max()
    sentences.append(
        f"With {pairs['n'].iloc[0]:,} images it finds a difference of {100 * most:.1f} percentage points or more with "
        "a power of 80%."
    )
    return " ".join(sentences)
