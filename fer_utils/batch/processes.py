"""The processes of a run: they end when the run does, however it ended, and the next run waits for them.

Snakemake and its jobs outlive a run that is killed. Each of them names itself in an environment variable that its
children inherit, watches the processes named there, and holds a lock file of its own. A kernel needs none of this:
ipykernel ends when its parent, the job, is gone.
"""

import os
import socket
import threading
import time
from pathlib import Path

import filelock
import psutil

#: ``host:pid`` of each process whose end ends the run, with commas; on another host it says nothing.
VARIABLE = "FER_RUN"

#: Seconds between two looks.
INTERVAL = 0.5

#: Where the lock files lie, below the run folder.
LOCKS = Path(".training", "locks")


def lead(first=False):
    """Name this process to the processes that it will start; `first` forgets those named before."""
    before = [] if first else os.environ.get(VARIABLE, "").split(",")
    os.environ[VARIABLE] = ",".join(filter(None, [*before, f"{socket.gethostname()}:{os.getpid()}"]))


def alive(process):
    """Whether a process still runs; one that is dead and not yet reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def follow(end):
    """Call `end` as soon as one of the processes named on this host is gone, in a thread; at once if one is."""
    named = [entry.rpartition(":") for entry in os.environ.get(VARIABLE, "").split(",")]
    try:
        leaders = [psutil.Process(int(pid)) for host, _, pid in named if host == socket.gethostname()]
    except psutil.NoSuchProcess:
        return end()

    def watch():
        while all(map(alive, leaders)):
            time.sleep(INTERVAL)
        end()

    if leaders:
        threading.Thread(target=watch, name="follow", daemon=True).start()


def join(out, end):
    """Make this process one of the run in the folder `out`, which calls `end` when the run is gone; return its lock.

    The system releases the lock when this process ends, however it does.
    """
    (out / LOCKS).mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / LOCKS / f"{socket.gethostname()}-{os.getpid()}.lock")
    lock.acquire()
    follow(end)
    lead()
    return lock


def wait_for_others(out, seconds):
    """Wait until no process of a run works in the folder `out`; return whether that came true."""
    give_up = time.monotonic() + seconds
    while paths := list((out / LOCKS).glob("*.lock")):
        for path in paths:
            try:
                with filelock.FileLock(path, timeout=max(give_up - time.monotonic(), 0)):
                    path.unlink(missing_ok=True)
            except filelock.Timeout:
                return False
    return True


def take_gpu(out, count):
    """Reserve one of `count` GPUs for this process and its children, when one is free; return the lock on it.

    With one GPU or none nothing is done: all jobs share it.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(number) for number in range(count)]
    while count > 1:
        for name in names[:count]:
            lock = filelock.FileLock(out / ".training" / f"gpu-{name}.lock", timeout=0)
            try:
                lock.acquire()
            except filelock.Timeout:
                continue
            os.environ["CUDA_VISIBLE_DEVICES"] = name
            return lock
        time.sleep(1)
    return None
