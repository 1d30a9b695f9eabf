"""What lies between two starts of a training: its states, and what its open requests came to."""

import json
import os
import tracemalloc
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from fer_utils.errors import ConfigError
from fer_utils.training import run
from fer_utils.training.resume import TrainingState, differences, flatten, moved, unflatten
from fer_utils.training.run import Resolved


def train(parent, key, epochs, until=None):
    """Keep the states of a training of one weight, as `ExactResume` does; return its folder and its first epoch."""
    keras.utils.clear_session()
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    network.compile("adam", "mse")
    network.optimizer.build(network.trainable_variables)
    state = TrainingState(parent, key, epochs)
    kept = state.read() or {"epoch": 0}
    first = kept["epoch"]
    for epoch in range(first + 1, (until or epochs) + 1):
        (state.folder / "best-001.weights.h5").write_bytes(b"weights")
        state.save(network, kept | {"epoch": epoch, "best_file": "best-001.weights.h5"})
    return state, first


KEY = {"network": "{" + "x" * 100, "settings": {"learning_rate": 0.001, "batch_size": 64}, "code": "a" * 64}
OTHER = KEY | {"settings": {"learning_rate": 0.01, "batch_size": 64}, "code": "b" * 64}


def test_no_state_with_a_finished_epoch_is_ever_removed(tmp_path):
    for number in range(6):
        train(tmp_path, KEY | {"code": str(number)}, 1)
    assert len(list(tmp_path.glob("state-*/state.json"))) == 6


def test_longer_goes_on_shorter_begins_beside_and_nothing_is_lost(tmp_path):
    assert train(tmp_path, KEY, 4)[1] == 0
    assert train(tmp_path, KEY, 2)[1] == 0
    assert train(tmp_path, KEY, 3)[1] == 2  # from the shorter one
    assert train(tmp_path, KEY, 2)[1] == 0  # which has three by now
    assert train(tmp_path, KEY, 5)[1] == 4  # from the longest
    epochs = [json.loads(path.read_text())["epoch"] for path in tmp_path.glob("state-*/state.json")]
    assert sorted(epochs) == [2, 3, 5]


def test_a_training_that_begins_beside_another_says_what_differs(tmp_path):
    assert TrainingState(tmp_path, KEY, 3).explain_beginning() == ""
    train(tmp_path, KEY, 3)
    said = TrainingState(tmp_path, OTHER, 3).explain_beginning()
    assert "learning_rate 0.001 -> 0.01; training code." in said and "batch_size" not in said and "state-" in said
    assert "it has 3 epochs, and this one is to have 2." in TrainingState(tmp_path, KEY, 2).explain_beginning()


def test_differences_show_values_where_they_are_short():
    before = {"weights": {"used": "imagenet", "sha256": "a" * 64}, "versions": {"keras": "3.1"}, "same": 1}
    after = {"weights": {"used": "none", "sha256": None}, "versions": {"keras": "3.2"}, "same": 1, "new": 5}
    assert differences(before, after) == [
        "initial weights imagenet -> none",
        "values of the initial weights",
        "keras 3.1 -> 3.2",
        "new",
    ]


@pytest.mark.parametrize("damage", ["epoch-002.npz", "best-001.weights.h5", "state.json"])
def test_a_file_emptied_by_a_crash_of_the_machine_is_noticed(tmp_path, damage):
    state, _ = train(tmp_path, KEY, 2)
    (state.folder / damage).write_bytes(b"")
    again = TrainingState(tmp_path, KEY, 2)
    assert again.read() is None and "damaged" in again.explain_beginning()


def test_an_unfinished_write_is_removed(tmp_path):
    state, _ = train(tmp_path, KEY, 1)
    folder = state.folder / ".epoch-002.npz-abc.unfinished"
    folder.mkdir()
    # Perhaps someone on another host is writing it.
    TrainingState(tmp_path, KEY, 1)
    assert folder.exists()
    os.utime(folder, (0, 0))
    TrainingState(tmp_path, KEY, 1)
    assert not list(state.folder.glob(".*"))


def traced(function, *arguments):
    """Return the most bytes of Python's and NumPy's memory that a call took."""
    tracemalloc.start()
    function(*arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_the_state_is_not_held_in_memory_a_second_time(tmp_path):
    """A large network's is half a gigabyte, which decides how much memory its notebook takes."""
    network = keras.Sequential([keras.Input((500,)), *[keras.layers.Dense(500, use_bias=False) for _ in range(8)]])
    network.compile("adam", "mse")
    network.optimizer.build(network.trainable_variables)
    # Three megabytes a layer: the weights and the optimizer's two moments of them.
    layer = 3 * 500 * 500 * 4
    state, kept = TrainingState(tmp_path, KEY, 1), {"epoch": 1, "best_file": "best-001.weights.h5"}
    (state.folder / kept["best_file"]).write_bytes(b"weights")
    assert traced(state.save, network, kept) < layer
    before = network.get_weights()
    network.set_weights([np.zeros_like(values) for values in before])
    assert traced(state.restore_weights, network, kept) < 4 * layer
    assert all(np.array_equal(*pair) for pair in zip(network.get_weights(), before, strict=True))


def begun(folder):
    """Resolved requests of a folder in which an epoch was finished."""
    (folder / "state-x").mkdir(exist_ok=True)
    (folder / "state-x" / "state.json").write_text("{}")
    return Resolved(folder)


def test_what_was_resolved_binds_from_the_first_finished_epoch_on(tmp_path):
    Resolved(tmp_path).keep("threads", 2)
    assert Resolved(tmp_path).get("threads") is None
    assert begun(tmp_path).get("threads") == 2


def test_a_move_is_said():
    before = {"kind": "CPU", "name": "one", "threads": 2, "seconds": 3.0}
    assert moved(before, before) == ""
    assert "threads 2 -> 1" in moved(before, before | {"threads": 1})


def test_data_left_open_stay_what_they_were(tmp_path, monkeypatch):
    asked = []

    def load(source, allow_fallback):
        asked.append(source)
        sha = "real" if source == "auto" else "drawn"
        return SimpleNamespace(path=None, fingerprint={"sha256": sha, "description": f"{sha} faces."})

    monkeypatch.setattr(run.datasets, "load", lambda source, allow_fallback: load("synthetic", allow_fallback))
    parameters = {"data": "auto", "profile": "alone"}
    run.load_data(parameters, Resolved(tmp_path))
    monkeypatch.setattr(run.datasets, "load", load)
    run.load_data(parameters, begun(tmp_path))
    assert asked[-1] == "synthetic"
    # What was there is gone, and something else is found.
    resolved = begun(tmp_path)
    resolved.keep("data auto", resolved.get("data auto") | {"path": str(tmp_path / "gone.zip")})
    with pytest.raises(ConfigError, match="began with drawn faces. This is something else: real faces."):
        run.load_data(parameters, resolved)


def test_state_trees_flatten_and_unflatten():
    tree = {"a": {"b": {"kernel/0": 1}, "c": 2}}
    flat = flatten(tree)
    assert set(flat) == {"a//b//kernel/0", "a//c"}
    assert unflatten({name: int(value) for name, value in flat.items()}) == tree
