#!/usr/bin/env python
"""Kill runs at random moments, start them again, and compare what they leave with a run that was left alone.

For each model: an uninterrupted run, and one that is killed with SIGKILL so many times, each time after at least one
new epoch and some random time more, at the kernel, the papermill job, Snakemake, `./run_all.sh` or its whole process
group in turn. The same command is started again until it is done. Then history.csv, predictions.parquet and the best
weights must be equal byte for byte.

    .venv/bin/python tests/batch/faults/kill.py --kills 5 --seed 1
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]
MODELS = ("traditional_cnn", "resnet50", "vgg16", "mobilenet_v3")
TARGETS = ("kernel", "job", "snakemake", "run", "group")
COMPARED = ("history.csv", "predictions.parquet", "model.weights.h5")

#: Seconds after which something hangs.
LIMIT = 1800


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def finished_epochs(out):
    """Return how many epochs the training in a run folder has finished."""
    states = out.glob(".training/*/seed-*/state-*/state.json")
    return max((json.loads(path.read_text())["epoch"] for path in states), default=0)


def find(process, target):
    """Return the processes to kill: one of a run, or all of its process group; None if there is none now."""
    try:
        everyone = [process, *process.children(recursive=True)]
        if target == "run":
            return [process]
        if target == "group":
            return [p for p in everyone if os.getpgid(p.pid) == process.pid]
        marks = {"kernel": "ipykernel_launcher", "job": "fer_utils.batch.job", "snakemake": "snakemake"}
        found = [p for p in everyone if marks[target] in p.cmdline() and "bash" not in p.name()]
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
    return found[:1] or None


def start(command, log, environment=None):
    """Start a run in a process group of its own."""
    with open(log, "ab") as file:
        return psutil.Popen(command, stdout=file, stderr=file, start_new_session=True, env=environment)


def wait_for_epoch(process, out, before):
    """Wait until a run has finished another epoch; return whether it has, and not ended."""
    give_up = time.monotonic() + LIMIT
    while finished_epochs(out) <= before:
        if process.poll() is not None or time.monotonic() > give_up:
            return False
        time.sleep(0.05)
    return True


def kill_after_epoch(command, out, target, delay, log, environment=None):
    """Start a run, kill a part of it after at least one new epoch, and wait until nothing of it is left.

    Returns a dict with ``target``, ``epoch``, ``status`` (of the command), ``gone_after`` (seconds until all its
    processes were gone) and ``left``; None if the run ended before it could be killed.
    """
    before = finished_epochs(out)
    process = start(command, log, environment)
    chosen = None
    if wait_for_epoch(process, out, before):
        time.sleep(delay)
        chosen = find(process, target)
    if chosen is None:
        process.wait(LIMIT)
        return None
    everyone = [process, *process.children(recursive=True)]
    epoch = finished_epochs(out)
    for one in chosen if len(chosen) > 1 else ():
        one.suspend()  # those of a process group are killed at once, as the system does it
    for one in chosen:
        one.kill()
    killed = time.monotonic()
    status = process.wait(LIMIT)
    left = [one.pid for one in psutil.wait_procs(everyone, timeout=60)[1]]
    gone_after = round(time.monotonic() - killed, 1)
    return {"target": target, "epoch": epoch, "status": status, "gone_after": gone_after, "left": left}


def one_model(model, options, folder):
    """Make the two runs of a model; return what failed."""
    rng = random.Random(f"{options.seed} {model}")
    epochs, images = 3 * options.kills + 3, options.images
    base = [str(ROOT / "run_all.sh"), "--data", "synthetic", "--profile", "smoke", "--models", model]
    settings = {"epochs": epochs, "images_per_class": images, "test_images_per_class": images, "threads": 1}
    base += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    outs = [folder / model / name for name in ("whole", "killed")]
    for out in outs:
        out.mkdir(parents=True)
    log, failed = folder / model / "log.txt", []
    if start([*base, "--out", str(outs[0])], log).wait(LIMIT):
        failed.append("the run that was left alone did not end well")
    command = [*base, "--out", str(outs[1])]
    for number in range(options.kills):
        target = TARGETS[number % len(TARGETS)]
        kill = kill_after_epoch(command, outs[1], target, rng.uniform(0, options.delay), log)
        print(f"{model}: {kill}", flush=True)
        if kill is None or kill["status"] == 0 or kill["left"]:
            failed.append(f"kill {number + 1} ({target}): {kill}")
    if status := start(command, log).wait(LIMIT):
        failed.append(f"the last start ended with {status}")
    for name in COMPARED:
        hashes = [sha256(out / model / "seed-0" / name) for out in outs]
        print(f"{model}: {name} {hashes}")
        if hashes[0] is None or hashes[0] != hashes[1]:
            failed.append(f"{name} differs")
    # One training from the first epoch to the last, and not several begun anew.
    trained = list((outs[1] / ".training" / model / "seed-0").glob("state-*"))
    return [*failed, *([] if len(trained) == 1 else [f"it was begun {len(trained)} times: {trained}"])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--kills", type=int, default=5, help="for each model (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--images", type=int, default=8, help="of each class (default 8)")
    parser.add_argument("--delay", type=float, default=1.0, help="seconds, at most, from the new epoch to the kill")
    parser.add_argument("--at-once", type=int, default=2, help="models at the same time (default 2)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fer-kill-"))
    print(f"moments from seed {options.seed}; run folders and logs in {folder}", flush=True)
    models = options.models.split(",")
    with ThreadPoolExecutor(options.at_once) as pool:
        found = dict(zip(models, pool.map(lambda model: one_model(model, options, folder), models), strict=True))
    for model, failed in found.items():
        print(f"{model}: {'; '.join(['FAILED', *failed]) if failed else 'all equal'}")
    if not any(found.values()):
        shutil.rmtree(folder)
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
