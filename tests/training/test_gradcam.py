"""Grad-CAM of a network small enough to compute by hand, and of which images it is made."""

import keras
import numpy as np
import pandas as pd
import pytest
from planted import plant_run

from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS
from fer_utils.data.dataset import load
from fer_utils.errors import ResultsError
from fer_utils.files import read_json, write_json
from fer_utils.training import gradcam

KERNEL = np.random.default_rng(1).normal(size=(16, 16, 1, 3)) / 1000
WEIGHTS = np.random.default_rng(2).normal(size=(3, 7))


def make_network(nested=False):
    """Three filters over nine squares, in a network of their own if `nested`, their mean, and a dense layer."""
    convolution = keras.layers.Conv2D(3, 16, strides=16, activation="relu", name="last")
    inputs = keras.Input((48, 48, 1))
    base = keras.Model(inputs, convolution(inputs), name="last") if nested else convolution
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(7, activation="softmax")]
    network = keras.Sequential([keras.Input((48, 48, 1)), base, *layers])
    convolution.set_weights([KERNEL, np.zeros(3)])
    layers[-1].set_weights([WEIGHTS, np.zeros(7)])
    return network


@pytest.mark.parametrize("nested", [False, True])
def test_a_map_weighs_the_features_by_their_gradients(small_set, nested):
    network, faces, classes = make_network(nested), small_set.images[:5], np.array([0, 3, 6, 2, 1])
    maps, proba, layer = gradcam.heat_maps(network, faces, classes)
    squares = faces.reshape(5, 3, 16, 3, 16).transpose(0, 1, 3, 2, 4).reshape(5, 3, 3, 256)
    features = np.maximum(squares @ KERNEL.reshape(256, 3), 0)
    # The score is the weighted mean over nine cells, so that a feature's gradient is a ninth of its weight.
    by_hand = np.maximum(np.einsum("nhwk,kn->nhw", features, WEIGHTS[:, classes] / 9), 0)
    assert layer == "last" and by_hand.max() > 0
    np.testing.assert_allclose(maps, by_hand, rtol=1e-4, atol=1e-6)
    # The network is as it was.
    np.testing.assert_allclose(network.predict(faces[..., np.newaxis].astype("float32"), verbose=0), proba, atol=1e-6)


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ([keras.layers.Dense(7, activation="softmax")], "with more than one cell, and this network has none"),
        ([keras.layers.Dense(7), keras.layers.Softmax()], "last layer is none with it"),
        ([keras.layers.Dense(7)], "last layer is none with it"),
    ],
)
def test_a_network_without_a_grid_or_a_softmax_has_no_map(small_set, ends, reason):
    network = keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Flatten(), *ends])
    with pytest.raises(ResultsError, match=reason):
        gradcam.heat_maps(network, small_set.images[:1], np.array([0]))


@pytest.fixture
def run(tmp_path, small_set, monkeypatch):
    """A run of the network on a small set, as the current folder, and its predictions."""
    data = small_set.write_zip(tmp_path / "fer.zip")
    dataset = load(data, on_message=[].append)
    out = plant_run(tmp_path / "run", ["traditional_cnn"])
    folder = out / "traditional_cnn" / "seed-0"
    network = make_network()
    network.save(folder / "model.keras")
    record = read_json(folder / "run.json")
    record["data"]["fingerprint"] = dataset.fingerprint["sha256"]
    write_json(folder / "run.json", record)
    write_json(out / "plan.json", read_json(out / "plan.json") | {"data_path": str(data)})
    proba = network.predict(dataset.images[..., np.newaxis].astype("float32"), verbose=0)
    table = pd.DataFrame({"id": dataset.ids, "usage": dataset.usage, "label": dataset.labels})
    table[list(PROBABILITY_COLUMNS)] = proba
    table.to_parquet(folder / "predictions.parquet", index=False)
    monkeypatch.chdir(out)
    return out, table


def test_the_surest_right_and_wrong_image_of_each_class_are_explained(run):
    out, table = run
    gradcam.main()
    found = read_json("gradcam.json")
    assert found["model"] == "traditional_cnn" and found["layer"] == "last" and found["shape"] == [3, 3]
    proba = table[list(PROBABILITY_COLUMNS)].to_numpy()
    expected = []
    for right in (True, False):
        for label in range(7):
            fitting = (table["usage"] != "Training") & (table["label"] == label)
            fitting &= (proba.argmax(axis=1) == label) == right
            if fitting.any():
                expected.append((CLASSES[label], right, proba[fitting].max()))
    assert [(face["true"], face["right"], pytest.approx(face["confidence"])) for face in found["faces"]] == expected
    assert len(expected) >= 7 and all(np.max(face["map"]) in (0, 1) for face in found["faces"])


def test_without_what_it_needs_the_file_says_why(run):
    out, table = run
    folder = out / "traditional_cnn" / "seed-0"

    def reason():
        gradcam.main()
        found = read_json("gradcam.json")
        assert list(found) == ["reason"] and str(out.parent) not in found["reason"]
        return found["reason"]

    table[list(PROBABILITY_COLUMNS)] = np.eye(7)[table["label"]]
    table.to_parquet(folder / "predictions.parquet", index=False)
    assert "model.keras: its probabilities lie up to" in reason()
    write_json(folder / "run.json", read_json(folder / "run.json") | {"data": {"fingerprint": "0" * 64}})
    assert "holds other ones" in reason()
    (out.parent / "fer.zip").unlink()
    assert "they are not there any more" in reason()
    (folder / "model.keras").unlink()
    assert "this run: no finished training" in reason()
