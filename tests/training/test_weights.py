"""Initial weights: what was asked for, what was used, and why."""

import ast
import pathlib

import keras
import numpy as np
import pytest

from fer_utils.errors import ConfigError
from fer_utils.paths import project_root
from fer_utils.training import weights
from fer_utils.training.state import TrainingState, flatten


def tiny(include_top, weights, input_shape):
    """Stand in for a builder of keras.applications."""
    network = keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(2, 3, name="only")])
    if weights == "imagenet":
        raise Exception("URL fetch failure on https://example.org/weights.h5")
    if weights:
        network.load_weights(weights)
    return network


def test_none_is_random_and_repeats_with_the_seed():
    values = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        network, record = weights.backbone(tiny, "none", input_shape=(8, 8, 3))
        values.append(network.get_weights()[0])
    np.testing.assert_array_equal(*values)
    assert record == {"requested": "none", "used": "none", "sha256": None, "reason": None}


def test_weights_that_cannot_be_had_fall_back_to_what_none_gives_and_say_why():
    keras.utils.set_random_seed(5)
    expected, _ = weights.backbone(tiny, "none", input_shape=(8, 8, 3))
    keras.utils.set_random_seed(5)
    network, record = weights.backbone(tiny, "imagenet", input_shape=(8, 8, 3))
    assert record["requested"] == "imagenet" and record["used"] == "none"
    assert "URL fetch failure" in record["reason"]
    np.testing.assert_array_equal(network.get_weights()[0], expected.get_weights()[0])


def test_a_file_is_loaded_and_its_values_hashed(tmp_path):
    source, _ = weights.backbone(tiny, "none", input_shape=(8, 8, 3))
    source.save_weights(tmp_path / "mine.weights.h5")
    network, record = weights.backbone(tiny, str(tmp_path / "mine.weights.h5"), input_shape=(8, 8, 3))
    np.testing.assert_array_equal(network.get_weights()[0], source.get_weights()[0])
    assert record["used"] == "path" and record["requested"] == "mine.weights.h5"
    assert record["sha256"] == weights.digest(source)


def test_a_file_that_is_not_there_or_does_not_fit_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.h5"):
        weights.backbone(tiny, str(tmp_path / "nowhere.h5"), input_shape=(8, 8, 3))
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ConfigError, match="other.weights.h5"):
        weights.backbone(tiny, str(tmp_path / "other.weights.h5"), input_shape=(8, 8, 3))


def plant_code(path, marker):
    """Save a network with a Lambda layer that leaves a file where its code runs."""
    leave = eval(f"lambda x: open({str(marker)!r}, 'w').close() or x")  # the path has to be part of the code
    layer = keras.layers.Lambda(leave, output_shape=(6, 6, 2))
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="only"), layer])
    network.save(path)
    marker.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["planted.keras", "planted.h5", "planted.hdf5", "renamed.h5", "renamed.pkl"])
def test_code_in_a_file_given_as_weights_never_runs(tmp_path, name):
    path, marker = tmp_path / name, tmp_path / "marker"
    plant_code(path if name.startswith("planted") else tmp_path / "x.keras", marker)
    if name.startswith("renamed"):
        (tmp_path / "x.keras").rename(path)
    if name == "planted.keras":
        keras.saving.load_model(path, safe_mode=False)(np.zeros((1, 8, 8, 3)))
        assert marker.exists()  # it would run
        marker.unlink()
    if name in ("planted.h5", "planted.hdf5"):
        network, record = weights.backbone(tiny, str(path), input_shape=(8, 8, 3))  # the numbers beside the code
        assert record["used"] == "path" and len(network.layers) == 1
    else:
        said = (
            "does not hold weights of tiny" if name == "renamed.h5" else "not a file of weights; expected .weights.h5"
        )
        with pytest.raises(ConfigError, match=f"{name}: {said}"):
            weights.backbone(tiny, str(path), input_shape=(8, 8, 3))
    assert not marker.exists()


def test_nothing_in_the_package_loads_what_can_hold_code():
    """Saved networks and pickles are never read; NumPy's and YAML's loaders are the safe ones."""
    found = set()
    for path in sorted((project_root() / "fer_utils").glob("*.py")):
        if path.name == "benchmark_sides.py":
            continue  # it executes cells of the project's own notebooks, as Jupyter does
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found |= {alias.name for alias in node.names} | {getattr(node, "module", None)}
            if isinstance(node, ast.Call):
                found |= {ast.unparse(node.func).split(".")[-1]}
                found |= {f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in node.keywords}
    assert {"safe_load", "load_weights", "read_parquet", "literal_eval"} <= found
    assert not found & {"load_model", "model_from_json", "pickle", "joblib", "dill", "cloudpickle", "read_pickle"}
    assert not found & {"unsafe_load", "full_load", "eval", "exec", "enable_unsafe_deserialization", "extractall"}
    assert not found & {"allow_pickle=True", "safe_mode=False", "shell=True"}


def test_pickled_arrays_are_refused(tmp_path):
    class Planted:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "marker",))

    network = tiny(False, None, (8, 8, 3))
    network.compile("adam", "mse")
    network.optimizer.build(network.trainable_variables)
    planted = np.array([Planted()], dtype=object)
    state = TrainingState(tmp_path, {}, 1)
    np.savez(state.folder / "epoch-001.npz", **dict.fromkeys(flatten(network.get_state_tree()), planted))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        state.restore(network, {"state_file": "epoch-001.npz"})
    assert not (tmp_path / "marker").exists()


def test_the_servers_timeout_is_set_back():
    import socket

    before = socket.getdefaulttimeout()
    with weights.patience(3):
        assert socket.getdefaulttimeout() == 3
    assert socket.getdefaulttimeout() == before
