"""The figures of chapter 5 and of the audit, from trainings or from plain tables.

Every function returns a matplotlib figure and, as a tidy table, what is drawn, both for `figures.publish`. `results`
are trainings, as `results.read_run` gives them; a panel shows one model.
"""

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from sklearn.metrics import auc, roc_curve

from fer_utils.constants import CLASSES
from fer_utils.findings import statistics
from fer_utils.findings.figures import GREY, INK, class_style, model_style
from fer_utils.findings.model_figures import curve_legend, draw_curves, tidy_curves
from fer_utils.metrics import METRIC_NAMES

WIDTH, COLUMNS = 10.0, 4  # inches of the page, panels side by side

#: How the parts of the data are called in legends and sentences.
PART_NAMES = {
    "train": "training images",
    "public": "PublicTest",
    "private": "PrivateTest",
    "test": "PublicTest and PrivateTest",
}


def wrapped(label, width):
    """Break a label into lines between its words."""
    return textwrap.fill(label, width, break_long_words=False)


def panels(labels, xlabel, *ylabels, columns=COLUMNS, height=2.5):
    """Make a panel per label for each y label, `columns` in a row; return the figure and a list of axes per y label."""
    columns = min(columns, len(labels))
    rows = -(-len(labels) // columns)
    size = ({1: 4.8, 2: 8.0}.get(columns, WIDTH), height * rows * len(ylabels) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows * len(ylabels), columns, squeeze=False, sharex=True)
    blocks = [list(grid[block * rows : (block + 1) * rows].flat) for block in range(len(ylabels))]
    for axes, ylabel in zip(blocks, ylabels, strict=True):
        for ax in axes[len(labels) :]:
            ax.remove()
        del axes[len(labels) :]
        for place, (ax, label) in enumerate(zip(axes, labels, strict=True)):
            left, lowest = place % columns == 0, place + columns >= len(labels)
            ax.set(title=wrapped(label, 22), ylabel=ylabel if left else "", xlabel=xlabel if lowest else "")
            if place:
                ax.sharey(axes[0])
            ax.tick_params(labelleft=left, labelbottom=lowest)
    return figure, blocks


def stack(results, compute):
    """Stack a table per training, with the training's ``model``, ``label`` and ``seed``."""
    tables = [compute(result).assign(model=result.model, label=result.label, seed=result.seed) for result in results]
    return pd.concat(tables, ignore_index=True)


def labels_of(table):
    """Return the label of each model of a table, in the table's order."""
    return table.drop_duplicates("model").set_index("model")["label"]


def curves(results, metrics):
    """Draw metrics over the epochs (thesis, Figs. 5.2, 5.3, 5.5 to 5.7), one block of panels for each metric.

    Seeds of a model share its panel: the first is drawn thick, the others thin. `metrics` are keys of `METRIC_NAMES`.
    The data are ``model``, ``label``, ``seed``, ``epoch``, ``metric``, ``part`` and ``value``.
    """
    data = stack(results, lambda result: tidy_curves(result.history, metrics))
    labels = labels_of(data)
    figure, blocks = panels(labels, "Epoch", *(METRIC_NAMES[metric] for metric in metrics))
    for metric, axes in zip(metrics, blocks, strict=True):
        for ax, model in zip(axes, labels.index, strict=True):
            draw_curves(ax, data[(data["model"] == model) & (data["metric"] == metric)], model)
        axes[0].set_ylim(0, None if metric == "loss" else 1)
    curve_legend(figure, data, columns=1 if len(labels) == 1 else 3)
    return figure, data[["model", "label", "seed", "epoch", "metric", "part", "value"]]


def draw_bars(ax, table, x, hue, look):
    """Draw ``value`` as bars with whiskers from ``low`` to ``high``, those of one `x` side by side.

    `look` maps a row to keyword arguments of ``Axes.bar``. Returns the bars' places in the order of the rows.
    """
    order, hues = list(dict.fromkeys(table[x])), list(dict.fromkeys(table[hue]))
    width = 0.8 / len(hues)
    places = table[x].map(order.index) + (table[hue].map(hues.index) - (len(hues) - 1) / 2) * width
    for place, (_, row) in zip(places, table.iterrows(), strict=True):
        reach = [[max(0, row["value"] - row["low"])], [max(0, row["high"] - row["value"])]]
        ax.bar(place, row["value"], width * 0.94, yerr=reach, capsize=min(4, 20 * width), **look(row))
    ax.set_xticks(range(len(order)), order)
    ax.grid(False, axis="x")
    return places


def accuracy_bars(table, references=None, others=None):
    """Draw the accuracy of each model with its interval (thesis, Fig. 5.1).

    Parameters
    ----------
    table : DataFrame
        Rows of `statistics.headline` with metric ``accuracy``. Several parts give bars side by side.
    references : dict of str to float, optional
        Model to the accuracy that the thesis states for it; marked with a line.
    others : DataFrame, optional
        ``model``, ``part``, ``value`` of further seeds, drawn as circles.
    """
    labels, parts = labels_of(table), list(dict.fromkeys(table["part"]))
    references = {model: value for model, value in (references or {}).items() if model in labels}
    figure = Figure(figsize=(min(WIDTH, 2.4 + 1.7 * len(labels)), 4), layout="constrained")
    ax = figure.subplots()
    alpha = {part: 1.0 if part == parts[0] else 0.5 for part in parts}
    handles = [Patch(facecolor="#666666", alpha=alpha[part], label=PART_NAMES.get(part, part)) for part in parts]
    for model, value in references.items():
        x = list(labels.index).index(model)
        look = {"color": "black", "linestyle": (0, (4, 2)), "label": f"thesis, {labels[model]}: {value:.2f}"}
        handles += ax.plot([x - 0.45, x + 0.45], [value, value], linewidth=1.4, **look)
    places = draw_bars(ax, table, "model", "part", lambda r: model_style(r["model"]).bar | {"alpha": alpha[r["part"]]})
    for place, row in zip(places, table.itertuples(), strict=True):
        text = {"ha": "center", "fontsize": 9, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.5}}
        text |= {"rotation": 90, "fontsize": 8} if len(table) > 12 else {}
        ax.annotate(f"{row.value:.3f}", (place, max(row.high, row.value)), (0, 4), textcoords="offset points", **text)
        if others is not None:
            more = others[(others["model"] == row.model) & (others["part"] == row.part)]["value"]
            ax.plot([place + 0.24 / len(parts)] * len(more), more, "o", color="black", markersize=3, fillstyle="none")
    tilt = {"rotation": 20, "ha": "right"} if len(labels) > 5 else {}
    ax.set_xticks(range(len(labels)), [wrapped(label, 20) for label in labels], **tilt)
    highest = max([table["high"].max(), table["value"].max(), *references.values()])
    ax.set(ylim=(0, max(0.05, min(1.0, 1.12 * highest))), ylabel="Accuracy")
    figure.legend(handles=handles, ncols=len(handles), loc="outside upper center")
    return figure, table.assign(thesis=table["model"].map(references).astype(float))


