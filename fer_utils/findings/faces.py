"""Faces behind the numbers: those of wrong cells of a confusion matrix, the surest mistakes, and Grad-CAM of a few."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fer_utils.constants import CLASSES, IMAGE_SIZE, PROBABILITY_COLUMNS
from fer_utils.data.dataset import load
from fer_utils.errors import DataError, ResultsError
from fer_utils.findings import statistics
from fer_utils.findings.figures import GREY, PALETTE, paragraph, publish
from fer_utils.findings.results import read_object

SUREST = "the surest mistakes"

#: Where an image and its map lie in a panel.
EXTENT = (0, IMAGE_SIZE, IMAGE_SIZE, 0)


def pick(result, cells=3, faces=4):
    """Choose test images that a model got wrong.

    Parameters
    ----------
    result : ModelResult
    cells : int
        Confusions to show, those with the largest percentage of their true class; an image of each is drawn at random.
    faces : int
        Images of each, and of the mistakes with the highest probability.

    Returns
    -------
    DataFrame
        ``shown`` (the row of the figure), ``id``, ``true``, ``predicted``, ``confidence`` and the seven probabilities.
    """
    table = result.predictions[result.mask("test")].sort_values("id", kind="stable")
    names, proba = np.array(CLASSES), table[list(PROBABILITY_COLUMNS)].to_numpy()
    label, guess = table["label"].to_numpy(dtype=np.int64), proba.argmax(axis=1)
    table = table.assign(true=names[label], predicted=names[guess], confidence=proba.max(axis=1))
    wrong = table[label != guess]
    counted = statistics.confusion(label, guess)
    counted = counted[(counted["true"] != counted["predicted"]) & (counted["n"] > 0)]
    chosen = []
    for cell in counted.nlargest(cells, "percent").itertuples():
        found = wrong[(wrong["true"] == cell.true) & (wrong["predicted"] == cell.predicted)]
        shown = f"{cell.true} taken for {cell.predicted}, {cell.percent:.0f}%"
        chosen.append(found.sample(min(faces, len(found)), random_state=0).assign(shown=shown))
    chosen.append(wrong.nlargest(faces, "confidence").assign(shown=SUREST))
    columns = ["shown", "id", "true", "predicted", "confidence", *PROBABILITY_COLUMNS]
    return pd.concat(chosen, ignore_index=True)[columns]


def images_of(run, ids):
    """Read images of the run's own data by their id: dict of id to ndarray of uint8, shape (48, 48).

    Raises
    ------
    ResultsError
        If the data are not on this machine, or are not those that the run was made on.
    """
    source = run.plan.get("data_path") or run.models[0].record["parameters"].get("data", "")
    try:
        if source != "synthetic" and not (source and Path(source).exists()):
            raise DataError("they are not on this machine")
        dataset = load(source, on_message=[].append)
        places = {name: place for place, name in enumerate(dataset.ids)}
        if dataset.fingerprint["sha256"] != run.models[0].record["data"]["fingerprint"] or not set(ids) <= set(places):
            raise DataError("those at that place are other ones")
    except DataError as error:
        raise ResultsError(f"Faces cannot be shown without the data that the run was made on: {error}.") from error
    return {name: dataset.images[places[name]] for name in ids}


def show(run, rows, draw, *, number, slug, folder, **names):
    """Draw faces and publish the figure; without the data say so, but show that of a published set.

    `draw` is `draw` or `draw_gradcam`; the rest is as in `figures.publish`.
    """
    try:
        figure, data = draw(rows, images_of(run, rows["id"]))
    except ResultsError as reason:
        if not (run.plan.get("published") and (Path(folder) / f"fig-{number}-{slug}.png").exists()):
            return paragraph(str(reason))
        figure = data = None
    return publish(figure, data, number=number, slug=slug, folder=folder, **names)


def draw(rows, images):
    """Draw the images of `pick`, a row each, with the seven probabilities beside each.

    Returns the figure and the rows, for `figures.publish`.
    """
    most = int(rows.groupby("shown").size().max())
    groups = rows.groupby("shown", sort=False)
    figure = Figure(figsize=(10, 1.5 * len(groups) + 0.4), layout="constrained")
    grid = figure.subplots(len(groups), 2 * most, squeeze=False, width_ratios=[4, 3] * most)
    for axes, (shown, found) in zip(grid, groups, strict=True):
        for ax in axes:
            ax.set_axis_off()
        axes[0].set_title(shown.capitalize(), loc="left", fontsize=9, fontweight="bold")
        for place, row in enumerate(found.to_dict("records")):
            face, bars = axes[2 * place : 2 * place + 2]
            face.imshow(images[row["id"]], cmap="gray", vmin=0, vmax=255, interpolation="none")
            face.set_anchor("N")  # below the title, which is wider than the image
            colours = {row["true"]: PALETTE[0], row["predicted"]: PALETTE[3]}
            values = [row[name] for name in PROBABILITY_COLUMNS]
            bars.barh(range(len(CLASSES)), values, color=[colours.get(name, GREY) for name in CLASSES])
            bars.set(xlim=(0, 1), ylim=(len(CLASSES) - 0.5, -0.5), xticks=[])
            bars.set_yticks(range(len(CLASSES)), CLASSES, fontsize=6.5)
            bars.set_axis_on()
            bars.tick_params(length=0)
            bars.grid(visible=False)
    handles = [Patch(color=PALETTE[0], label="true class"), Patch(color=PALETTE[3], label="predicted class")]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure, rows


def read_gradcam(run):
    """Read ``gradcam.json`` of a run folder.

    Returns
    -------
    found : dict
        ``model``, ``seed``, ``label``, ``layer`` and ``shape`` (rows and columns of a map).
    faces : DataFrame
        ``id``, ``true``, ``predicted``, ``confidence``, ``right`` and ``map`` (list of rows of floats from 0 to 1).

    Raises
    ------
    ResultsError
        With the reason why there are no maps.
    """
    found, broken = read_object(run.folder / "gradcam.json")
    if "faces" not in found:
        absent = "Grad-CAM needs a network's weights, and ./run_all.sh makes it at the end of a run."
        raise ResultsError(found.get("reason") or broken or absent)
    return found, pd.DataFrame(found.pop("faces"))


def draw_gradcam(rows, images):
    """Draw the faces of `read_gradcam`, right ones above wrong ones, and below each the same under its map.

    Returns the figure and the cells of the maps in tidy form, for `figures.publish`.
    """
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    grid = figure.subplots(4, len(CLASSES), squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for row in rows.to_dict("records"):
        top, column = 0 if row["right"] else 2, CLASSES.index(row["true"])
        said = row["true"] if row["right"] else f"{row['true']} as {row['predicted']}"
        grid[top, column].set_title(f"{said} {row['confidence']:.2f}", fontsize=8)
        for ax in grid[top : top + 2, column]:
            ax.imshow(images[row["id"]], cmap="gray", vmin=0, vmax=255, interpolation="none", extent=EXTENT)
        # Each cell covers the part of the face that it was computed from, and values between centres are interpolated.
        grid[top + 1, column].imshow(
            row["map"], cmap="inferno", vmin=0, vmax=1, alpha=0.55, interpolation="bilinear", extent=EXTENT
        )
    tidy = rows.explode("map", ignore_index=True)
    tidy["row"] = tidy.groupby("id", sort=False).cumcount()
    tidy = tidy.explode("map", ignore_index=True).rename(columns={"map": "value"})
    tidy["column"] = tidy.groupby(["id", "row"], sort=False).cumcount()
    return figure, tidy
