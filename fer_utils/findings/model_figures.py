"""The figures of one model's notebook: its network, and its learning curves with Keras's summary ("output").

A notebook shows each in one line; saving and the caption are included.
"""

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fer_utils.constants import CLASSES, IMAGE_SIZE
from fer_utils.errors import ConfigError
from fer_utils.findings import diagrams
from fer_utils.findings.figures import GREY, INK, STYLE, folded, model_style, publish
from fer_utils.metrics import METRIC_NAMES

#: Prefix of a column of ``history.csv``, dashes of the curve, and name in the legend, for each part of the data.
PARTS = {
    "training": ("", "", "training"),
    "validation": ("val_", (4, 1.5), "validation"),
    "test": ("test_", (1, 1.5), "PublicTest and PrivateTest"),
}
FEW = 12  # epochs up to which curves have markers
#: The thesis's figures of its four networks: the network, its output.
THESIS_FIGURES = {
    "traditional_cnn": ("3.5", "3.12"),
    "resnet50": ("3.13", "3.15"),
    "vgg16": ("3.16", "3.18"),
    "mobilenet_v3": ("3.19", "3.20"),
}


def figure_number(model, place):
    """Return the thesis's number for its own models; a number of its own, such as ``my_model.1``, for any other."""
    return THESIS_FIGURES[model][place] if model in THESIS_FIGURES else f"{model}.{place + 1}"


def show_network(architecture, *, model, label, folder):
    """Draw, save and show a network by its stages (thesis, Figures 3.5, 3.13, 3.14, 3.16, 3.17 and 3.19).

    Parameters
    ----------
    architecture : dict
        From `fer_utils.training.architecture.describe`.
    model, label : str
        The model's name in ``config.yaml``, and the name that people read.
    folder : path
        Where SVG, PNG and CSV go.

    Returns
    -------
    Displayable

    Raises
    ------
    ConfigError
        If it is no network from 48x48 grey pixels to the seven classes: said here, before anything is trained.
    """
    ends = {"input": (architecture["input_shape"], [IMAGE_SIZE, IMAGE_SIZE, 1], "grey pixels from 0 to 255")}
    ends["output"] = (architecture["output_shape"], [len(CLASSES)], "a probability per class")
    for end, (shape, wanted, what) in ends.items():
        if shape not in ([], wanted):  # a subclassed network does not say
            raise ConfigError(f"make_model: the network's {end} has the shape {shape}; expected {wanted}, {what}")
    with mpl.rc_context(STYLE):
        figure, data = diagrams.draw(architecture)
    size, layers = architecture["parameters"], data["weight_layers"].sum()
    branches = diagrams.has_branches(architecture)
    path = "in parallel branches, drawn one after the other" if branches else "on the main path"
    steps = "; ".join(f"{row.stage} {row.output_shape}" for row in data.itertuples())
    return publish(
        figure,
        data,
        number=figure_number(model, 0),
        slug=f"network-{model}",
        title=f"{label}: the network by its stages",
        caption=f"{size['total']:,} parameters, {size['trainable']:,} of them trained; {layers} convolutions and dense "
        f"layers {path}. A box is a block or a layer: height by the side of its feature map, width by its "
        "channels.",
        alt=f"Boxes from left to right, one group per stage, with the shape that leaves it: {steps}.",
        folder=folder,
    )


def show_output(history, summary, *, model, label, folder):
    """Draw, save and show a model's learning curves, with Keras's summary folded below (thesis, Figs. 3.12 to 3.20).

    Parameters
    ----------
    history : DataFrame
        As ``history.csv``: ``epoch``, and each metric of the training, of the validation (``val_``) and of all test
        images (``test_``).
    summary : str
        From `fer_utils.training.architecture.summary_text`.
    model, label, folder
        As in `show_network`.
    """
    metrics = list(METRIC_NAMES)[:6]
    data = tidy_curves(history, metrics)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 5), layout="constrained")
        for ax, metric in zip(figure.subplots(2, 3, sharex=True).flat, metrics, strict=True):
            ax.set(title=METRIC_NAMES[metric], xlabel="Epoch" if ax.get_subplotspec().is_last_row() else "")
            draw_curves(ax, data[data["metric"] == metric], model)
            ax.set_ylim(0, None if metric == "loss" else 1)
        curve_legend(figure, data)
    last = data[data["epoch"] == data["epoch"].max()].pivot(index="metric", columns="part", values="value")
    ends = ", ".join(f"{m} {last.at[m, 'training']:.3f} and {last.at[m, 'validation']:.3f}" for m in metrics)
    shown = publish(
        figure,
        data,
        number=figure_number(model, 1),
        slug=f"output-{model}",
        title=f"{label}: learning curves",
        caption="The metrics of Table 5.1 after each epoch. For precision, recall and F1 a class counts as predicted "
        "when its probability is above 0.5; all classes are pooled.",
        alt=f"Six line charts over {len(history)} epochs. In the last one, training and validation: {ends}.",
        folder=folder,
    )
    return shown + folded(f"Layers of {label}, as Keras prints them", summary)


def tidy_curves(history, metrics):
    """Return columns of a history as rows: ``epoch``, ``metric``, ``part`` (a key of `PARTS`), ``value``.

    The thesis validates on all test images. Where a training validated on others (the sound protocol), all test images
    are a part of their own.
    """
    kept = [
        (metric, part, prefix)
        for metric in metrics
        for part, (prefix, _, _) in PARTS.items()
        if part != "test" or (history[f"test_{metric}"] != history[f"val_{metric}"]).any()
    ]
    tables = [history[["epoch"]].assign(metric=m, part=part, value=history[prefix + m]) for m, part, prefix in kept]
    return pd.concat(tables, ignore_index=True)


def draw_curves(ax, data, model):
    """Draw one metric's curves: training in the model's colour, validation dashed, all test images dotted."""
    style, labels = model_style(model), {"xlabel": ax.get_xlabel(), "ylabel": ax.get_ylabel()}
    seeds = sorted(data["seed"].unique()) if "seed" in data else [0]
    sns.lineplot(
        data.assign(seed=data.get("seed", 0)),
        x="epoch",
        y="value",
        hue="part",
        palette={"training": style.color, "validation": INK, "test": GREY},
        style="part",
        dashes={part: dashes for part, (_, dashes, _) in PARTS.items()},
        markers=dict.fromkeys(PARTS, style.marker) if data["epoch"].max() <= FEW else False,
        size="seed",
        sizes={seed: 1.8 if seed == seeds[0] else 0.7 for seed in seeds},
        legend=False,
        ax=ax,
    )
    ax.set(**labels)  # seaborn fills empty ones
    ax.xaxis.get_major_locator().set_params(integer=True)


def curve_legend(figure, data, columns=3):
    """Say above the panels how the parts of the data are drawn."""
    shown = [(dashes, name) for part, (_, dashes, name) in PARTS.items() if part in set(data["part"])]
    handles = [Line2D([], [], color=INK, linestyle=(0, dashes or ()), label=name) for dashes, name in shown]
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)
