"""What a run asks of SLURM: its own jobs by name, to end them, and whether there are GPUs.

Snakemake's plugin submits the jobs and waits for them (``profiles/slurm/``). A job's name begins with that of the run
folder, so that whoever comes later finds the jobs of a run that is gone.
"""

import hashlib
import os
import re
import subprocess
import time
from collections import Counter

from fer_utils.errors import ConfigError

#: Seconds after which a command of SLURM is given up, and between two looks at jobs that are being ended.
LIMIT, INTERVAL = 60, 1.0

#: The most seconds between two looks of Snakemake's plugin at its jobs; it waits for ever for one that was forgotten.
LONGEST_LOOK = 180


def ask(*words):
    """Run a command of SLURM and return what it prints; ConfigError if it fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=LIMIT).stdout
    except FileNotFoundError:
        raise ConfigError(f"--cluster slurm: there is no command {words[0]} here; call on a login node") from None
    except subprocess.SubprocessError as error:
        said = " ".join((getattr(error, "stderr", None) or str(error)).split())
        raise ConfigError(f"SLURM does not answer: {' '.join(words)}: {said}") from None


def parse(option):
    """Split ``--cluster slurm`` or ``slurm:PARTITION`` into both names; ConfigError for anything else."""
    if not (found := re.fullmatch(r"(slurm)(?::([\w.-]+))?", option)):
        raise ConfigError(f"--cluster {option}: expected slurm or slurm:PARTITION")
    return found.groups()


def has_gpus(partition=None):
    """Whether nodes of a partition, or of the default one, have GPUs; ConfigError if there is no such partition."""
    rows = [line.split() for line in ask("sinfo", "--noheader", "--format=%P %G").splitlines()]
    chosen = [row for row in rows if (row[0].rstrip("*") == partition if partition else row[0].endswith("*"))]
    if partition and not chosen:
        known = ", ".join(dict.fromkeys(row[0].rstrip("*") for row in rows))
        raise ConfigError(f"--cluster slurm:{partition}: no such partition; there are {known or 'none'}")
    return any(re.match(r"(.*,)?gpu\b", row[1]) for row in chosen)


def forgets():
    """Return the seconds after which SLURM forgets a job that has ended, or None where it does not say."""
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else None


def name(out):
    """Return how the names of the jobs of a run folder begin."""
    return f"fer-{hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:16]}"


def jobs(out):
    """Return the jobs of a run folder in SLURM's queue: number to state and the reason why a job waits."""
    lines = ask("squeue", "--me", "--noheader", "--format=%i|%j|%T|%r").splitlines()
    rows = [line.strip().split("|") for line in lines]
    return {row[0]: (row[2], row[3]) for row in rows if len(row) == 4 and row[1].startswith(name(out))}


def cancel(out, seconds=LIMIT):
    """End the jobs of a run folder and wait until none is left; return how many there were.

    ConfigError if SLURM does not answer, or some are still there after `seconds`.
    """
    found, give_up = jobs(out), time.monotonic() + seconds
    left = found
    if found:
        ask("scancel", *found)
    while left := left and jobs(out):
        if time.monotonic() > give_up:
            raise ConfigError(f"{out}: jobs of an earlier call are still in SLURM's queue: {', '.join(left)}")
        time.sleep(INTERVAL)
    return len(found)


def describe_queue(out):
    """Say how many jobs of a run folder are at work and how many wait, and for what; empty if there are none."""
    try:
        found = jobs(out).values()
    except ConfigError:
        found = ()
    if not found:
        return ""
    waiting = Counter(reason for state, reason in found if state == "PENDING")
    reasons = f" ({', '.join(waiting)})" if waiting else ""
    return f"{len(found) - waiting.total()} at work on nodes, {waiting.total()} waiting in SLURM's queue{reasons}"
