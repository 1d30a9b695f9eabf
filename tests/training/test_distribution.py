"""Several devices train one network: to the same numbers as one, and the record says so.

There are no two GPUs where the tests run: the processor is split into logical devices, which TensorFlow must be told
before it starts, so that each training has a process of its own.
"""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import filelock
import keras
import numpy as np
import pytest
import tensorflow as tf

from fer_utils.batch import gpus
from fer_utils.batch import job as execution
from fer_utils.batch import plan as planning
from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.data import dataset as data
from fer_utils.errors import ConfigError
from fer_utils.findings.results import read_model
from fer_utils.report import facts as overview
from fer_utils.report import summary
from fer_utils.training import distribution
from fer_utils.training.resolved import Resolved

#: 35 training images in batches of 15: two devices get 7 and 8 of one, and 2 and 3 of the last.
PARAMETERS = {
    "model": "tiny",
    "label": "Tiny",
    "notebook": "none.ipynb",
    "data": "synthetic",
    "profile": "alone",
    "protocol": "sound",
    "seed": 3,
    "threads": 1,
    "devices": 1,
    "deterministic": True,
    "precision": "float32",
    "images_per_class": 5,
    "test_images_per_class": 3,
    "epoch_images_per_class": 0,
    "epochs": 3,
}

#: Trainings one after the other in one process; `killed` ends it in the middle of that epoch of the last.
SCRIPT = """
import json, os, sys
import keras, tensorflow as tf
from fer_utils.training import distribution, evaluation, fitting, session

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1 and self.epoch == p.get("killed"):
            os.kill(os.getpid(), 9)

for p in json.loads(sys.argv[1]):
    run = session.begin(p)
    with run.scope():
        base = keras.Sequential([keras.Input((12, 12, 4)), keras.layers.BatchNormalization(), keras.layers.ReLU()])
        network = keras.Sequential([
            keras.Input((48, 48, 1)),
            keras.layers.Rescaling(1 / 255),
            # A bias before a normalisation has no gradient but noise, which Adam makes steps of.
            keras.layers.Conv2D(4, 3, strides=4, padding="same", use_bias=False),
            base,
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(p.get("dropout", 0)),
            keras.layers.Dense(7, activation="softmax", dtype="float32"),
        ])
    fit = network.fit
    network.fit = lambda *a, callbacks, **k: fit(*a, callbacks=[*callbacks, Kill()], **k)
    flip = {"rotation_range": 10, "horizontal_flip": True}
    fitting.fit(run, network, augmentation=flip if p.get("augmented") else {}, batch_size=15, learning_rate=0.01,
                plateau_factor=0.5, plateau_patience=1)
    evaluation.evaluate(run, network)
    if p.get("dropout"):
        with distribution.training(network):
            drop = lambda: network.layers[-2](tf.ones((1, 64)), training=True)
            masks = run.strategy.experimental_local_results(run.strategy.run(drop))
        assert any((masks[0] != masks[1]).numpy().ravel())
    assert len(tf.config.list_logical_devices("CPU")) == p["devices"]
"""


