"""Grad-CAM (Selvaraju et al., 2017) of a run's best network: which parts of a face speak for the class that it gives.

Run as ``python -m fer_utils.training.gradcam`` in a run folder; it writes ``gradcam.json`` there, which the audit
draws. No training calls this module, so that a change here trains nothing again (`APART` in `fer_utils.provenance`).
"""

import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS
from fer_utils.data.dataset import load as load_dataset
from fer_utils.errors import DataError, FerError, ResultsError
from fer_utils.files import read_json, write_json
from fer_utils.training.faces import choose, load

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.Model)

#: How far a probability may lie from the recorded one: another processor rounds bfloat16 in another order.
TOLERANCE = 0.05


def watch(layer, seen):
    """Have a layer append its name and its output to a list at each call."""
    call = layer.call

    def watched(*arguments, **options):
        output = call(*arguments, **options)
        seen.append((layer.name, output))
        return output

    layer.call = watched


def heat_maps(network, faces, classes):
    """Compute Grad-CAM for the network's last convolution, after equations 1 and 2 of Selvaraju et al.

    Parameters
    ----------
    network : keras.Model
        From 48x48 grey pixels to the softmax of seven classes, which its last layer computes. A network inside it, such
        as a base with ImageNet weights, counts as one convolution.
    faces : ndarray of uint8, shape (n, 48, 48)
    classes : ndarray of int, shape (n,)
        The class to explain of each face, as an index of `CLASSES`.

    Returns
    -------
    maps : ndarray of float32, shape (n, height, width)
        0 where nothing speaks for the class; not scaled.
    proba : ndarray of float32, shape (n, 7)
    layer : str
        Name of the convolution.

    Raises
    ------
    ResultsError
        If no convolution has more than one cell, or the last layer is no softmax.
    """
    seen, last = [], network.layers[-1]
    if getattr(last, "activation", None) is not keras.activations.softmax:
        raise ResultsError("Grad-CAM needs the score before softmax, and this network's last layer is none with it.")
    convolutions = [layer for layer in network.layers if isinstance(layer, CONVOLUTIONS)]
    for layer in convolutions:
        watch(layer, seen)
    activation, last.activation = last.activation, keras.activations.linear  # the paper takes the score before softmax
    try:
        with tf.GradientTape() as tape:
            scores = network(faces[..., np.newaxis].astype("float32"), training=False)
            # No face depends on another one, so that the gradient of the sum is that of each.
            explained = tf.reduce_sum(tf.gather(scores, classes, axis=1, batch_dims=1))
        grids = [(name, grid) for name, grid in seen if len(grid.shape) == 4 and grid.shape[1] * grid.shape[2] > 1]
        if not grids:
            raise ResultsError("Grad-CAM needs a convolution with more than one cell, and this network has none.")
        layer, grid = grids[-1]
        gradient = tape.gradient(explained, grid, unconnected_gradients="zero")
        weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    finally:
        last.activation = activation
        for convolution in convolutions:
            del convolution.call
    maps = tf.nn.relu(tf.reduce_sum(weights * grid, axis=-1))
    return tf.cast(maps, tf.float32).numpy(), tf.nn.softmax(tf.cast(scores, tf.float32)).numpy(), layer


def pick(predictions):
    """Choose of each class the test image that is right with the highest probability, and the wrong one.

    Returns
    -------
    DataFrame
        ``id``, ``true`` and ``predicted`` (names), ``confidence`` (probability of the predicted class), ``right``;
        a class without one of the two has one row less.
    """
    table = predictions[predictions["usage"] != "Training"].sort_values("id", kind="stable")
    proba, names = table[list(PROBABILITY_COLUMNS)].to_numpy(), np.array(CLASSES)
    table = table[["id"]].assign(
        true=names[table["label"].to_numpy(dtype=np.int64)],
        predicted=names[proba.argmax(axis=1)],
        confidence=proba.max(axis=1),
    )
    table["right"] = table["true"] == table["predicted"]
    surest = table.sort_values("confidence", ascending=False, kind="stable").groupby(["true", "right"]).head(1)
    return surest.sort_values(["right", "true"], key=lambda column: column.map(order), ascending=[False, True])


def order(value):
    """Return the place of a class, or of right and wrong."""
    return CLASSES.index(value) if isinstance(value, str) else value


def explain(run):
    """Return what ``gradcam.json`` holds: the network, the layer, and of each face its map, divided by its maximum.

    ResultsError or DataError if there is no finished training, or its data or weights are not there.
    """
    chosen = choose(run)
    rows = pick(pd.read_parquet(chosen.folder / "predictions.parquet"))
    data = read_json(Path(run) / "plan.json").get("data_path") or chosen.record["parameters"]["data"]
    dataset = load_dataset(data, on_message=[].append)
    if dataset.fingerprint["sha256"] != chosen.record["data"]["fingerprint"]:
        raise ResultsError(
            f"Grad-CAM needs the data that the network was trained on; {Path(data).name} holds other ones."
        )
    place = {name: at for at, name in enumerate(dataset.ids)}
    faces = dataset.images[[place[name] for name in rows["id"]]]
    network = load(chosen)
    classes = np.array([CLASSES.index(name) for name in rows["predicted"]])
    maps, proba, layer = heat_maps(network, faces, classes)
    off = np.abs(proba[np.arange(len(rows)), classes] - rows["confidence"]).max()
    if off > TOLERANCE:
        raise ResultsError(
            f"{chosen.folder / 'model.keras'}: its probabilities lie up to {off:.2f} from those of "
            f"predictions.parquet; delete {chosen.folder} and train again"
        )
    maps = maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
    shown = rows.assign(map=[np.round(values, 3).tolist() for values in maps.astype(float)])
    names = {name: chosen.record[name] for name in ("model", "seed", "label")}
    return names | {"layer": layer, "shape": list(maps.shape[1:]), "faces": shown.to_dict("records")}


def main():
    """Write ``gradcam.json`` into the run folder where this is called, or why there is nothing to show."""
    try:
        found = explain(Path.cwd())
    except DataError:
        found = {"reason": "Grad-CAM needs the data that the run was made on, and they are not there any more."}
    except FerError as error:
        # The file may be published, without folders of this machine.
        found = {"reason": str(error).replace(f"{Path.cwd()}/", "").replace(str(Path.cwd()), "this run")}
    write_json(Path("gradcam.json"), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
