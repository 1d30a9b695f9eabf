"""Faults that can be made in seconds; docs/faults.md lists them all, scripts in tests/faults/ make the others."""

import contextlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import filelock
import h5py
import keras
import nbformat
import numpy as np
import psutil
import pytest
import tensorflow as tf
from fer_utils.training.state import TrainingState
from keras.src.applications import mobilenet, mobilenet_v3
from keras.src.legacy.saving import legacy_h5_format

from fer_utils import files
from fer_utils.batch import job as execution
from fer_utils.batch import lifeline
from fer_utils.batch import run as batch
from fer_utils.errors import ConfigError, TrainingError
from fer_utils.paths import project_root
from fer_utils.training import session, weights
from fer_utils.training.callbacks import ScoreEpoch

# --- a notebook that fails ----------------------------------------------------------------------------------


@pytest.fixture
def run_notebook(tmp_path, monkeypatch):
    """Return a function that runs a notebook of these cells as a run's job does."""
    monkeypatch.setattr(execution, "project_root", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()

    def run(cells, out=tmp_path / "out"):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.cells[0].metadata.tags = ["parameters"]
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python", "language": "python"}
        nbformat.write(notebook, tmp_path / "notebooks" / "02_tiny.ipynb")
        parameters = {"threads": 1}
        entry = {"model": "tiny", "seed": 0, "label": "Tiny", "notebook": "02_tiny.ipynb", "parameters": parameters}
        entry |= {"estimate": 1.0}
        place = out / "tiny" / "seed-0"
        place.mkdir(parents=True, exist_ok=True)
        ended = execution.run_model({"models": [entry], "kernel": "python3"}, out, entry, 1)
        failed = out / "failed" / "tiny-seed-0.json"
        return ended, json.loads(failed.read_text()) if failed.exists() else None

    return run


def test_an_exception_in_any_cell_ends_the_model_and_is_recorded(run_notebook, tmp_path):
    """Each code cell of a model's notebook in turn; those before it are left out, since they take their time."""
    source = nbformat.read(project_root() / "notebooks" / "02_traditional_cnn.ipynb", as_version=4)
    count = sum(cell.cell_type == "code" for cell in source.cells)
    assert count > 6
    for number in range(count):
        cells = ["pass"] * count
        cells[number] = f"raise RuntimeError('planted in cell {number}')"
        ended, failure = run_notebook(cells)
        assert ended is False
        assert failure["error"] == f"RuntimeError: planted in cell {number}" and "Traceback" in failure["traceback"]
        # What a reader may look at, and nothing that passes for a result.
        assert f"planted in cell {number}" in (tmp_path / "out/.training/tiny/seed-0/notebook.ipynb").read_text()
        assert not (tmp_path / "out" / "tiny" / "seed-0").exists()


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the kernel died; most often there was not enough memory"),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)); bytearray(2**33)",
            "MemoryError: ",
        ),
    ],
    ids=["killed by the system", "refused by the system"],
)
def test_not_enough_memory_is_said(run_notebook, cell, said):
    ended, failure = run_notebook(["pass", cell])
    assert ended is False and failure["error"] == said


# --- the kernel's sockets -----------------------------------------------------------------------------------


@pytest.fixture
def temporary(monkeypatch):
    """A folder for temporary files with a path short enough for sockets, which that of `tmp_path` may not be."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def execute(folder, cell):
    """Start a job that executes a notebook of one cell."""
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), folder / "source.ipynb")
    return subprocess.Popen([sys.executable, "-c", JOB, str(folder)])


JOB = """
import signal, sys
from pathlib import Path
from fer_utils.batch import job as execution
signal.signal(signal.SIGTERM, lambda number, _: execution.stop(143))
work = Path(sys.argv[1])
execution.execute(work / "source.ipynb", work / "target.ipynb", {}, "python3", work / "work.ipynb")
"""


def test_kernels_side_by_side_do_not_take_each_others_ports(tmp_path, temporary):
    """They have none."""
    cell = f"import ipykernel, os; print(os.listdir({str(temporary)!r}), ipykernel.get_connection_info())"
    assert execute(tmp_path, cell).wait(60) == 0
    printed = nbformat.read(tmp_path / "target.ipynb", as_version=4).cells[-1].outputs[0].text
    assert printed.startswith("['fer-") and '"transport": "ipc"' in printed
    assert list(temporary.iterdir()) == []


def test_a_folder_too_long_for_sockets_does_with_ports():
    assert execution.private_sockets("/tmp/fer-x").KernelManager.transport == "ipc"
    assert execution.private_sockets("/" + "ü" * 60) == {}


def test_a_stopped_job_leaves_no_sockets(tmp_path, temporary):
    job = execute(tmp_path, f"open({str(tmp_path / 'begun')!r}, 'w').close(); import time; time.sleep(60)")
    while not (tmp_path / "begun").exists():
        assert job.poll() is None
        time.sleep(0.1)
    assert len(list(temporary.glob("fer-*"))) == 1
    job.terminate()
    assert job.wait(10) == 143
    assert list(temporary.iterdir()) == []


# --- two at once, and what outlives a run -------------------------------------------------------------------


def test_a_second_run_in_a_folder_is_refused_and_harms_nothing(tmp_path, capsys):
    plan = {"profile": "smoke", "data_sha256": "0" * 64}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.input.lock").write_text("")
    lock = batch.hold(tmp_path)
    assert batch.main(["report", "--out", str(tmp_path)]) == 2
    assert "another run is at work in this folder" in capsys.readouterr().err
    # The other's lock is its own.
    assert (tmp_path / ".snakemake" / "locks" / "0.input.lock").exists()
    lock.close()


def test_a_second_notebook_on_the_same_training_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "PATIENCE", 0.2)
    parameters = dict.fromkeys(session.REQUIRED, 0) | {"model": "tiny", "out": str(tmp_path), "epochs": 1}
    folder = tmp_path / ".training" / "tiny" / "seed-0"
    folder.mkdir(parents=True)
    with (
        filelock.FileLock(folder / "lock"),
        pytest.raises(ConfigError, match="another process is training tiny with seed 0"),
    ):
        session.begin(parameters)


CHILD = """
import os, time
from fer_utils.batch import lifeline
lifeline.follow(lambda: os._exit(7))
print("follows", flush=True)
time.sleep(60)
"""

LEADER = f"""
import subprocess, sys, time
from fer_utils.batch import lifeline
lifeline.lead(first=True)
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_process_in_a_session_of_its_own_ends_with_its_run():
    leader = subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(leader.stdout.readline()))
    assert leader.stdout.readline() == "follows\n"
    time.sleep(2 * lifeline.INTERVAL)
    assert lifeline.alive(child)
    leader.kill()
    # It is dead and not yet reaped, as where its parent is slow.
    child.wait(10)
    leader.wait()
    leader.stdout.close()