def class_scores(table):
    """Draw the F1 of each class and model with its interval.

    `table` holds ``model``, ``label`` and the columns of `statistics.class_intervals`; the data are its rows drawn.
    """
    rows = table[table["metric"] == "f1"]
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    ax = figure.subplots()
    draw_bars(ax, rows, "class", "model", lambda row: model_style(row["model"]).bar)
    ax.set(ylim=(0, 1), ylabel="F1")
    handles = [Patch(**model_style(model).bar, label=label) for model, label in labels_of(rows).items()]
    figure.legend(handles=handles, ncols=min(4, len(handles)), loc="outside upper center")
    return figure, rows


def thinned(x, y, most=80):
    """Keep about `most` points of a curve: those where it crosses even steps of its length."""
    if len(x) <= most:
        return x, y
    way = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    keep = np.unique([0, *np.searchsorted(way, np.linspace(0, way[-1], most)), len(x) - 1])
    return x[keep], y[keep]


def roc_curves(results, part):
    """Draw one-vs-rest ROC curves of each class with the AUC of each (thesis, Fig. 5.4).

    The data are ``model``, ``label``, ``class``, ``auc``, ``false_positive_rate`` and ``true_positive_rate``: the
    points drawn. A class without images, or without others, has none.
    """
    columns, axis_names = 2 if len(results) < 5 else 3, ("False positive rate", "True positive rate")
    figure, (axes,) = panels([result.label for result in results], *axis_names, columns=columns, height=3.9)
    tables = [pd.DataFrame(columns=["model", "label", "class", "auc", "false_positive_rate", "true_positive_rate"])]
    for ax, result in zip(axes, results, strict=True):
        y_true, y_proba = result.select(part)
        ax.axline((0, 0), (1, 1), color="#999999", linewidth=0.8)
        for k, name in enumerate(CLASSES):
            if 0 < (y_true == k).sum() < len(y_true):
                x, y, _ = roc_curve(y_true == k, y_proba[:, k])
                area, (x, y) = auc(x, y), thinned(x, y)
                ax.plot(x, y, linewidth=1.3, label=f"{name} {area:.2f}", **class_style(name).line)
                names = {"model": result.model, "label": result.label, "class": name, "auc": area}
                tables.append(pd.DataFrame(names | {"false_positive_rate": x, "true_positive_rate": y}))
        ax.set(aspect="equal")
        ax.legend(loc="lower right", title="class, AUC", fontsize=8, title_fontsize=8, handlelength=2.6)
    return figure, pd.concat(tables[1:] or tables, ignore_index=True)[tables[0].columns]


