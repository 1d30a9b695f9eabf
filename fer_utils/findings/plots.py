"""The figures of chapters 3 and 5, each from plain tables: (figure, what is drawn as a tidy table).

Every function that takes trainings takes any number of them, of any seeds: the first seed of a model is drawn
thick, the others thin. Saving and captions are the business of `fer_utils.findings.figures.publish`.
"""

import re
import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from sklearn import metrics as sk

from fer_utils.constants import CLASSES, USAGES
from fer_utils.findings import statistics
from fer_utils.findings.figures import class_style, model_style
from fer_utils.metrics import one_hot

#: What an axis is called, for each metric of ``history.csv``.
NAMES = {
    "loss": "Loss (cross-entropy)",
    "accuracy": "Accuracy",
    "precision": "Precision, probability above 0.5",
    "recall": "Recall, probability above 0.5",
    "f1": "F1, probability above 0.5",
    "auc": "AUC, all classes pooled",
    "macro_precision": "Precision, arg-max, macro",
    "macro_recall": "Recall, arg-max, macro",
    "macro_f1": "F1, arg-max, macro",
}

WIDTH = 10.0  # inches; the report shows it at about 9 of them, so that 10 points stay readable
COLUMNS = 4
INK = "#333333"
THESIS = {"color": "black", "linewidth": 1.4}


