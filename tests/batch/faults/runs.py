#!/usr/bin/env python
"""Faults of a whole run that take longer than the test suite may: each case a real `./run_all.sh`.

    .venv/bin/python tests/batch/faults/runs.py            # all of them
    .venv/bin/python tests/batch/faults/runs.py stop disk

Each case prints what it found; the exit status is 1 if one of them is not as docs/faults.md says.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

# PYTHONSAFEPATH, which run_all.sh sets, leaves a script's own folder out.
sys.path.insert(0, str(Path(__file__).parent))
from kill import LIMIT, MODELS, ROOT, finished_epochs, sha256, start, wait_for_epoch  # noqa: E402


def command(out, *arguments, models="traditional_cnn", epochs=3):
    base = [str(ROOT / "run_all.sh"), "--data", "synthetic", "--profile", "smoke", "--models", models]
    settings = ("images_per_class=8", "test_images_per_class=8", "threads=1", f"epochs={epochs}")
    return [*base, *(word for pair in settings for word in ("--set", pair)), "--out", str(out), *arguments]


def run(words):
    """Return a command's exit status and all that it printed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
    return done.returncode, done.stdout + done.stderr


def check(what, true, shown=""):
    print(f"  {'ok' if true else 'FAILED'}: {what}", flush=True)
    if not true:
        print(shown[-3000:])
    return bool(true)


def begin(out, epochs, log):
    """Start a run in a process group of its own and wait for a new epoch."""
    before = finished_epochs(out)
    process = start(command(out, epochs=epochs), log)
    wait_for_epoch(process, out, before)
    return process


def stop(folder):
    """Ctrl-C, SIGTERM to the run alone, a terminal that is closed; then the same command goes on."""
    out, log, good = folder / "out", folder / "log.txt", True
    for number, to_group in ((signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, True)):
        process = begin(out, 12, log)
        everyone = process.children(recursive=True)
        (os.killpg if to_group else os.kill)(process.pid, number)
        status = process.wait(60)
        left = psutil.wait_procs(everyone, timeout=5)[1]
        text = log.read_text()
        good &= check(f"{number.name}: exit {status}", status == 128 + number, text)
        good &= check("nothing of it is left", not left, str(left))
        good &= check("it says that nothing is lost", "Nothing that was finished is lost" in text, text)
        good &= check("it is no failure of the model", "FAILED" not in text, text)
    status, text = run(command(out, epochs=12))
    return good & check("the same command ends well", status == 0, text)


def disk(folder):
    """A disk that is full at several moments, and then is not."""
    out, good = folder / "disk", True
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(out)], capture_output=True).returncode:
        print("  skipped: needs the right to mount a tmpfs")
        return True

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(out)], check=True)

    report = [str(ROOT / "run_all.sh"), "report", "--out", str(out)]
    try:
        for size in ("1m", "4m", "30m", "50m"):
            resize(size)
            status, text = run(command(out))
            said = [line for line in text.splitlines() if "disk is full" in line or "No space left" in line]
            good &= check(f"{size}: exit {status}, {finished_epochs(out)} epochs: {said[:1]}", status and said, text)
        resize("2g")
        status, text = run(command(out))
        good &= check("with room again the same command ends well", status == 0, text)
        before = sha256(out / "report.html")
        resize("100m")
        with contextlib.suppress(OSError), open(out / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(2**20))
        status, text = run(report)
        good &= check(f"report on a full disk: exit {status}", status, text)
        good &= check("the old report is as it was", sha256(out / "report.html") == before)
        (out / "filler").unlink()
        status, text = run(report)
        good &= check(f"and with room again: exit {status}", status == 0, text)
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)
    return good


def twice(folder):
    """All four networks twice, alone and two at a time: the same predictions."""
    good = True
    for name, jobs in (("one", "1"), ("two", "2")):
        status, text = run(command(folder / name, "--jobs", jobs, models=",".join(MODELS), epochs=1))
        good &= check(f"--jobs {jobs}: exit {status}", status == 0, text)
    for model in MODELS:
        one, other = (sha256(folder / name / model / "seed-0" / "predictions.parquet") for name in ("one", "two"))
        good &= check(f"{model}: the predictions are equal", one and one == other, f"{one} {other}")
    return good


CASES = {case.__name__: case for case in (stop, disk, twice)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    good = True
    for name in parser.parse_args().cases or CASES:
        folder = Path(tempfile.mkdtemp(prefix=f"fer-{name}-"))
        print(f"{name}: {CASES[name].__doc__} ({folder})", flush=True)
        right = CASES[name](folder)
        good &= right
        if right:
            shutil.rmtree(folder)
    print("all as described" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
