"""Initial weights: what was asked for, what was used, and why."""

import ast
import pathlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from fer_utils.errors import ConfigError, TrainingError
from fer_utils.paths import project_root
from fer_utils.training import weights
from fer_utils.training.resume import TrainingState, flatten
from fer_utils.training.run import Resolved

SHAPE = (8, 8, 3)


def tiny(include_top=False, weights=None, input_shape=SHAPE):
    """Stand in for a builder of keras.applications whose server is unreachable."""
    if weights == "imagenet":
        raise Exception("URL fetch failure on https://example.org/weights.h5")
    return keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(2, 3, name="only")])


def reachable(include_top=False, weights=None, input_shape=SHAPE):
    """Stand in for one whose server answers."""
    return tiny(include_top, None, input_shape)


reachable.__name__ = "tiny"


def make(base, folder, asked, application=tiny):
    """A network around a base, with its initial weights; what is resolved binds where an epoch was finished."""
    run = SimpleNamespace(resolved=Resolved(folder), weights=None)
    network = keras.Sequential([keras.Input(SHAPE), base, keras.layers.Flatten(), keras.layers.Dense(2)])
    assert weights.initial_weights(run, network, application, asked) is base
    return base, run.weights


def begun(folder):
    """Pretend that an epoch was finished in a folder."""
    (folder / "state-x").mkdir(parents=True, exist_ok=True)
    (folder / "state-x" / "state.json").write_text("{}")
    return folder


def test_none_is_random_and_repeats_with_the_seed(tmp_path):
    values = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        base, record = make(tiny(), tmp_path, "none")
        values.append(base.get_weights()[0])
    np.testing.assert_array_equal(*values)
    assert record == {"requested": "none", "used": "none", "sha256": None, "reason": None}


def test_unreachable_weights_leave_the_random_ones_and_say_why(tmp_path):
    base = tiny()
    before = base.get_weights()[0]
    _, record = make(base, tmp_path, "imagenet")
    assert record["requested"] == "imagenet" and record["used"] == "none"
    assert "weights were unavailable (Exception: URL fetch failure" in record["reason"]
    np.testing.assert_array_equal(base.get_weights()[0], before)


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (Exception("URL fetch failure on https://example.org: 404"), True),
        (TimeoutError("timed out"), True),
        (OSError("No space left on device"), True),
        (ValueError("Incomplete or corrupted file detected. The sha256 file hash does not match"), True),
        # What is wrong in the notebook must not pass for a missing network.
        (ValueError("Input size must be at least 71x71; Received: input_shape=(48, 48, 3)"), False),
        (TypeError("unexpected keyword"), False),
    ],
)
def test_only_a_failed_download_falls_back(tmp_path, error, unavailable):
    def application(include_top, weights, input_shape):
        raise error

    if unavailable:
        assert make(tiny(), tmp_path, "imagenet", application)[1]["used"] == "none"
    else:
        with pytest.raises(type(error)):
            make(tiny(), tmp_path, "imagenet", application)


def test_weights_of_another_shape_are_an_error(tmp_path):
    def larger(include_top, weights, input_shape):
        return keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(3, 3)])

    with pytest.raises(ValueError, match="shape"):
        make(tiny(), tmp_path, "imagenet", larger)


def test_a_network_without_a_base_is_refused(tmp_path):
    run = SimpleNamespace(resolved=Resolved(tmp_path), weights=None)
    with pytest.raises(ConfigError, match="no network among its layers"):
        weights.initial_weights(run, tiny(), tiny, "none")


def test_a_file_is_loaded_and_its_values_hashed(tmp_path):
    source = tiny()
    source.save_weights(tmp_path / "mine.weights.h5")
    base, record = make(tiny(), tmp_path, str(tmp_path / "mine.weights.h5"))
    np.testing.assert_array_equal(base.get_weights()[0], source.get_weights()[0])
    assert record["used"] == "path" and record["requested"] == "mine.weights.h5"
    assert record["sha256"] == weights.digest(source)


def test_a_file_that_is_missing_or_does_not_fit_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.h5"):
        make(tiny(), tmp_path, str(tmp_path / "nowhere.h5"))
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ConfigError, match="other.weights.h5"):
        make(tiny(), tmp_path, str(tmp_path / "other.weights.h5"))


def test_weights_that_come_later_change_nothing(tmp_path):
    _, first = make(tiny(), tmp_path, "imagenet")
    assert make(tiny(), begun(tmp_path), "imagenet", reachable)[1] == first
    # Where no training has begun they are taken.
    assert make(tiny(), tmp_path / "new", "imagenet", reachable)[1]["used"] == "imagenet"


def test_weights_that_are_gone_do_not_stop_a_training_that_goes_on(tmp_path):
    path = tmp_path / "mine.weights.h5"
    tiny().save_weights(path)
    _, first = make(tiny(), tmp_path, str(path))
    path.unlink()
    _, record = make(tiny(), begun(tmp_path), str(path))
    assert {name: record[name] for name in first} == first
    # One that begins cannot do without them.
    with pytest.raises(TrainingError, match="mine.weights.h5.*unavailable now"):
        weights.check(record)


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
        base, record = make(tiny(), tmp_path, str(path))  # the numbers beside the code
        assert record["used"] == "path" and len(base.layers) == 1
    else:
        said = (
            "does not hold weights of tiny" if name == "renamed.h5" else "not a file of weights; expected .weights.h5"
        )
        with pytest.raises(ConfigError, match=f"{name}: {said}"):
            make(tiny(), tmp_path, str(path))
    assert not marker.exists()


def test_nothing_in_the_package_loads_what_can_hold_code():
    """A saved network is read in safe mode alone, pickles never; NumPy's and YAML's loaders are the safe ones."""
    found = set()
    for path in sorted((project_root() / "fer_utils").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found |= {alias.name for alias in node.names} | {getattr(node, "module", None)}
            if isinstance(node, ast.Call):
                name, words = ast.unparse(node.func).split(".")[-1], [ast.unparse(word) for word in node.keywords]
                # Keras would ask its global setting.
                found |= {*words, "unsafe_load" if name == "load_model" and "safe_mode=True" not in words else name}
    assert {"safe_load", "load_model", "load_weights", "read_parquet", "literal_eval"} <= found
    assert not found & {"model_from_json", "pickle", "joblib", "dill", "cloudpickle", "read_pickle"}
    assert not found & {"unsafe_load", "full_load", "eval", "exec", "enable_unsafe_deserialization", "extractall"}
    assert not found & {"allow_pickle=True", "safe_mode=False", "shell=True"}


def test_pickled_arrays_are_refused(tmp_path):
    class Planted:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "marker",))

    network = tiny()
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
