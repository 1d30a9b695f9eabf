#!/usr/bin/env python
"""Kill runs at random moments, start them again, and hold what they leave against a run that was left alone.

For each model: an uninterrupted run, and one that is killed with SIGKILL so many times, each time after at least one
new epoch and some random time more, at the kernel, the papermill job, Snakemake, `./run_all.sh` or its whole process
group in turn. The same command is started again until it is done. Then history.csv, predictions.parquet and the best
weights must be equal byte for byte. Prints a table, and JSON with --json.

    .venv/bin/python tests/faults/kill.py --kills 5 --seed 1
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
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
LIMIT = 900


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


def kill_after_epoch(command, out, target, delay, log, environment=None):
    """Start a run, kill a part of it after at least one new epoch, and wait until nothing of it is left.

    Returns
    -------
    dict or None
        ``target``, ``epoch``, ``status`` (of the command), ``gone_after`` (seconds until all its processes were
        gone); None if the run ended before it could be killed.
    """
    before = finished_epochs(out)
    process = start(command, log, environment)
    give_up = time.monotonic() + LIMIT
    while finished_epochs(out) <= before:
        if process.poll() is not None or time.monotonic() > give_up:
            return None
        time.sleep(0.05)
    time.sleep(delay)
    chosen = find(process, target)
    if chosen is None:
        process.wait(LIMIT)
        return None
    everyone = [process, *process.children(recursive=True)]
    epoch = finished_epochs(out)
    for one in chosen:
        # Those of a process group are killed at once, as the system does it.
        one.suspend() if len(chosen) > 1 else None
    for one in chosen:
        one.kill()
    killed = time.monotonic()
    status = process.wait(LIMIT)
    left = psutil.wait_procs(everyone, timeout=60)[1]
    return {
        "target": target,
        "epoch": epoch,
        "status": status,
        "gone_after": round(time.monotonic() - killed, 1),
        "left": [one.pid for one in left],
    }


def one_model(model, options, folder):
    """Make the two runs of a model and compare them."""
    rng = random.Random(f"{options.seed} {model}")
    epochs = options.epochs or 3 * options.kills + 3
    settings = [f"epochs={epochs}", f"images_per_class={options.images}", f"threads={options.threads}"]
    settings += [f"test_images_per_class={options.images}", *options.set]
    base = [str(ROOT / "run_all.sh"), "--data", options.data, "--profile", "smoke", "--models", model]
    base += [word for setting in settings for word in ("--set", setting)]
    outs = {name: folder / model / name for name in ("whole", "killed")}
    for out in outs.values():
        out.mkdir(parents=True)
    log = folder / model / "log.txt"
    found = {"model": model, "epochs": epochs, "kills": [], "failed": []}
    began = time.monotonic()
    if start([*base, "--out", str(outs["whole"])], log).wait(LIMIT):
        found["failed"].append("the run that was left alone did not end well")
    found["whole_seconds"] = round(time.monotonic() - began)
    command = [*base, "--out", str(outs["killed"])]
    while len(found["kills"]) < options.kills:
        target = TARGETS[len(found["kills"]) % len(TARGETS)]
        kill = kill_after_epoch(command, outs["killed"], target, rng.uniform(0, options.delay), log)
        if kill is None:
            found["failed"].append(f"it ended after {len(found['kills'])} kills; give more --epochs")
            break
        found["kills"].append(kill)
        print(f"{model}: killed {target} after epoch {kill['epoch']} of {epochs}", flush=True)
        if kill["status"] == 0 or kill["left"]:
            found["failed"].append(f"after kill {len(found['kills'])} ({target}): {kill}")
    status = start(command, log).wait(LIMIT)
    if status:
        found["failed"].append(f"the last start ended with {status}")
    for name in COMPARED:
        hashes = [sha256(out / model / "seed-0" / name) for out in outs.values()]
        found[name] = hashes
        if hashes[0] is None or hashes[0] != hashes[1]:
            found["failed"].append(f"{name} differs")
    # One training from the first epoch to the last, and not several begun anew.
    trained = [path.name for path in (outs["killed"] / ".training" / model / "seed-0").glob("state-*")]
    if len(trained) != 1:
        found["failed"].append(f"it was begun {len(trained)} times: {trained}")
    found["seconds"] = round(time.monotonic() - began)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--kills", type=int, default=5, help="for each model (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--epochs", type=int, help="default: three times the kills and three")
    parser.add_argument("--images", type=int, default=8, help="of each class (default 8)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds, at most, from the new epoch to the kill")
    parser.add_argument("--at-once", type=int, default=2, help="models at the same time (default 2)")
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path, help="write the findings here")
    parser.add_argument("--keep", action="store_true", help="keep the run folders")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fer-kill-"))
    print(f"{' '.join(sys.argv)}\nmoments from seed {options.seed}; run folders and logs in {folder}", flush=True)
    began = time.monotonic()
    with ThreadPoolExecutor(options.at_once) as pool:
        found = list(pool.map(lambda model: one_model(model, options, folder), options.models.split(",")))
    print(f"\n{'model':17} {'kill':4} {'target':10} {'after epoch':11} {'exit':>4} {'all gone after':>14}")
    for one in found:
        for number, kill in enumerate(one["kills"], 1):
            epoch = f"{kill['epoch']}/{one['epochs']}"
            print(
                f"{one['model']:17} {number:<4} {kill['target']:10} {epoch:11} {kill['status']:>4} "
                f"{kill['gone_after']:>12} s"
            )
    print(f"\n{'model':17} {'file':20} sha256 without and with the kills")
    for one in found:
        for name in COMPARED:
            print(f"{one['model']:17} {name:20} {' '.join(str(sha)[:16] for sha in one[name])}")
        for line in one["failed"]:
            print(f"{one['model']:17} FAILED: {line}")
    kills = sum(len(one["kills"]) for one in found)
    failed = any(one["failed"] for one in found)
    print(f"\n{kills} kills in {time.monotonic() - began:.0f} s: {'FAILED' if failed else 'all equal'}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if not options.keep and not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
