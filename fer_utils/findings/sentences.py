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
        tied = [rows[rows["value"] == value] for value in (rows["value"].max(), rows["value"].min())]
        most, least = (f"{listed(t['label'])} {interval(*t.iloc[0][['value', 'low', 'high']])}" for t in tied)
        told = f"the highest accuracy is {most}, the lowest {least}"
        if most == least:
            same = f"all models have the same accuracy, {rows['value'].iloc[0]:.3f}"
            told = same if len(rows) > 1 else f"the accuracy is: {most}"
        sentences.append(f"On {PART_NAMES[part]} {told}.")
    for model, value in (references or {}).items():
        ours = table[table["model"] == model]
        if len(ours):
            found = listed(f"{row.value - value:+.3f} on {PART_NAMES[row.part]}" for row in ours.itertuples())
            sentences.append(f"The thesis states {value:.2f} for {ours['label'].iloc[0]}; the difference is {found}.")
    return " ".join(sentences)


def curve_ends(data):
    """Last values of each model's curves, first seed: ``label``, ``metric``, and a column for each part of the data."""
    first = data[data["seed"] == data.groupby("label")["seed"].transform("min")]
    last = first[first["epoch"] == first.groupby("label")["epoch"].transform("max")]
    ends = last.pivot_table("value", ["label", "metric"], "part", sort=False)
    return ends.rename_axis(columns=None).reset_index()


def about_curves(data, metric, name):
    """Say of which models a metric ends better on the training than on the validation images, and by how much."""
    ends = curve_ends(data[data["metric"] == metric]).set_index("label")
    gap = (ends["training"] - ends["validation"]) * (-1 if metric == "loss" else 1)
    ahead = gap[gap > 0]
    end = f"{name}: the last epoch is better on the training than on the validation images"
    if ahead.empty:
        return f"{end} for no model."
    who = "every model" if len(ahead) == len(gap) > 1 else listed(ahead.index)
    return f"{end} for {who}, by {gap.max():.3f} at most ({gap.idxmax()})."


def about_roc(data):
    """Say which class each model ranks best and worst."""
    areas = data.drop_duplicates(["label", "class"])
    if areas.empty:
        return "No class has images."
    ends = []
    for word, which in (("lowest", "idxmin"), ("highest", "idxmax")):
        rows = areas.loc[areas.groupby("label")["auc"].agg(which)]
        models = rows.groupby("class", sort=False)["label"].agg(listed)
        ends.append(f"{word} for {'; for '.join(f'{name} ({who})' for name, who in models.items())}")
    return f"One-vs-rest AUC is {', and '.join(ends)}."


def about_confusion(data, per_class):
    """Say which classes are classified best and worst, which are confused most, and what the balanced sample holds."""
    sentences = []
    for sample, rows in data.dropna(subset="percent").groupby("sample", sort=False):
        on = rows["true"] == rows["predicted"]
        right, wrong = rows[on].set_index("true")["percent"].sort_values(ascending=False), rows[~on]
        ends = f"{right.index[0]} {right.iloc[0]:.0f}% at best, {right.index[-1]} {right.iloc[-1]:.0f}% at worst"
        name = "On the balanced sample" if sample == "balanced" else "On all images"
        most = wrong["percent"].max()
        confused = [f"{row.true} taken for {row.predicted}" for row in wrong[wrong["percent"] == most].itertuples()]
        confusion = f"most often confused: {listed(confused[:3])}, {most:.0f}%" if most > 0 else "no class is confused"
        sentences.append(f"{name}, correct: {ends} (mean of the classes {right.mean():.1f}%); {confusion}.")
    held = data[data["sample"] == "balanced"].groupby("true", sort=False)["n"].sum()
    fewer = held[held < per_class]
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
    """Say which models are on average surer than right, and which the other way round."""
    sides = {"overconfident": [], "underconfident": []}
    for label, rows in data.groupby("label", sort=False):
        filled = rows.dropna(subset="accuracy")
        gap = ((filled["confidence"] - filled["accuracy"]) * filled["n"]).sum()
        sides["overconfident" if gap > 0 else "underconfident"].append(label)
    return f"On average {'; '.join(f'{side}: {listed(labels)}' for side, labels in sides.items() if labels)}."


def about_pairs(pairs):
    """Say which pairs of models (from `comparisons.compare`) the test tells apart after Holm's correction."""
    different = pairs["p_holm"] < 0.05
    sentences = []
    for verb, rows in (("tells apart", pairs[different]), ("does not tell apart", pairs[~different])):
        named = "; ".join(f"{row.a} and {row.b}" for row in rows.itertuples())
        sentences += [f"At the 5% level, after Holm's correction, the test {verb}: {named}."] if named else []
    power = f"{100 * pairs['detectable'].max():.1f} percentage points or more with a power of 80%"
    return " ".join([*sentences, f"With {pairs['n'].iloc[0]:,} images it finds a difference of {power}."])