def panels(count, columns=COLUMNS, height=2.6, rows_of=1, **options):
    """Make a grid of axes for `count` panels, repeated `rows_of` times, with no empty axes left visible.

    Returns
    -------
    figure : Figure
    groups : list of list of Axes
        One list of `count` axes for each repetition.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    width = {1: 4.6, 2: 7.4}.get(columns, WIDTH)
    figure = Figure(figsize=(width, height * rows * rows_of + 0.5), layout="constrained")
    grid = figure.subplots(rows * rows_of, columns, squeeze=False, **options)
    groups = []
    for group in range(rows_of):
        axes = list(grid[group * rows : (group + 1) * rows].flat)
        for extra in axes[count:]:
            extra.set_visible(False)
        groups.append(axes[:count])
    return figure, groups


def outer_labels(axes, columns, x, y):
    """Label the x axis of the lowest panel of each column and the y axis of the leftmost panels."""
    for place, ax in enumerate(axes):
        if place + columns >= len(axes):
            ax.set_xlabel(x)
            ax.tick_params(labelbottom=True)
        if place % columns == 0:
            ax.set_ylabel(y)


def short(label):
    """Break a long label into lines that fit above a panel."""
    return textwrap.fill(label, 20)


def by_model(results):
    """Trainings grouped by model, in the order in which the models first come, each by seed."""
    groups = {}
    for result in results:
        groups.setdefault(result.model, []).append(result)
    return {name: sorted(group, key=lambda r: r.seed) for name, group in groups.items()}


# --- chapter 3 ------------------------------------------------------------------------------------------------


def faces(images, labels, *, per_class=4, seed=0):
    """Draw a few faces of each class, one class a column (thesis, Fig. 3.1).

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    labels : ndarray of int, shape (n,)
        Labels in 0..6.
    per_class : int
        Faces a class; fewer where a class has fewer.
    seed : int
        Which faces are picked.

    Returns
    -------
    figure : Figure
    data : None
        Faces are not saved as data.
    """
    rng = np.random.default_rng(seed)
    figure = Figure(figsize=(WIDTH, 1.42 * per_class + 0.4), layout="constrained")
    grid = figure.subplots(per_class, len(CLASSES), squeeze=False)
    for k, name in enumerate(CLASSES):
        mine = np.flatnonzero(np.asarray(labels) == k)
        picked = np.sort(rng.choice(mine, min(per_class, len(mine)), replace=False))
        for ax in grid[:, k]:
            ax.set_axis_off()
        for ax, place in zip(grid[:, k], picked, strict=False):
            ax.imshow(images[place], cmap="gray", vmin=0, vmax=255)
        grid[0, k].set_title(name, fontsize=11)
    return figure, None


def class_counts(counts, reference=None):
    """Draw how many images each class has, by part of the data (thesis, Fig. 3.2 and Table 3.1).

    Parameters
    ----------
    counts : dict of str to dict of str to int
        Usage, then class, to number of images, as a data fingerprint has it.
    reference : dict of str to int, optional
        The numbers that the thesis states, drawn as diamonds beside the bars.

    Returns
    -------
    figure : Figure
    data : DataFrame
        ``class``, ``usage``, ``n``; the thesis's numbers have ``usage`` "thesis".
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    place = np.arange(len(CLASSES))
    bottom = np.zeros(len(CLASSES))
    rows = []
    for usage, strength, hatch in zip(USAGES, (1.0, 0.65, 0.35), ("", "//", "\\\\"), strict=True):
        n = np.array([counts.get(usage, {}).get(name, 0) for name in CLASSES])
        colors = [class_style(name).color for name in CLASSES]
        ax.bar(place, n, bottom=bottom, color=colors, alpha=strength, hatch=hatch, edgecolor="white")
        bottom += n
        rows += [{"class": name, "usage": usage, "n": int(v)} for name, v in zip(CLASSES, n, strict=True)]
    for x, total in zip(place, bottom, strict=True):
        ax.annotate(f"{int(total):,}", (x, total), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    handles = [
        Patch(facecolor="#666666", alpha=strength, hatch=hatch, edgecolor="white", label=usage)
        for usage, strength, hatch in zip(USAGES, (1.0, 0.65, 0.35), ("", "//", "\\\\"), strict=True)
    ]
    if reference:
        ax.plot(place + 0.3, [reference[name] for name in CLASSES], "D", color="black", markersize=6)
        handles.append(Line2D([], [], marker="D", color="black", linestyle="none", label="thesis, Table 3.1"))
        rows += [{"class": name, "usage": "thesis", "n": reference[name]} for name in CLASSES]
    ax.set_xticks(place, CLASSES)
    ax.set_ylabel("Images")
    ax.grid(False, axis="x")
    ax.margins(y=0.1)
    ax.legend(handles=handles, ncols=len(handles), loc="upper center", bbox_to_anchor=(0.5, 1.14))
    return figure, pd.DataFrame(rows)


def plain_summary(summary, most=46):
    """Lay out Keras's summary without its box lines; if long, without the layers of a nested base."""
    rows = []
    for line in summary.splitlines():
        if line.strip() and not re.fullmatch(r"[\s━─┏┓┗┛┡┩├┤└┘┌┐┬┴┼┳┻╇╋╈]+", line):
            rows.append([cell.strip() for cell in re.split(r"[│┃]", line.strip().strip("│┃"))])
    nested = [row for row in rows if row[0].startswith("└")]
    if len(rows) > most and nested:
        place = rows.index(nested[0])
        rows = [row for row in rows if not row[0].startswith("└")]
        rows.insert(place, [f"   ... its {len(nested)} layers: see summary.txt"])
    if len(rows) > most:
        rows = [*rows[: most - 5], [f"... {len(rows) - most + 1} more lines: see summary.txt"], *rows[-4:]]
    table = [row for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in rows:
        if len(row) > 1:
            cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
            row = [*cells, row[-1].rjust(widths[-1])]
        lines.append("  ".join(row))
    return "\n".join(lines)


def model_output(history, summary, *, label, model=""):
    """Draw the "output" of one model: its summary beside its learning curves (thesis, Figs. 3.12 to 3.20).

    Parameters
    ----------
    history : DataFrame
        ``history.csv``: training columns bare, validation columns with ``val_``, test columns with ``test_``.
    summary : str
        Keras's summary.
    label : str
        The name that people read.
    model : str
        The name in the configuration, which decides the colour.

    Returns
    -------
    figure : Figure
    data : DataFrame
        ``epoch``, ``metric``, ``part``, ``value``.
    """
    text = plain_summary(summary)
    lines = text.splitlines() or [""]
    widest = max(map(len, lines))
    curves = ("accuracy", "loss", "precision", "recall", "f1", "auc")
    height = max(5.4, 0.14 * len(lines) + 0.6)
    figure = Figure(figsize=(12, height), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(5, 7))
    size = min(8.0, 4.7 * 72 / (0.61 * max(widest, 40)))
    left.suptitle(f"{label}: layers", fontsize=11)
    left.text(0.01, 0.93, text, family="DejaVu Sans Mono", fontsize=size, va="top", ha="left", linespacing=1.25)
    right.suptitle("Training (solid), validation (dashed), all test images where they differ (dotted)", fontsize=10)
    style = model_style(model or label)
    for ax, metric in zip(right.subplots(3, 2, sharex=True).flat, curves, strict=True):
        draw_pair(ax, history, metric, style)
        ax.set_title(
            {"f1": "F1 above 0.5", "precision": "Precision above 0.5", "recall": "Recall above 0.5"}.get(
                metric, NAMES[metric].split(" (")[0].split(",")[0]
            ),
            fontsize=9,
        )
        if metric != "loss":
            ax.set_ylim(0, 1)
        if ax.get_subplotspec().is_last_row():
            ax.set_xlabel("Epoch")
    return figure, tidy_curves(history, curves)


def tidy_curves(history, metrics):
    """Columns of a history as rows: ``epoch``, ``metric``, ``part`` (as `drawn_parts` has it), ``value``."""
    parts = [
        history[["epoch"]].assign(metric=metric, part=part, value=history[prefix + metric])
        for metric in metrics
        for part, prefix in drawn_parts(history, metric).items()
    ]
    return pd.concat(parts, ignore_index=True)


def drawn_parts(history, metric):
    """Return the parts of the data that a metric is drawn for, with the prefix of their column.

    The thesis validates on all test images, and its curves are judged on these. Where a training validated on
    others (the sound protocol), they are a part of their own, ``test``.
    """
    parts = {"training": "", "validation": "val_"}
    own = (history[f"test_{metric}"] != history[f"val_{metric}"]).any()
    return parts | ({"test": "test_"} if own else {})


# --- chapter 5 ------------------------------------------------------------------------------------------------


def draw_pair(ax, history, metric, style, *, thick=True):
    """Draw one metric's curves, training solid, validation dashed, all test images dotted, with markers where few."""
    few = len(history) <= 12
    width = {"linewidth": 1.8 if thick else 0.7, "alpha": 1.0 if thick else 0.55}
    marker = {"marker": style.marker, "markersize": 4} if few and thick else {}
    hollow = {**marker, "markerfacecolor": "white"} if marker else {}
    looks = {
        "training": {"linestyle": "-", "color": style.color, **marker},
        "validation": {"linestyle": "--", "color": INK, **hollow},
        "test": {"linestyle": ":", "color": "#777777", **hollow},
    }
    for part, prefix in drawn_parts(history, metric).items():
        ax.plot(history["epoch"], history[prefix + metric], **width, **looks[part])
    if history["epoch"].max() <= 12:
        ax.set_xticks(np.unique(np.linspace(1, history["epoch"].max(), 6).astype(int)))


def curves(results, metrics):
    """Draw metrics over epochs, a panel a model (Figs. 5.2, 5.3, 5.5-5.7).

    Training is solid, validation dashed, and all test images, where they are not the validation images, dotted.

    Parameters
    ----------
    results : list of ModelResult
        Several seeds of a model share its panel.
    metrics : sequence of str
        One block of panels each; all panels of a block share their axes.

    Returns
    -------
    figure : Figure
    data : DataFrame
        ``model``, ``label``, ``seed``, ``epoch``, ``metric``, ``part``, ``value``.
    """
    groups = by_model(results)
    figure, blocks = panels(len(groups), height=2.3, rows_of=len(metrics), sharex=True)
    tables = []
    for metric, axes in zip(metrics, blocks, strict=True):
        for ax, (model, seeds) in zip(axes, groups.items(), strict=True):
            for order, result in enumerate(seeds):
                draw_pair(ax, result.history, metric, model_style(model), thick=order == 0)
                table = tidy_curves(result.history, [metric])
                tables.append(table.assign(model=model, label=result.label, seed=result.seed))
            ax.set_title(short(seeds[0].label))
            if metric != "loss":
                ax.set_ylim(0, 1)
        share_y(axes)
        outer_labels(axes, min(COLUMNS, len(axes)), "Epoch", NAMES[metric].replace(", ", ",\n", 1))
    data = pd.concat(tables, ignore_index=True)
    looks = {
        "training": ("-", "training (in the model's colour)"),
        "validation": ("--", "validation"),
        "test": (":", "PublicTest and PrivateTest, the thesis's validation"),
    }
    parts = [part for part in looks if (data["part"] == part).any()]
    handles = [Line2D([], [], color=INK, linestyle=looks[part][0], label=looks[part][1]) for part in parts]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles) if len(groups) > 2 else 1)
    return figure, data[["model", "label", "seed", "epoch", "metric", "part", "value"]]


