"""The processes of a run: they end when the run does, however it ended, and the next run waits for them.

Snakemake and its jobs outlive a run that is killed. Each of them names itself in an environment variable that its
children inherit, watches the processes named there, and holds a lock file of its own. On other hosts these say nothing:
there a job compares the run that started it with the one that the folder names. A kernel needs none of this:
ipykernel ends when its parent, the job, is gone.
"""

import atexit
import contextlib
import os
import signal
import socket
import threading
import time
import uuid
from pathlib import Path

import filelock
import psutil

from fer_utils.files import SILENCE, clock, write_json
from fer_utils.findings.results import read_object

#: ``host:pid`` of each process whose end ends the run, with commas; on another host it says nothing.
VARIABLE = "FER_RUN"

#: Which run started a process; a name without the word that marks secrets (`fer_utils.errors`).
RUN_ID = "FER_RUN_ID"

#: The run that a folder belongs to, ``id`` and ``host``. The file's time is that of the run's last sign of life.
OWNER = Path(".training", "owner.json")

#: Seconds between two looks at the leaders, at the folder's owner, and between two signs of life.
INTERVAL, OWNER_INTERVAL, BEAT = 0.5, 2.0, 10.0

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


def own(out):
    """Make the folder `out` this run's: from now on what belongs to another run ends by itself."""
    os.environ[RUN_ID] = uuid.uuid4().hex[:12]
    write_json(out / OWNER, {"id": os.environ[RUN_ID], "host": socket.gethostname()})
    atexit.register(disown, out)

    def live():
        while True:
            time.sleep(BEAT)
            with contextlib.suppress(OSError):
                os.utime(out / OWNER)

    threading.Thread(target=live, name="live", daemon=True).start()


def disown(out):
    """Give the folder `out` up, if it is this run's: its jobs end by themselves, on whatever host."""
    if read_object(out / OWNER)[0].get("id") == os.environ.get(RUN_ID):
        (out / OWNER).unlink(missing_ok=True)


def owned(out):
    """Whether the folder `out` is that of the run that started this process."""
    owner, problem = read_object(out / OWNER)
    # What cannot be read, as now and then on a network file system, says nothing.
    return bool(problem) or owner.get("id") == os.environ.get(RUN_ID)


def owner_elsewhere(out):
    """Return the host of a run that works in the folder `out` from another host, or None.

    Locks may be known on their own host only; signs of life are seen from everywhere.
    """
    host = read_object(out / OWNER)[0].get("host")
    with contextlib.suppress(FileNotFoundError):
        if host != socket.gethostname() and clock(out) - (out / OWNER).stat().st_mtime < SILENCE:
            return host
    return None


def follow(end, out=None):
    """Call `end` as soon as one of the processes named on this host is gone, in a thread; at once if one is.

    With a folder `out` also as soon as that is another run's, or nobody's.
    """
    named = [entry.rpartition(":") for entry in os.environ.get(VARIABLE, "").split(",")]
    try:
        leaders = [psutil.Process(int(pid)) for host, _, pid in named if host == socket.gethostname()]
    except psutil.NoSuchProcess:
        return end()
    out = out if RUN_ID in os.environ else None

    def disowned():
        # Twice in a row: on a network file system a file that is replaced may be missing for a moment.
        return out and not owned(out) and (time.sleep(INTERVAL) or not owned(out))

    if disowned():
        return end()

    def watch():
        looked = time.monotonic()
        while all(map(alive, leaders)):
            time.sleep(INTERVAL)
            if time.monotonic() - looked > OWNER_INTERVAL:
                looked = time.monotonic()
                if disowned():
                    break
        end()

    if leaders or out:
        threading.Thread(target=watch, name="follow", daemon=True).start()


def join(out, end):
    """Make this process one of the run in the folder `out`, which calls `end` when the run is gone; return its lock.

    The system releases the lock when this process ends, however it does.
    """
    (out / LOCKS).mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / LOCKS / f"{socket.gethostname()}-{os.getpid()}.lock")
    lock.acquire()
    follow(end, out)
    lead()
    return lock


def interrupt_once():
    """Take the first Ctrl-C and no other: the terminal and the run may both send one, and one cancels all jobs."""

    def interrupt(number, frame):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def interrupt_this(seconds):
    """End this process as Ctrl-C does; at once if it is still there after some seconds."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(seconds)
    os._exit(1)


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
