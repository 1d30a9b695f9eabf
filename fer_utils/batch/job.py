"""One notebook of a planned run, executed headless: a job of the workflow.

Run as ``python -m fer_utils.batch.job dataset|methods|findings|MODEL SEED`` in the run folder. papermill executes
a copy under ``.training/``, so that a job that is killed leaves no half of a result, and moves it into place at the
end. Meanwhile the job says how far the whole run is.
"""

import argparse
import contextlib
import fcntl
import json
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

import psutil

from fer_utils.batch import gpus, lifeline
from fer_utils.batch.progress import Watch, name_of, say
from fer_utils.files import move, read_json, write_json
from fer_utils.paths import project_root
from fer_utils.training.resolved import Resolved
from fer_utils.words import duration

#: Set when this process is about to end: that its kernel dies before it is no failure of the notebook.
STOPPING = threading.Event()

#: Locked by every job of a run while it works, so that the next run can wait until the last of them has gone.
JOBS = ".training/jobs.lock"

#: The kernel's sockets while it runs.
SOCKETS = contextlib.ExitStack()

#: The longest path of a socket that every system takes, less what Jupyter adds to the name.
SOCKET_PATH = 90

#: The notebooks that are not a model's, by the name of their folder in a run.
CHAPTERS = {"dataset": "01_dataset.ipynb", "methods": "06_methods.ipynb", "findings": "07_findings.ipynb"}


@contextmanager
def quiet(log):
    """Send what this process and its children write to the standard error into a file.

    The kernel inherits it, and TensorFlow's C++ notices there are many; what a notebook prints is in the notebook.
    """
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
    """Configure a kernel to listen on sockets in a folder instead of on ports.

    Jupyter chooses free ports and lets go of them until the kernel takes them, seconds later. One that
    starts beside others now and then finds a port taken in between, and dies (papermill's issue 511).

    Parameters
    ----------
    folder : str
        Empty, and nobody else's.

    Returns
    -------
    traitlets.config.Config
        For the kernel's manager; empty, which means ports, where the folder's path is too long for a socket's.
    """
    from traitlets.config import Config

    if len(os.fsencode(folder)) > SOCKET_PATH:
        return Config()
    return Config(KernelManager={"transport": "ipc", "connection_file": os.path.join(folder, "kernel.json")})


def execute(notebook, target, parameters, kernel, work):
    """Execute a notebook with papermill.

    Parameters
    ----------
    notebook : Path
        The source.
    target : Path
        Where the executed notebook goes when all of it has run.
    parameters : dict
        Parameters by name.
    kernel : str
        Name of the Jupyter kernel.
    work : Path
        Where the copy lies while it runs, and stays if it fails.

    Raises
    ------
    papermill.PapermillExecutionError
        If a cell fails.
    """
    import papermill

    work.parent.mkdir(parents=True, exist_ok=True)
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
            cwd=project_root(),
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
    # HDF5 words it in its own way, with the system's words in it.
    if "No space left on device" in text or "errno = 28" in text:
        text = f"the disk is full; free some space and call again, to go on after the last whole epoch ({text})"
    return text


def run_chapter(plan, out, chapter):
    """Execute the dataset's, the methods' or the findings' notebook."""
    parameters = {"out": str(out)}
    if chapter == "dataset":
        parameters |= {"data": plan["data_path"], "profile": plan["profile"]}
    execute(
        project_root() / "notebooks" / CHAPTERS[chapter],
        out / chapter / "notebook.ipynb",
        parameters,
        plan["kernel"],
        out / ".training" / chapter / "notebook.ipynb",
    )


def run_model(plan, out, entry, threads):
    """Execute a model's notebook; if it fails, leave a record of why and return False."""
    place = f"{entry['model']}/seed-{entry['seed']}"
    folder = out / ".training" / place
    failed = out / "failed" / f"{place.replace('/', '-')}.json"
    failed.unlink(missing_ok=True)
    (folder / "progress.json").unlink(missing_ok=True)
    say(f"{name_of(entry)}: begins")
    started = time.monotonic()
    # Another number of jobs at once is no reason to go on with another number of threads, or of GPUs.
    resolved = Resolved(folder)
    chosen = {"threads": entry["parameters"]["threads"] or resolved.get("threads") or threads}
    count = plan.get("gpus", 0)
    if count > 1 and "devices" in entry["parameters"]:
        share = max(1, count // plan["jobs"])
        chosen["devices"] = entry["parameters"]["devices"] or resolved.get("devices") or share
    watch = Watch(plan, out, entry)
    watch.start()
    try:
        with gpus.claim(out / ".training", chosen.get("devices", 1), count):
            execute(
                project_root() / "notebooks" / entry["notebook"],
                out / place / "notebook.ipynb",
                entry["parameters"] | {"out": str(out)} | chosen,
                plan["kernel"],
                folder / "notebook.ipynb",
            )
    except Exception as error:
        message = describe(error)
        record = {
            "model": entry["model"],
            "seed": entry["seed"],
            "label": entry["label"],
            "error": message,
            "traceback": plain("\n".join(getattr(error, "traceback", None) or [str(error)])),
            "notebook": entry["notebook"],
        }
        shutil.rmtree(out / place, ignore_errors=True)
        try:
            write_json(failed, record)
        except OSError as reason:
            say(f"{name_of(entry)}: the failure cannot be recorded: {reason}")
        say(f"{name_of(entry)}: FAILED: {message}")
        say(f"  the notebook up to there: {folder / 'notebook.ipynb'}")
        return False
    finally:
        watch.over.set()
    score = read_json(out / place / "metrics.json")["best"]["test"]["accuracy"]
    say(f"{name_of(entry)}: done in {duration(time.monotonic() - started)}, test accuracy {score:.3f}")
    return True


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
    parser.add_argument("name", help="dataset, methods, findings, or a model of the plan")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: stop(128 + number))
    out = Path.cwd()
    (out / JOBS).parent.mkdir(exist_ok=True)
    jobs = open(out / JOBS, "a")  # noqa: SIM115 - it stays open as long as this process lives
    fcntl.flock(jobs, fcntl.LOCK_SH)
    lifeline.follow(lambda: stop(128 + signal.SIGTERM))
    lifeline.lead()
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    if options.name in CHAPTERS:
        say(f"{options.name}: begins")
        try:
            run_chapter(plan, out, options.name)
        except Exception as error:
            say(f"{options.name}: FAILED: {describe(error)}")
            say(f"  the notebook up to there: {out / '.training' / options.name / 'notebook.ipynb'}")
            return 1
        return 0
    entry = next(e for e in plan["models"] if (e["model"], e["seed"]) == (options.name, options.seed))
    return 0 if run_model(plan, out, entry, options.threads) else 1


if __name__ == "__main__":
    sys.exit(main())