def share_y(axes):
    """Give panels one range of y, and label it on the leftmost only."""
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for place, ax in enumerate(axes):
        ax.set_ylim(low, high)
        if place % COLUMNS:
            ax.tick_params(labelleft=False)


def accuracy_bars(table, references=None, others=None):
    """Draw the accuracy of each model with its interval (thesis, Fig. 5.1).

    Parameters
    ----------
    table : DataFrame
        Rows of `statistics.headline` with metric ``accuracy``: ``model``, ``label``, ``part``, ``value``, ``low``,
        ``high``. Several parts give bars side by side.
    references : dict of str to float, optional
        Model to the accuracy that the thesis states for it; marked with a line.
    others : DataFrame, optional
        ``model``, ``part``, ``value`` of further seeds, drawn as dots.

    Returns
    -------
    figure : Figure
    data : DataFrame
        The table, with a column ``thesis``.
    """
    models = list(dict.fromkeys(table["model"]))
    parts = list(dict.fromkeys(table["part"]))
    figure = Figure(figsize=(min(WIDTH, 2.4 + 1.7 * len(models)), 4), layout="constrained")
    ax = figure.subplots()
    width = 0.8 / len(parts)
    for row in table.itertuples():
        style = model_style(row.model)
        shift = (parts.index(row.part) - (len(parts) - 1) / 2) * width
        x = models.index(row.model) + shift
        strength = 1.0 if row.part == parts[0] else 0.5
        ax.bar(x, row.value, width * 0.94, color=style.color, hatch=style.hatch, edgecolor="white", alpha=strength)
        reach = [[max(0, row.value - row.low)], [max(0, row.high - row.value)]]
        ax.errorbar(x, row.value, yerr=reach, color="black", capsize=4, linewidth=1.2)
        ax.annotate(f"{row.value:.3f}", (x, row.high), (0, 3), textcoords="offset points", ha="center", fontsize=9)
        if others is not None:
            more = others[(others["model"] == row.model) & (others["part"] == row.part)]["value"]
            ax.plot(np.full(len(more), x + width * 0.3), more, "o", color="black", markersize=3, fillstyle="none")
    references = {model: value for model, value in (references or {}).items() if model in models}
    labels = table.drop_duplicates("model").set_index("model")["label"]
    handles = [
        Patch(facecolor="#666666", alpha=1.0 if part == parts[0] else 0.5, label=PART_NAMES.get(part, part))
        for part in parts
    ]
    for model, value in references.items():
        x = models.index(model)
        stated = f"thesis, {labels[model]}: {value:.2f}"
        handles += ax.plot([x - 0.45, x + 0.45], [value, value], linestyle=(0, (4, 2)), **THESIS, label=stated)
    ax.set_xticks(range(len(models)), [short(labels[m]) for m in models])
    if len(models) > 5:
        ax.tick_params(axis="x", rotation=20)
    ax.set_xlim(-0.6, len(models) - 0.4)
    highest = max([table["high"].max(), table["value"].max(), *references.values()])
    ax.set_ylim(0, max(0.05, min(1.0, 1.12 * highest)))
    ax.set_ylabel("Accuracy")
    ax.grid(False, axis="x")
    figure.legend(handles=handles, ncols=len(handles), loc="outside upper center")
    return figure, table.assign(thesis=table["model"].map(references).astype(float))


