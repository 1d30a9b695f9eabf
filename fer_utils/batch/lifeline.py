"""Processes of a run that end when the run does, however it ended.

Jupyter kernels start a session of their own and Snakemake's jobs outlive a Snakemake that is killed, so that killing
a run, or its process group, would leave trainings behind. Each process of a run therefore adds itself to an environment
variable that its children inherit, and each child looks whether all those named there are still alive.
"""

import os
import socket
import threading

import psutil

#: ``host:pid,pid``: those whose end ends the run. On another host, where a cluster's jobs run, it says nothing.
VARIABLE = "FER_RUN"

#: Seconds between two looks.
INTERVAL = 0.5


def named():
    """Return the processes that the variable names and that are alive, or None if one of them is not."""
    host, _, numbers = os.environ.get(VARIABLE, "").partition(":")
    if host != socket.gethostname():
        return []
    try:
        return [psutil.Process(int(number)) for number in numbers.split(",")]
    except psutil.NoSuchProcess:
        return None


def lead(first=False):
    """Name this process to the processes that it will start; `first` forgets those named before."""
    host, _, numbers = os.environ.get(VARIABLE, "").partition(":")
    before = numbers.split(",") if host == socket.gethostname() and not first else []
    os.environ[VARIABLE] = f"{socket.gethostname()}:{','.join([*before, str(os.getpid())])}"


def alive(process):
    """Whether a process still runs; one that is dead and not yet reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def follow(end):
    """Call `end` as soon as one of those named has ended.

    Parameters
    ----------
    end : callable
        Called without arguments, in a thread of its own.
    """
    leaders = named()
    if leaders == []:
        return

    def watch():
        pause = threading.Event()
        while leaders and all(map(alive, leaders)):
            pause.wait(INTERVAL)
        end()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
