"""What outlives a run, and what must not: locks, processes that follow, kernels, sockets."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from fer_utils.batch import job as jobs
from fer_utils.batch import processes, run

# --- the folder of a run ------------------------------------------------------------------------------------

HOLD = "import sys; from pathlib import Path; from fer_utils.batch import run; run.hold(Path(sys.argv[1]))"


def test_a_second_run_in_a_folder_is_refused_and_harms_nothing(tmp_path, capsys):
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.input.lock").write_text("")
    lock = run.hold(tmp_path)
    assert run.main(["report", "--out", str(tmp_path)]) == 2
    assert "another run is at work in this folder" in capsys.readouterr().err
    # Snakemake's lock is the first run's.
    assert (tmp_path / ".snakemake" / "locks" / "0.input.lock").exists()
    other = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True)
    assert "another run is at work" in other.stderr
    lock.release()
    run.hold(tmp_path).release()


JOB_THAT_ENDS = """
import sys, time
from pathlib import Path
from fer_utils.batch import processes
out = Path(sys.argv[1])
lock = processes.join(out, lambda: None)
print(flush=True)
time.sleep(2)
(out / "last act").touch()
"""


def test_the_jobs_of_a_run_that_is_gone_are_waited_for(tmp_path):
    with subprocess.Popen([sys.executable, "-c", JOB_THAT_ENDS, str(tmp_path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (tmp_path / ".run.json-abc.unfinished").mkdir()
        os.utime(tmp_path / ".run.json-abc.unfinished", (0, 0))
        assert not processes.wait_for_others(tmp_path, seconds=0.2)
        run.hold(tmp_path).release()
        assert (tmp_path / "last act").exists() and not (tmp_path / ".run.json-abc.unfinished").exists()
    assert list((tmp_path / processes.LOCKS).iterdir()) == []


# --- processes that follow ----------------------------------------------------------------------------------

CHILD = """
import os, time
from fer_utils.batch import processes
processes.follow(lambda: os._exit(7))
print("follows", flush=True)
time.sleep(60)
"""

LEADER = f"""
import subprocess, sys, time
from fer_utils.batch import processes
processes.lead(first=True)
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_process_in_a_session_of_its_own_ends_with_its_run():
    with subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True) as leader:
        child = psutil.Process(int(leader.stdout.readline()))
        assert leader.stdout.readline() == "follows\n"
        time.sleep(2 * processes.INTERVAL)
        assert processes.alive(child)
        leader.kill()
        # It is dead and not yet reaped, as where its parent is slow.
        child.wait(10)


@pytest.mark.parametrize(
    ("value", "ended"), [("", []), ("another-host:1,another-host:999999999", []), ("{here}:999999999", [True])]
)
def test_whom_a_process_follows(monkeypatch, value, ended):
    monkeypatch.setenv(processes.VARIABLE, value.format(here=os.uname().nodename))
    called = []
    processes.follow(lambda: called.append(True))
    assert called == ended


TAKE = """
import os, sys, time
from pathlib import Path
from fer_utils.batch import processes
lock = processes.take_gpu(Path(sys.argv[1]), 2)
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(60)
"""


def test_each_job_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    start = {"args": [sys.executable, "-c", TAKE, str(tmp_path)], "stdout": subprocess.PIPE, "text": True}
    first, second = subprocess.Popen(**start), subprocess.Popen(**start)
    names = {first.stdout.readline(), second.stdout.readline()}
    third = subprocess.Popen(**start)
    first.kill()
    assert names == {"4\n", "7\n"} and third.stdout.readline() in names
    for process in (second, third):
        process.kill()
    for process in (first, second, third):
        process.communicate()
    assert processes.take_gpu(tmp_path, 1) is None and os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"


# --- a job and its kernel -----------------------------------------------------------------------------------


@pytest.fixture
def temporary(monkeypatch):
    """A folder for temporary files with a path short enough for sockets, which that of `tmp_path` may not be."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


JOB = """
import ctypes, signal, subprocess, sys
from pathlib import Path
from fer_utils.batch import job
work = Path(sys.argv[1])
if sys.argv[2:] == ["adopts"]:
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER, as containers' first processes and systemd --user are
    child = subprocess.Popen([sys.executable, "-c", sys.orig_argv[2], str(work)])
    (work / "job").write_text(str(child.pid))
    signal.pause()
