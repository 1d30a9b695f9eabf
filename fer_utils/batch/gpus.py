"""The GPUs of one machine, shared out among the jobs of a run."""

import os
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock


def names(count):
    """Return what ``CUDA_VISIBLE_DEVICES`` calls the GPUs that this process may use: what it says now, or numbers."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:count] if given else [str(n) for n in range(count)]


@contextmanager
def claim(folder, wanted, count):
    """Take some GPUs for this process and those that it starts; wait until they are free.

    One lock a GPU, of the system's own: it ends with the process, however that ends. All are taken or none, so that
    two jobs that want two each never wait for each other.

    Parameters
    ----------
    folder : Path
        Where the locks lie: one for all jobs of a run.
    wanted : int
        How many.
    count : int
        How many there are; with one or none nothing is done, and jobs share it.

    Yields
    ------
    list of str
        Their names, which ``CUDA_VISIBLE_DEVICES`` holds meanwhile.
    """
    if count < 2:
        yield []
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    with ExitStack() as held:
        while len(taken := take(folder, min(wanted, count), names(count), held)) < min(wanted, count):
            held.close()
            time.sleep(1)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        try:
            yield taken
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def take(folder, wanted, gpus, held):
    """Lock up to so many of the GPUs; return the names of those that were free."""
    taken = []
    with filelock.FileLock(Path(folder) / "gpus.lock"):
        for gpu in gpus:
            if len(taken) < wanted:
                try:
                    held.enter_context(filelock.FileLock(Path(folder) / f"gpu-{gpu}.lock", timeout=0))
                except filelock.Timeout:
                    continue
                taken.append(gpu)
    return taken