def test_a_process_that_belongs_to_no_run_follows_nobody(monkeypatch):
    for value in ("", "another-host:1", "another-host:999999999"):
        monkeypatch.setenv(lifeline.VARIABLE, value)
        assert lifeline.named() == []
    monkeypatch.setenv(lifeline.VARIABLE, f"{os.uname().nodename}:999999999")
    assert lifeline.named() is None


def test_the_jobs_of_a_run_that_is_gone_are_waited_for(tmp_path):
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_SH); "
        "print(flush=True); time.sleep(2); open(sys.argv[1] + '.done', 'w').close()"
    )
    (tmp_path / ".training").mkdir()
    job = [sys.executable, "-c", code, str(tmp_path / execution.JOBS)]
    process = subprocess.Popen(job, stdout=subprocess.PIPE)
    process.stdout.readline()
    (tmp_path / ".run.json-abc.unfinished").mkdir()
    assert not batch.wait_for_jobs(tmp_path, seconds=0.2)
    batch.hold(tmp_path).close()
    # Its last act, before the lock goes with it.
    assert (tmp_path / f"{execution.JOBS}.done").exists() and not (tmp_path / ".run.json-abc.unfinished").exists()
    process.wait()
    process.stdout.close()


# --- training -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "probability"), [(np.nan, 0.1), (1.0, np.nan)])
def test_a_loss_that_is_no_number_ends_the_training_before_it_is_kept(loss, probability):
    class Network:
        distribute_strategy = tf.distribute.get_strategy()

        def predict(self, images, **options):
            return np.full((len(images), 7), probability)

    score = ScoreEpoch(np.zeros((4, 48, 48, 1)), np.zeros(4, int), np.array([True, True, False, False]), "public")
    score.set_model(Network())
    with pytest.raises(TrainingError, match="diverged: in epoch 3 .* 2 epochs before are kept; try a lower learning"):
        score.on_epoch_end(2, {"loss": loss})


# --- a full disk --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


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


def test_a_full_disk_while_a_notebook_is_written_is_said(small_disk, run_notebook, capsys):
    cell = f"print('x' * 10000); f = open({str(small_disk / 'filler')!r}, 'wb'); f.write(bytes(2**22))"
    ended, failure = run_notebook(["pass", cell], out=small_disk)
    assert ended is False
    # The record of the failure may not fit either.
    assert "the disk is full; free some space and call again" in capsys.readouterr().out
    (small_disk / "filler").unlink()
    assert run_notebook(["pass", "raise RuntimeError('as ever')"], out=small_disk)[1]["error"].endswith("as ever")


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
    monkeypatch.setattr(weights, "TIMEOUT", 0.5)
    cache = tmp_path / "keras"
    cache.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(cache))
    from keras.src.backend import config

    monkeypatch.setattr(config, "_KERAS_DIR", str(cache))
    yield play
    released.set()
    play.shutdown()
    play.server_close()


def get(application=keras.applications.MobileNetV3Small):
    return weights.backbone(application, "imagenet", input_shape=(48, 48, 3))


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
def test_a_server_that_does_not_give_the_weights_is_named(server, answer, length, said):
    server.answer, server.length = answer, length
    began = time.monotonic()
    _, record = get()
    assert record["used"] == "none" and said in record["reason"] and server.asked
    assert time.monotonic() - began < 15


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