def confusion_matrices(result, part="test", per_class=140):
    """Draw the confusion matrix on a balanced sample and on all images, in percent of each true class (Fig. 5.8).

    A class with fewer than `per_class` images gives all it has to the balanced sample. The data are ``sample``
    ("balanced" or "all") and the columns of `statistics.confusion`.
    """
    y_true, y_proba = result.select(part)
    picked = statistics.balanced_sample(y_true, per_class)
    samples = {
        "balanced": (f"balanced: up to {per_class} per class, {len(picked):,} images", picked),
        "all": (f"all {len(y_true):,} images", np.arange(len(y_true))),
    }
    figure = Figure(figsize=(WIDTH, 5), layout="constrained")
    tables = []
    for ax, (name, (title, rows)) in zip(figure.subplots(1, 2), samples.items(), strict=True):
        table = statistics.confusion(y_true[rows], y_proba[rows].argmax(axis=1))
        percent = table.pivot(index="true", columns="predicted", values="percent").loc[list(CLASSES), list(CLASSES)]
        n = table.groupby("true")["n"].sum()
        look = {"annot": True, "fmt": ".0f", "cmap": "Blues", "vmin": 0, "vmax": 100, "square": True, "cbar": False}
        sns.heatmap(percent, **look, yticklabels=[f"{c} ({n[c]:,})" for c in CLASSES], ax=ax)
        ax.set(title=title, xlabel="Predicted", ylabel="True (images)" if name == "balanced" else "")
        ax.tick_params(axis="x", rotation=40)
        tables.append(table.assign(sample=name))
    figure.colorbar(ax.collections[0], ax=figure.axes, label="% of the true class", shrink=0.8)
    return figure, pd.concat(tables, ignore_index=True)[["sample", "true", "predicted", "n", "percent"]]


