"""Faults of a training: NaN, a full disk, a second notebook on the same training, a server without the weights."""

import contextlib
import functools
import http.server
import threading
import time
from types import SimpleNamespace

import filelock
import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import mobilenet, mobilenet_v3
from keras.src.legacy.saving import legacy_h5_format

from fer_utils import files
from fer_utils.errors import ConfigError, TrainingError
from fer_utils.training import run, weights
from fer_utils.training.callbacks import ScoreEpoch
from fer_utils.training.resume import TrainingState


def test_a_second_notebook_on_the_same_training_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PATIENCE", 0.2)
    with (
        filelock.FileLock(tmp_path / "lock"),
        pytest.raises(ConfigError, match="another process is training tiny with seed 0"),
    ):
        run.take(tmp_path, {"model": "tiny", "seed": 0})


@pytest.mark.parametrize(("loss", "probability"), [(np.nan, 0.1), (1.0, np.nan)])
def test_a_loss_that_is_nan_ends_the_training_before_it_is_kept(loss, probability):
    class Network:
        def predict(self, images, **options):
            return np.full((len(images), 7), probability)

    usage = np.array(["PublicTest", "PublicTest", "PrivateTest", "PrivateTest"])
    dataset = SimpleNamespace(images=np.zeros((4, 48, 48)), labels=np.zeros(4, int), usage=usage)
    training = SimpleNamespace(dataset=dataset, scored=np.arange(4), parameters={"protocol": "sound"})
    score = ScoreEpoch(training)
    score.set_model(Network())
    with pytest.raises(TrainingError, match="diverged: in epoch 3 .* 2 epochs before are kept; try a lower learning"):
        score.on_epoch_end(2, {"loss": loss})


# --- a full disk --------------------------------------------------------------------------------------------


def fill(folder):
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_costs_no_finished_epoch(small_disk):
    network = keras.Sequential([keras.Input((48,)), keras.layers.Dense(3000)])
    network.compile("sgd", "mse")
    state = TrainingState(small_disk, {}, 3)
    (state.folder / "best-001.weights.h5").write_bytes(b"weights")
    kept = {"epoch": 1, "best_file": "best-001.weights.h5"}
    state.save(network, kept)
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        state.save(network, kept | {"epoch": 2})
    (small_disk / "filler").unlink()
    again = TrainingState(small_disk, {}, 3)
    assert again.read()["epoch"] == 1
    again.restore_weights(network, again.read())
    state.save(network, kept | {"epoch": 2})
    assert again.read()["epoch"] == 2


def test_a_report_that_cannot_be_written_leaves_the_old_one(small_disk):
    files.write_text(small_disk / "report.html", "old")
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(small_disk / "report.html", "new" * 1000)
    assert (small_disk / "report.html").read_text() == "old"
    assert not list(small_disk.glob(".*"))


# --- the server of the weights ------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Play Keras's server of weight files on this machine; its `answer` says how."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if play.answer == "hang":
                released.wait(20)
            elif play.answer == "refuse":
                self.send_error(403)
            else:
                body = play.answer
                self.send_response(200)
                self.send_header("Content-Length", str(play.length or len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    play = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    play.length, asked, released = None, [], threading.Event()
    play.asked = asked
    threading.Thread(target=play.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{play.server_port}/"
    for module in (mobilenet, mobilenet_v3):
        monkeypatch.setattr(module, "BASE_WEIGHT_PATH", address)
    monkeypatch.setattr(weights, "TIMEOUT", 10)
    cache = tmp_path / "keras"
    cache.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(cache))
    from keras.src.backend import config

    monkeypatch.setattr(config, "_KERAS_DIR", str(cache))
    yield play
    released.set()
    play.shutdown()
    play.server_close()


@functools.cache
def base(application):
    return application(include_top=False, weights=None, input_shape=(48, 48, 3))


def get(application=keras.applications.MobileNetV3Small):
    return base(application), weights.load(base(application), application, "imagenet")


@pytest.mark.parametrize(
    ("answer", "length", "said"),
    [
        ("refuse", None, "403"),
        ("hang", None, "timed out"),
        (b"half", 1000, "retrieval incomplete: got only 4 out of 1000 bytes"),
        (b"something else", None, "hash does not match"),
    ],
    ids=["refuses", "is silent", "sends half", "sends another file"],
)
def test_a_server_that_does_not_give_the_weights_is_named(server, monkeypatch, answer, length, said):
    server.answer, server.length = answer, length
    if answer == "hang":
        monkeypatch.setattr(weights, "TIMEOUT", 0.5)
    base(keras.applications.MobileNetV3Small)
    began = time.monotonic()
    _, record = get()
    assert record["used"] == "none" and said in record["reason"] and server.asked
    assert time.monotonic() - began < 15  # the silent one would answer after 20


def test_half_a_weight_file_in_the_cache_is_downloaded_anew(server, tmp_path):
    """MobileNet-V1 has no hash in Keras; half of its file would be half of one for ever."""
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(48, 48, 3))
    whole = tmp_path / "whole.h5"
    with h5py.File(whole, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    server.answer = whole.read_bytes()
    cached = weights.cache() / "mobilenet_1_0_224_tf_no_top.h5"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(server.answer[: len(server.answer) // 2])
    loaded, record = get(keras.applications.MobileNet)
    assert record["used"] == "imagenet" and record["sha256"] == weights.digest(network), record
    np.testing.assert_array_equal(loaded.get_weights()[0], network.get_weights()[0])
    assert cached.read_bytes() == server.answer and len(server.asked) == 1