signal.signal(signal.SIGTERM, lambda number, _: job.stop(143))
job.execute(work / "source.ipynb", work / "target.ipynb", {}, "python3", work / "work.ipynb")
"""


def execute(folder, cell, *arguments):
    """Start a job that executes a notebook of one cell."""
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), folder / "source.ipynb")
    return subprocess.Popen([sys.executable, "-c", JOB, str(folder), *arguments])


def begin_long(folder, *arguments):
    """Start a job whose kernel is busy for a minute; return both when the kernel is at work."""
    path = folder / "kernel"
    begun = f"import os; open({str(path)!r}, 'w').write(str(os.getpid())); import time; time.sleep(60)"
    process = execute(folder, begun, *arguments)
    while not (path.exists() and path.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    return process, psutil.Process(int(path.read_text()))


def test_kernels_side_by_side_do_not_take_each_others_ports(tmp_path, temporary):
    """They have none."""
    cell = f"import ipykernel, os; print(os.listdir({str(temporary)!r}), ipykernel.get_connection_info())"
    assert execute(tmp_path, cell).wait(60) == 0
    printed = nbformat.read(tmp_path / "target.ipynb", as_version=4).cells[-1].outputs[0].text
    assert printed.startswith("['fer-") and '"transport": "ipc"' in printed
    assert list(temporary.iterdir()) == []


def test_a_folder_too_long_for_sockets_does_with_ports():
    assert jobs.private_sockets("/tmp/fer-x").KernelManager.transport == "ipc"
    assert jobs.private_sockets("/" + "ü" * 60) == {}


def test_a_stopped_job_leaves_no_kernel_and_no_sockets(tmp_path, temporary):
    job, kernel = begin_long(tmp_path)
    assert len(list(temporary.glob("fer-*"))) == 1
    job.terminate()
    assert job.wait(10) == 143
    kernel.wait(5)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("adopts",)], ids=["adopted by init", "adopted by another"])
@pytest.mark.usefixtures("temporary")
def test_the_kernel_of_a_killed_job_ends(tmp_path, arguments):
    process, kernel = begin_long(tmp_path, *arguments)
    os.kill(int((tmp_path / "job").read_text()) if arguments else process.pid, 9)
    give_up = time.monotonic() + 10
    # One that is dead and not reaped is no longer at work.
    while processes.alive(kernel) and time.monotonic() < give_up:
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert not processes.alive(kernel)


# --- a notebook that fails ----------------------------------------------------------------------------------


@pytest.fixture
def run_notebook(tmp_path, monkeypatch):
    """Return a function that runs a notebook of these cells as a run's job does."""
    monkeypatch.setattr(jobs, "project_root", lambda: tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as in run_all.sh
    (tmp_path / "notebooks").mkdir()

    def run_cells(cells, out=tmp_path / "out", **planned):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.cells[0].metadata.tags = ["parameters"]
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python", "language": "python"}
        nbformat.write(notebook, tmp_path / "notebooks" / "tiny.ipynb")
        entry = {"model": "tiny", "seed": 0, "label": "Tiny", "notebook": "tiny.ipynb", "parameters": {}, "threads": 1}
        (out / "tiny" / "seed-0").mkdir(parents=True, exist_ok=True)
        ended = jobs.run_model({"kernel": "python3"}, out, entry | planned)
        failed = out / "failed" / "tiny-seed-0.json"
        return ended, json.loads(failed.read_text()) if failed.exists() else None

    return run_cells


def test_an_exception_ends_the_model_and_is_recorded(run_notebook, tmp_path):
    # What lies beside a notebook is imported as in JupyterLab.
    (tmp_path / "notebooks" / "beside.py").write_text("answer = 'planted'\n")
    cell = "import os, beside; raise RuntimeError(f'{beside.answer} {os.path.basename(os.getcwd())}')"
    ended, failure = run_notebook(["pass", cell, "pass"])
    assert ended is False
    assert failure["error"] == "RuntimeError: planted notebooks" and "Traceback" in failure["traceback"]
    assert "\x1b" not in failure["traceback"]
    # What a reader may look at, and nothing that passes for a result.
    assert "planted" in (tmp_path / "out/.training/tiny/seed-0/notebook.ipynb").read_text()
    assert not (tmp_path / "out" / "tiny" / "seed-0").exists()


def test_a_notebook_found_broken_fails_with_that_line(run_notebook, capsys):
    ended, failure = run_notebook(["pass"], error="tiny.ipynb: merge markers")
    assert ended is False and failure["error"] == "ConfigError: tiny.ipynb: merge markers"
    assert capsys.readouterr().out.endswith("Tiny (seed 0): FAILED: ConfigError: tiny.ipynb: merge markers\n")


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)); bytearray(2**33)"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the kernel died; most often there was not enough memory"),
        (LIMITED, "MemoryError: "),
    ],
    ids=["killed by the system", "refused by the system"],
)
def test_not_enough_memory_is_said(run_notebook, cell, said):
    assert run_notebook(["pass", cell])[1]["error"] == said


def test_a_full_disk_while_a_notebook_is_written_is_said(small_disk, run_notebook, capsys):
    cell = f"print('x' * 10000); f = open({str(small_disk / 'filler')!r}, 'wb'); f.write(bytes(2**22))"
    ended, _ = run_notebook(["pass", cell], out=small_disk)
    # The record of the failure may not fit either.
    assert ended is False and "the disk is full; free some space and call again" in capsys.readouterr().out
    (small_disk / "filler").unlink()
    assert run_notebook(["pass", "raise RuntimeError('as ever')"], out=small_disk)[1]["error"].endswith("as ever")