def reliability_diagram(results):
    """Draw accuracy against confidence, with the expected calibration error (ECE).

    Images are those of each training's final part. The data are ``model``, ``label``, ``ece`` and the
    columns of `statistics.reliability`.
    """

    def compute(result):
        table = statistics.reliability(*result.select(result.final_part))
        return table.assign(ece=statistics.calibration_error(table))

    data = stack(results, compute)
    figure, (axes,) = panels(labels_of(data), "Confidence", "Accuracy", height=3.0)
    for ax, (model, rows) in zip(axes, data.groupby("model", sort=False), strict=True):
        style, share = model_style(model), rows["n"] / rows["n"].sum()
        middle, width = (rows["low"] + rows["high"]) / 2, 1 / len(rows)
        ax.bar(middle, share, width, color="#cccccc", label="share of images")
        ax.plot([0, 1], [0, 1], "--", color="black", linewidth=0.8, label="perfectly calibrated")
        ax.plot(rows["confidence"], rows["accuracy"], color=style.color, marker=style.marker, label="accuracy")
        ax.set(xlim=(0, 1), ylim=(0, 1), title=f"{ax.get_title()}\nECE {rows['ece'].iloc[0]:.3f}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure, data[["model", "label", "ece", "low", "high", "n", "confidence", "accuracy"]]


def threshold_curves(table):
    """Draw precision and recall against the threshold (claim F25), from a table of `explanations.threshold_curves`."""
    figure, (axes,) = panels(labels_of(table), "Threshold", "All classes pooled")
    for ax, (model, rows) in zip(axes, table.groupby("model", sort=False), strict=True):
        ax.plot(rows["threshold"], rows["precision"], color=model_style(model).color, label="precision")
        ax.plot(rows["threshold"], rows["recall"], "--", color=INK, label="recall")
        ax.axvline(0.5, color="black", linewidth=0.8, linestyle=":", label="threshold 0.5")
        ax.axhline(rows["accuracy"].iloc[0], color=GREY, linewidth=0.8, label="arg-max: both equal accuracy")
        ax.set(xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure, table


def interval_dots(table, *, rows):
    """Draw accuracies with intervals as dots, one line per value of the column `rows`, the models in their colours.

    `table` has ``model``, ``label``, ``value``, ``low``, ``high`` and the column `rows`; the data are the table.
    """
    lines, labels = list(dict.fromkeys(table[rows])), labels_of(table)
    figure = Figure(figsize=(8.5, 1.3 + 0.13 * len(lines) * (len(labels) + 1)), layout="constrained")
    ax = figure.subplots()
    for place, (model, mine) in enumerate(table.groupby("model", sort=False)):
        y = mine[rows].map(lines.index) + (place - (len(labels) - 1) / 2) * 0.75 / len(labels)
        style = {"color": model_style(model).color, "marker": model_style(model).marker, "label": labels[model]}
        ax.hlines(y, mine["low"], mine["high"], color=style["color"], linewidth=1.6)
        ax.plot(mine["value"], y, linestyle="none", markersize=5, **style)
    ax.set_yticks(range(len(lines)), lines)
    ax.set_yticks(np.arange(1, len(lines)) - 0.5, minor=True)
    ax.tick_params(axis="y", which="minor", length=0)
    ax.grid(False, axis="y")
    ax.grid(True, axis="y", which="minor")
    ax.set(ylim=(len(lines) - 0.5, -0.5), xlabel="Accuracy")
    figure.legend(loc="outside upper center", ncols=min(4, len(labels)))
    return figure, table


def selection_curves(results):
    """Draw the accuracy on PublicTest and PrivateTest over the epochs, and mark the epoch that each would select.

    The data are ``model``, ``label``, ``epoch``, ``public``, ``private``, ``both``.
    """
    names = {"public_accuracy": "public", "private_accuracy": "private", "test_accuracy": "both"}
    data = stack(results, lambda result: result.history[["epoch", *names]].rename(columns=names))
    figure, (axes,) = panels(labels_of(data), "Epoch", "Accuracy")
    for ax, (model, rows) in zip(axes, data.groupby("model", sort=False), strict=True):
        for part, line, color, marker in (("public", "--", INK, "v"), ("private", "-", model_style(model).color, "o")):
            best = [rows[part].argmax()]
            style = {"color": color, "marker": marker, "markersize": 8, "markeredgecolor": "white", "linewidth": 1.4}
            ax.plot(rows["epoch"], rows[part], line, markevery=best, **style)
        ax.xaxis.get_major_locator().set_params(integer=True)
    texts = ("PublicTest, marked at its best epoch", "PrivateTest, marked at its best epoch")
    handles = [
        Line2D([], [], color=INK, linestyle="--", marker="v", label=texts[0]),
        Line2D([], [], color=GREY, marker="o", label=texts[1]),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure, data[["model", "label", "epoch", "public", "private", "both"]]
