"""How far a run is, for the person who waits for it: bars on a terminal, lines in a log."""

import contextlib
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from fer_utils.findings.results import read_object, read_run
from fer_utils.words import duration

#: Seconds between two looks at the trainings' progress, and where it comes from other machines.
INTERVAL, INTERVAL_ELSEWHERE = 1.0, 10.0

#: Seconds after which a log shows a sign of life although no epoch was finished.
BEAT = 60

#: What a training does after its last epoch.
SCORING = "scoring all images"


def running(run):
    """Return the progress of each training at work: (model, seed) to the content of its ``progress.json``."""
    found = {}
    for training in run.trainings:
        path = run.folder / ".training" / training.place / "progress.json"
        if not training.record and not training.failure and (progress := read_object(path)[0]):
            found[training.key] = progress
    return found


def left(run):
    """Return the share of a run's expected work that is done, and the seconds left.

    Models that have not begun are taken to be as much slower or faster than expected as the others.
    """
    progress = running(run)
    estimates = {(entry["model"], entry["seed"]): entry["estimate"] for entry in run.plan["models"]}
    finished = waiting = expected = actual = 0.0
    remaining = []
    for training in run.trainings:
        if training.key not in estimates:
            continue  # of an earlier call
        key, estimate = training.key, estimates[training.key]
        if training.failure:
            finished += estimate
        elif training.record:
            finished += estimate
            expected += estimate
            actual += training.seconds
        elif key in progress:
            rest = estimate * (1 - progress[key]["done"])
            seconds = progress[key]["seconds_left"]
            remaining.append(rest if seconds is None else seconds)
            finished += estimate - rest
            expected += rest
            actual += remaining[-1]
        else:
            waiting += estimate
    speed = actual / expected if expected and actual else 1.0
    seconds = max([(waiting * speed + sum(remaining)) / max(run.plan.get("at_once", 1), 1), *remaining])
    return finished / max(sum(estimates.values()), 1e-9), seconds


def describe(progress):
    """Say how far a training is, from its ``progress.json``."""
    if progress.get("stage") == "scoring" or progress["done"] >= 1:
        return SCORING
    accuracy = progress.get("val_accuracy")
    seen = "" if accuracy is None else f", val_accuracy {accuracy:.3f}"
    return f"{progress['done'] * progress['epochs']:.1f} of {progress['epochs']} epochs{seen}"


class Reporter:
    """Reports the progress of the run in the folder `out` while a ``with`` block runs.

    Where it is `live` it draws bars, and whatever else goes to the terminal must be printed by this process. What jobs
    on other machines (`elsewhere`) print is not seen here, so their news are told; `queue` returns a line on those that
    wait.
    """

    def __init__(self, out, console=None, elsewhere=False, queue=None):
        console = console or Console()
        self.out, self.live = out, console.is_terminal
        self.elsewhere, self.queue, self.queued, self.known = elsewhere, queue, "", {}
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}")
        self.bars = Progress(*columns, console=console, transient=True, disable=not self.live)
        self.tasks, self.said = {}, {}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.bars.start()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.bars.stop()

    def watch(self):
        """Look at the run until the block ends."""
        if self.elsewhere:
            self.tell(read_run(self.out))
        while not self.over.wait(INTERVAL_ELSEWHERE if self.elsewhere else INTERVAL):
            run = read_run(self.out)
            if self.elsewhere:
                self.tell(run)
            (self.draw if self.live else self.log)(run)
        if self.elsewhere:
            self.tell(read_run(self.out))

    def tell(self, run):
        """Say what the jobs on other machines would have said here since the last look, and how many wait."""
        progress = running(run)
        states = {}
        for training in run.trainings:
            states[training.key] = name_of(training), outcome(training, "begins" if training.key in progress else "")
        # What was there at the first look is no news.
        for key, (name, text) in states.items() if self.known else ():
            if text and self.known[key][1] != text:
                say(f"{name}: {text}")
        self.known = states
        queued = self.queue() if self.queue else ""
        if queued and queued != self.queued:
            self.queued = queued
            say(queued)

    def draw(self, run):
        """Update a bar for each training at work and one for the run."""
        names = {training.key: name_of(training) for training in run.trainings}
        done, seconds = left(run)
        rows = {key: (p["done"], describe(p), p["seconds_left"]) for key, p in running(run).items()}
        for key, (share, note, rest) in (rows | {"run": (done, "", seconds)}).items():
            if key not in self.tasks:
                self.tasks[key] = self.bars.add_task(names.get(key, "whole run"), total=1, note="")
            self.bars.update(self.tasks[key], completed=share, note=", ".join(filter(None, [note, time_left(rest)])))
        for key in self.tasks.keys() - rows.keys() - {"run"}:
            self.bars.remove_task(self.tasks.pop(key))

    def log(self, run):
        """Print a line for each training that finished an epoch, began to score, or has been silent for a while."""
        progress = running(run)
        for training in run.trainings:
            key = training.key
            if key not in progress:
                continue
            text = describe(progress[key])
            state = text if text == SCORING else progress[key]["finished"]
            before, when = self.said.setdefault(key, (0, time.monotonic()))
            if state != before or time.monotonic() - when > BEAT:
                self.said[key] = state, time.monotonic()
                done, seconds = left(run)
                whole = ", ".join(filter(None, [f"whole run {done:.0%}", time_left(seconds)]))
                say(f"{name_of(training)}: {text}; {whole}")


def outcome(training, otherwise=""):
    """Say how a training ended, or something else if it has not."""
    if training.failure:
        return f"FAILED: {training.failure['error']}"
    if not training.finished:
        return otherwise
    accuracy = training.metrics["best"][training.final_part]["accuracy"]
    return f"done in {duration(training.seconds)}, accuracy {accuracy:.3f} ({training.final_part})"


def time_left(seconds):
    """Say how much time is left; nothing where that is not known, as while all images are scored."""
    return f"about {duration(seconds)} left" if seconds else ""


def say(text):
    """Print a line with the time of day; a terminal that is gone is no reason to end."""
    with contextlib.suppress(OSError):
        print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def name_of(training):
    """Return what a training is called in the terminal."""
    return f"{training.label} (seed {training.seed})"
