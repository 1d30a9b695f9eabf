"""One notebook of a planned run, executed headless: a job of the workflow.

Run as ``python -m fer_utils.batch.job dataset|methods|findings|audit|MODEL SEED`` in the run folder. papermill executes
a copy under ``.training/``, so that a job that is killed leaves no half of a result, and moves it into place at the
end.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import filelock
import psutil

from fer_utils.batch import processes
from fer_utils.batch.config import check_notebook
from fer_utils.batch.progress import name_of, outcome, say
from fer_utils.errors import ConfigError
from fer_utils.files import move, read_json, write_json
from fer_utils.findings.results import read_training
from fer_utils.paths import project_root

#: The notebooks that are not a model's, by the name of their folder in a run.
CHAPTERS = {
    "dataset": "01_dataset.ipynb",
    "methods": "06_methods.ipynb",
    "findings": "07_findings.ipynb",
    "audit": "08_audit.ipynb",
}

#: Set when this process is about to end: a kernel that dies then is not a failure of the notebook.
STOPPING = threading.Event()

#: The kernel's sockets while it runs.
SOCKETS = contextlib.ExitStack()

#: Seconds to wait for the lock that the kernel of a failed notebook held.
KERNEL_END = 5

#: The longest path of a socket that every system takes, less what Jupyter adds to the name.
SOCKET_PATH = 90


@contextmanager
def quiet(log):
    """Send what this process and its kernel write to the standard error, TensorFlow's notices, into a file."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def private_sockets(folder):
    """Return a kernel manager's configuration to listen on sockets in a folder, if its path is not too long for them.

    Jupyter chooses free ports that the kernel takes seconds later; one that starts beside others now and then finds a
    port taken in between, and dies (papermill's issue 511).
    """
    from traitlets.config import Config

    if len(os.fsencode(folder)) > SOCKET_PATH:
        return Config()
    return Config(KernelManager={"transport": "ipc", "connection_file": os.path.join(folder, "kernel.json")})


def execute(notebook, target, parameters, kernel, work):
    """Execute a notebook with papermill at `work`, and move it to `target` when all of it has run."""
    import papermill

    work.parent.mkdir(parents=True, exist_ok=True)
    # As in JupyterLab, a notebook can import what lies beside it; `run_all.sh` sets this for its own processes.
    os.environ.pop("PYTHONSAFEPATH", None)
    # Not in the main thread: there nbclient would take the signals for itself, and a notebook that was stopped would
    # look like one whose kernel died.
    with quiet(work.with_suffix(".log")), SOCKETS, ThreadPoolExecutor(1) as pool:
        folder = SOCKETS.enter_context(tempfile.TemporaryDirectory(prefix="fer-", ignore_cleanup_errors=True))
        job = pool.submit(
            papermill.execute_notebook,
            notebook,
            work,
            parameters=parameters,
            kernel_name=kernel,
            progress_bar=False,
            cwd=notebook.parent,
            start_timeout=300,
            config=private_sockets(folder),
        )
        try:
            job.result()
        except Exception:
            # The process ends while this waits.
            while STOPPING.is_set():
                time.sleep(1)
            raise
    target.parent.mkdir(parents=True, exist_ok=True)
    move(work, target)


def plain(text):
    """Strip the colours from a traceback."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def describe(error):
    """Say in a line what ended a notebook; papermill's own error carries the cell's."""
    if type(error).__name__ == "DeadKernelError":
        return "the kernel died; most often there was not enough memory"
    text = plain(f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}")
    # HDF5 and tempfile word it in their own ways.
    if re.search(r"No space left on device|errno = 28|No usable temporary directory", text):
        text = f"the disk is full; free some space and call again, to go on after the last whole epoch ({text})"
    return text


def run_chapter(plan, out, chapter):
    """Execute a notebook that is no model's; return whether it ran to its end."""
    parameters = {"out": str(out)}
    if chapter == "dataset":
        parameters |= {"data": plan["data_path"], "profile": plan["profile"]}
    source, work = project_root() / "notebooks" / CHAPTERS[chapter], out / ".training" / chapter / "notebook.ipynb"
    say(f"{chapter}: begins")
    try:
        check_notebook(source)
        execute(source, out / chapter / "notebook.ipynb", parameters, plan["kernel"], work)
    except Exception as error:
        say(f"{chapter}: FAILED: {describe(error)}\n  the notebook up to there: {work}")
        return False
    return True


def is_trained(state):
    """Whether a process holds the training's lock: another one than this job's kernel, which has ended or is ending."""
    try:
        with filelock.FileLock(state / "lock", timeout=KERNEL_END):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # a full disk
        return False


def run_model(plan, out, entry):
    """Execute a model's notebook; if it fails, leave a record of why and return False."""
    model, seed = entry["model"], entry["seed"]
    training = read_training(out / model / f"seed-{seed}", model, seed, entry["label"])
    state, result = out / ".training" / training.place, training.folder
    work, failed = state / "notebook.ipynb", out / "failed" / f"{model}-seed-{seed}.json"
    for path in (failed, state / "progress.json"):
        path.unlink(missing_ok=True)
    parameters = entry["parameters"] | {"out": str(out), "threads": entry["threads"]}
    name = name_of(training)
    say(f"{name}: begins")
    try:
        if "error" in entry:  # found before the run began
            raise ConfigError(entry["error"])
        source = project_root() / "notebooks" / entry["notebook"]
        execute(source, result / "notebook.ipynb", parameters, plan["kernel"], work)
    except Exception as error:
        message = describe(error)
        if is_trained(state):
            # Its files, and how it ends, are the matter of the process that trains it.
            say(f"{name}: left alone, another process is training it: {message}")
            return False
        traceback = plain("\n".join(getattr(error, "traceback", None) or [str(error)]))
        shutil.rmtree(result, ignore_errors=True)
        record = {key: entry[key] for key in ("model", "seed", "label", "notebook")}
        try:
            write_json(failed, record | {"error": message, "traceback": traceback})
        except OSError as reason:
            say(f"{name}: the failure cannot be recorded: {reason}")
        say(f"{name}: FAILED: {message}" + ("" if "error" in entry else f"\n  the notebook up to there: {work}"))
        return False
    training = read_training(result, *training.key, training.label)
    say(f"{name}: {outcome(training)}")
    return training.finished


def stop(status):
    """End this job and its kernel at once. What they were writing is not in its place yet."""
    STOPPING.set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    SOCKETS.close()
    os._exit(status)


def main(arguments=None):
    """Execute the job that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m fer_utils.batch.job", description=__doc__)
    parser.add_argument("name", help=f"{', '.join(CHAPTERS)}, or a model of the plan")
    parser.add_argument("seed", nargs="?", type=int)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: stop(128 + number))
    out = Path.cwd()
    locks = [processes.join(out, lambda: stop(128 + signal.SIGTERM))]
    plan = read_json(out / "plan.json")
    if options.name in CHAPTERS:
        return 0 if run_chapter(plan, out, options.name) else 1
    entry = next(e for e in plan["models"] if (e["model"], e["seed"]) == (options.name, options.seed))
    locks.append(processes.take_gpu(out, plan.get("gpus", 0)))
    return 0 if run_model(plan, out, entry) else 1


if __name__ == "__main__":
    sys.exit(main())