def train(*trainings):
    """Train in one process, one after the other."""
    parameters = [PARAMETERS | training | {"out": str(training["out"])} for training in trainings]
    command = [sys.executable, "-c", SCRIPT, json.dumps(parameters)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of the same training on two devices and on one, of one with dropout on two, and what was printed."""
    out = tmp_path_factory.mktemp("trained")
    two = train(
        {"out": out / "two", "devices": 2, "augmented": True}, {"out": out / "drop", "devices": 2, "dropout": 0.3}
    )
    assert two.returncode == 0, two.stderr[-3000:]
    one = train({"out": out / "one", "augmented": True})
    assert one.returncode == 0, one.stderr[-3000:]
    return {name: out / name / "tiny" / "seed-3" for name in ("one", "two", "drop")} | {"printed": two.stdout}


def test_two_devices_train_to_the_same_numbers_as_one(trained):
    one, two = (read_model(trained[name]) for name in ("one", "two"))
    for name in one.history:
        # Keras's own metrics of the training, and the scores of the weights and running statistics after each epoch.
        # An AUC goes by steps: two probabilities that are next to each other, or to one of Keras's 200 thresholds, can
        # change places by a last digit, and of so few images each step is large.
        atol = 1e-3 if name.endswith("auc") else 1e-4
        np.testing.assert_allclose(two.history[name], one.history[name], rtol=1e-4, atol=atol, err_msg=name)
    columns = list(PROBABILITY_COLUMNS)
    np.testing.assert_allclose(two.predictions[columns], one.predictions[columns], atol=1e-4)


def test_a_killed_training_on_two_devices_goes_on_to_the_same_bytes(trained, tmp_path):
    training = {"out": tmp_path, "devices": 2, "dropout": 0.3}
    assert train(training | {"killed": 1}).returncode == -9
    done = train(training)
    assert "1 of 3 epochs were trained before" in done.stdout, done.stderr[-3000:]
    for name in ("history.csv", "model.weights.h5", "predictions.parquet"):
        assert (tmp_path / "tiny" / "seed-3" / name).read_bytes() == (trained["drop"] / name).read_bytes()


def test_what_it_leaves_loads_without_a_strategy(trained):
    predictions = read_model(trained["two"]).predictions
    dataset = data.load("synthetic", on_message=lambda line: None)
    place = {image: n for n, image in enumerate(dataset.ids)}
    images = dataset.images[[place[image] for image in predictions["id"]]][..., np.newaxis]
    for name in ("model.keras", "model.h5"):
        network = keras.saving.load_model(trained["two"] / name)
        assert not any(getattr(layer, "synchronized", False) for layer in network.layers)
        np.testing.assert_allclose(
            network.predict(images, verbose=0), predictions[list(PROBABILITY_COLUMNS)], atol=1e-5
        )
    network.load_weights(trained["two"] / "model.weights.h5")


def test_the_record_says_so_and_the_key_only_then(trained):
    keys = {}
    for name in ("one", "two"):
        (path,) = (trained[name].parents[1] / ".training" / "tiny" / "seed-3").glob("state-*/key.json")
        keys[name] = json.loads(path.read_text())
    assert keys["two"].pop("distribution") == f"{distribution.NAME} on 2"
    assert keys["two"].pop("code") != keys["one"].pop("code")
    assert keys["two"] == keys["one"] and "distribution" not in keys["one"]
    record = read_model(trained["two"]).record
    assert (record["device"]["replicas"], record["segments"][0]["replicas"]) == (2, 2)
    assert any(line.startswith("LOGICAL DEVICES") for line in record["warnings"])
    text = overview.device_text(record)
    assert text.startswith("2 x CPU") and text.endswith("MirroredStrategy, synchronised batch normalisation")
    assert f"Device: {text}, float32" in trained["printed"] and "*** LOGICAL DEVICES" in trained["printed"]
    (row,) = overview.tabulate_trainings([{"record": record, "label": "Tiny", "seed": 3}])
    assert row["Devices"] == 2
    assert summary.devices(SimpleNamespace(models=[read_model(trained["two"])]))[0].startswith("2 x CPU")
    device = read_model(trained["one"]).record["device"]
    assert device["replicas"] == 1 and "distribution" not in device


def test_the_choice_of_the_devices(tmp_path, monkeypatch):
    here = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: here)
    assert distribution.choose(0, Resolved(tmp_path)) == 1
    assert distribution.choose(2, Resolved(tmp_path)) == 2
    here = ["GPU:0", "GPU:1"]
    assert distribution.choose(0, Resolved(tmp_path)) == 2
    assert distribution.choose(1, Resolved(tmp_path)) == 1
    with pytest.raises(ConfigError, match=r"devices is 3; TensorFlow sees 2 GPU"):
        distribution.choose(3, Resolved(tmp_path))
    # An epoch was finished on two: it goes on with two, or not at all.
    (tmp_path / "state-x").mkdir()
    (tmp_path / "state-x" / "state.json").write_text("{}")
    Resolved(tmp_path).keep("devices", 2)
    here = ["GPU:0", "GPU:1", "GPU:2"]
    assert distribution.choose(0, Resolved(tmp_path)) == 2
    here = ["GPU:0"]
    with pytest.raises(ConfigError, match="devices is 0, and the training began on 2"):
        distribution.choose(0, Resolved(tmp_path))


def test_what_cannot_be_shared_is_refused():
    tf.constant(0)
    with pytest.raises(ConfigError, match="runs in this kernel with another number; restart the kernel"):
        distribution.prepare(2)
    distribution.check_batches(28_709, 64, 37)
    with pytest.raises(ConfigError, match="a batch of the 28,709 images has 37, and each of 38 devices needs one"):
        distribution.check_batches(28_709, 64, 38)


def fake_execution(monkeypatch, executed):
    """Let jobs note their parameters and GPUs instead of executing a notebook."""

    def execute(notebook, target, parameters, kernel, work):
        executed.append((parameters["devices"], os.environ.get("CUDA_VISIBLE_DEVICES")))
        raise RuntimeError("enough")

    monkeypatch.setattr(execution, "execute", execute)
    monkeypatch.setattr(
        execution, "Watch", lambda *a: SimpleNamespace(start=lambda: None, over=SimpleNamespace(set=int))
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("count", "jobs", "asked", "busy", "got"),
    [
        (4, 2, 0, ["0", "1"], (2, "2,3")),
        (4, 3, 0, ["0", "2"], (1, "1")),
        (4, 1, 0, [], (4, "0,1,2,3")),
        (2, 2, 2, [], (2, "0,1")),
        (1, 2, 0, [], (0, None)),
        (0, 1, 0, [], (0, None)),
    ],
)
def test_a_job_gets_its_share_of_the_gpus(tmp_path, monkeypatch, count, jobs, asked, busy, got):
    executed = []
    fake_execution(monkeypatch, executed)
    entry = {"model": "tiny", "seed": 0, "label": "Tiny", "notebook": "n.ipynb"}
    entry |= {"parameters": {"threads": 0, "devices": asked}}
    (tmp_path / ".training").mkdir()
    locks = [filelock.FileLock(tmp_path / ".training" / f"gpu-{gpu}.lock") for gpu in busy]
    for lock in locks:
        lock.acquire()
    plan = {"gpus": count, "jobs": jobs, "kernel": "k", "models": [entry]}
    assert not execution.run_model(plan, tmp_path, entry, 1)
    assert executed == [got] and "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_job_waits_for_gpus_and_holds_none_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    other = filelock.FileLock(tmp_path / "gpu-GPU-b.lock")
    other.acquire()

    def sleep(seconds):
        # While it waits, the one that is free is free for others.
        filelock.FileLock(tmp_path / "gpu-GPU-a.lock", timeout=0).acquire().lock.release()
        other.release()

    monkeypatch.setattr(gpus.time, "sleep", sleep)
    with gpus.claim(tmp_path, 2, 2) as taken:
        assert taken == ["GPU-a", "GPU-b"]


def test_no_more_jobs_at_a_time_than_memory_and_gpus_bear(monkeypatch):
    def at_once(jobs, count, free):
        monkeypatch.setattr(planning.psutil, "virtual_memory", lambda: SimpleNamespace(available=free * 2**30))
        said = []
        return planning.jobs_at_once(jobs, count, said.append), " ".join(said)

    assert at_once(4, 0, 10.1) == (4, "")
    jobs, said = at_once(4, 0, 6)
    assert jobs == 2 and "6.0 GiB of memory are free, and a training may take 2.5; 2 at a time" in said
    # One at a time is tried whatever is free.
    assert at_once(1, 0, 1) == (1, "") and at_once(2, 0, 1)[0] == 1
    jobs, said = at_once(4, 2, 64)
    assert jobs == 2 and "there are 2 GPUs, and each is one job's; 2 at a time" in said
    # A single one is shared, as it always was.
    assert at_once(4, 1, 64) == (4, "")