#: How the parts of the data are called in legends and sentences.
PART_NAMES = {
    "train": "training images",
    "public": "PublicTest",
    "private": "PrivateTest",
    "test": "PublicTest and PrivateTest",
    "validation": "validation images",
}


def thinned(x, y, most=80):
    """Points of a curve, at most about `most`: those where the curve crosses even steps of its length."""
    if len(x) <= most:
        return x, y
    way = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    keep = np.unique(np.searchsorted(way, np.linspace(0, way[-1], most)))
    keep = np.unique(np.concatenate([[0], keep, [len(x) - 1]]))
    return x[keep], y[keep]


def roc_curves(results, part=None):
    """Draw one-vs-rest ROC curves of each class, a panel a model, with the AUC of each (thesis, Fig. 5.4).

    Parameters
    ----------
    results : list of ModelResult
        One for each panel.
    part : str or None
        Which images; None takes each training's final part.

    Returns
    -------
    figure : Figure
    data : DataFrame
        ``model``, ``label``, ``class``, ``auc``, ``false_positive_rate``, ``true_positive_rate``: the points
        drawn. A class without images has none.
    """
    columns = min(len(results), 2 if len(results) < 5 else 3)
    figure, (axes,) = panels(len(results), columns=columns, height=3.9 if columns <= 2 else 3.4)
    if columns == 2:
        figure.set_figwidth(9)
    tables = []
    for ax, result in zip(axes, results, strict=True):
        y_true, y_proba = result.select(part or result.final_part)
        truth = one_hot(y_true)
        ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        for k, name in enumerate(CLASSES):
            if not 0 < truth[:, k].sum() < len(truth):
                continue
            x, y, _ = sk.roc_curve(truth[:, k], y_proba[:, k])
            area = float(sk.auc(x, y))
            x, y = thinned(x, y)
            ax.plot(x, y, label=f"{name} {area:.2f}", linewidth=1.3, **class_style(name).line)
            tables.append(
                pd.DataFrame({"class": name, "auc": area, "false_positive_rate": x, "true_positive_rate": y}).assign(
                    model=result.model, label=result.label
                )
            )
        ax.set_title(short(result.label))
        ax.set_aspect("equal")
        ax.legend(loc="lower right", title="class, AUC", fontsize=8, title_fontsize=8, handlelength=2.6)
    outer_labels(axes, columns, "False positive rate", "True positive rate")
    columns = ["model", "label", "class", "auc", "false_positive_rate", "true_positive_rate"]
    data = pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    return figure, data


def confusion_matrices(result, part="test", per_class=140):
    """Draw the confusion matrix on a balanced sample and on all images (thesis, Fig. 5.8).

    Parameters
    ----------
    result : ModelResult
    part : str
        Which images.
    per_class : int
        Images a class in the balanced sample; a class with fewer gives all it has. Rows are in percent, so such a
        class still counts like the others. The claims are judged on the same sample.

    Returns
    -------
    figure : Figure
    data : DataFrame
        ``sample`` ("balanced" or "all") and the columns of `statistics.confusion`.
    """
    y_true, y_proba = result.select(part)
    y_pred = y_proba.argmax(axis=1)
    picked = statistics.balanced_sample(y_true, per_class)
    figure = Figure(figsize=(WIDTH, 5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    tables = []
    samples = (
        ("balanced", f"balanced: up to {per_class} a class, {len(picked):,} images", picked),
        ("all", f"all {len(y_true):,} images", np.arange(len(y_true))),
    )
    for ax, (name, title, rows) in zip(axes, samples, strict=True):
        table = statistics.confusion(y_true[rows], y_pred[rows])
        percent = table["percent"].to_numpy().reshape(len(CLASSES), -1)
        support = table.groupby("true", sort=False)["n"].sum()
        picture = ax.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        for i in range(len(CLASSES)):
            for j in range(len(CLASSES)):
                if np.isfinite(percent[i, j]):
                    color = "white" if percent[i, j] > 55 else "black"
                    ax.text(j, i, f"{percent[i, j]:.0f}", ha="center", va="center", color=color, fontsize=10)
        ax.set_title(title)
        ax.set_xticks(range(len(CLASSES)), CLASSES, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(len(CLASSES)), [f"{c}\n(n = {support[c]})" for c in CLASSES] if name == "all" else CLASSES)
        ax.set_xlabel("Predicted")
        ax.grid(False)
        ax.spines[:].set_visible(False)
        tables.append(table.assign(sample=name))
    axes[0].set_ylabel("True (n in the whole set)")
    figure.colorbar(picture, ax=axes, label="% of the true class", shrink=0.8)
    data = pd.concat(tables, ignore_index=True)[["sample", "true", "predicted", "n", "percent"]]
    return figure, data


def reliability_diagram(results, part=None, bins=15):
    """Draw confidence against accuracy, a panel a model, with the expected calibration error.

    Parameters
    ----------
    results : list of ModelResult
    part : str or None
        None takes each training's final part.
    bins : int

    Returns
    -------
    figure : Figure
    data : DataFrame
        ``model``, ``label``, ``ece`` and the columns of `statistics.reliability`.
    """
    figure, (axes,) = panels(len(results), height=3.0, sharex=True, sharey=True)
    tables = []
    for ax, result in zip(axes, results, strict=True):
        table = statistics.reliability(*result.select(part or result.final_part), bins=bins)
        error = statistics.calibration_error(table)
        style = model_style(result.model)
        middle, width = (table["low"] + table["high"]) / 2, 1 / bins
        ax.bar(middle, table["n"] / table["n"].sum(), width, color="#cccccc", label="share of images")
        ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="perfectly calibrated")
        ax.plot(table["confidence"], table["accuracy"], color=style.color, marker=style.marker, label="accuracy")
        ax.set_title(f"{short(result.label)}\nECE {error:.3f}")
        ax.set(xlim=(0, 1), ylim=(0, 1))
        tables.append(table.assign(model=result.model, label=result.label, ece=error))
    outer_labels(axes, min(COLUMNS, len(axes)), "Confidence", "Accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    columns = ["model", "label", "ece", "low", "high", "n", "confidence", "accuracy"]
    return figure, pd.concat(tables, ignore_index=True)[columns]


# --- what explains the differences ---------------------------------------------------------------------------


def threshold_curves(table):
    """Draw precision and recall against the threshold, a panel a model (claim F25).

    Parameters
    ----------
    table : DataFrame
        As from `explanations.threshold_curves`, with ``model`` and ``label``.

    Returns
    -------
    figure : Figure
    data : DataFrame
        The table.
    """
    models = list(dict.fromkeys(table["model"]))
    figure, (axes,) = panels(len(models), height=2.7, sharex=True, sharey=True)
    for ax, model in zip(axes, models, strict=True):
        mine = table[table["model"] == model]
        color = model_style(model).color
        ax.plot(mine["threshold"], mine["precision"], "-", color=color, label="precision")
        ax.plot(mine["threshold"], mine["recall"], "--", color=INK, label="recall")
        ax.axvline(0.5, color="black", linewidth=0.8, linestyle=":", label="threshold 0.5")
        ax.axhline(mine["accuracy"].iloc[0], color="#777777", linewidth=0.8, label="arg-max: both equal accuracy")
        ax.set_title(short(mine["label"].iloc[0]))
        ax.set(xlim=(0, 1), ylim=(0, 1.02))
    outer_labels(axes, min(COLUMNS, len(axes)), "Threshold", "All classes pooled")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure, table


def interval_dots(table, *, rows, color_by="model", xlabel="Accuracy"):
    """Draw values with intervals as dots, one line a row, the models in their colours.

    Parameters
    ----------
    table : DataFrame
        ``value``, ``low``, ``high``, the column `rows` and the columns ``model`` and ``label``.
    rows : str
        The column that names the lines.
    color_by : str
        The column with the model's name.
    xlabel : str

    Returns
    -------
    figure : Figure
    data : DataFrame
        The table.
    """
    lines = list(dict.fromkeys(table[rows]))
    models = list(dict.fromkeys(table[color_by]))
    figure = Figure(figsize=(8.5, 1.3 + 0.13 * len(lines) * (len(models) + 1)), layout="constrained")
    ax = figure.subplots()
    step = 0.75 / len(models)
    for row in table.itertuples():
        style = model_style(getattr(row, color_by))
        y = lines.index(getattr(row, rows)) + (models.index(getattr(row, color_by)) - (len(models) - 1) / 2) * step
        ax.plot([row.low, row.high], [y, y], color=style.color, linewidth=1.6)
        ax.plot(row.value, y, marker=style.marker, color=style.color, markersize=5)
    for line in range(1, len(lines)):
        ax.axhline(line - 0.5, color="#e5e5e5", linewidth=0.8)
    ax.set_yticks(range(len(lines)), lines)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.grid(False, axis="y")
    ax.set_xlabel(xlabel)
    labels = table.drop_duplicates(color_by).set_index(color_by)["label"]
    handles = [
        Line2D([], [], color=model_style(m).color, marker=model_style(m).marker, label=labels[m]) for m in models
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
    return figure, table


def selection_curves(results):
    """Draw the accuracy on PublicTest and PrivateTest over the epochs, marking the epoch each would select.

    Parameters
    ----------
    results : list of ModelResult
        One for each panel.

    Returns
    -------
    figure : Figure
    data : DataFrame
        ``model``, ``label``, ``epoch``, ``public``, ``private``, ``both``.
    """
    figure, (axes,) = panels(len(results), height=2.7, sharex=True, sharey=True)
    tables = []
    for ax, result in zip(axes, results, strict=True):
        history, style = result.history, model_style(result.model)
        for part, line, color, marker in (("public", "--", INK, "v"), ("private", "-", style.color, "o")):
            values = history[f"{part}_accuracy"]
            best = values.idxmax()
            ax.plot(history["epoch"], values, line, color=color, linewidth=1.4)
            ax.plot(history["epoch"][best], values[best], marker, color=color, markersize=8, markeredgecolor="white")
        ax.set_title(short(result.label))
        table = history[["epoch"]].assign(model=result.model, label=result.label)
        for name, column in (("public", "public"), ("private", "private"), ("both", "test")):
            table[name] = history[f"{column}_accuracy"]
        tables.append(table)
    outer_labels(axes, min(COLUMNS, len(axes)), "Epoch", "Accuracy")
    figure.legend(
        handles=[
            Line2D([], [], color=INK, linestyle="--", marker="v", label="PublicTest, marked at its best epoch"),
            Line2D([], [], color="#777777", marker="o", label="PrivateTest, marked at its best epoch"),
        ],
        loc="outside upper center",
        ncols=2,
    )
    data = pd.concat(tables, ignore_index=True)[["model", "label", "epoch", "public", "private", "both"]]
    return figure, data
