"""How far a run is, for the person who waits for it."""

import threading
import time

from fer_utils.files import read_json
from fer_utils.words import duration

#: Seconds between two looks at the progress of a training.
INTERVAL = 2.0


def left(plan, out):
    """How far a run is.

    Parameters
    ----------
    plan : dict
        ``plan.json``: its models carry ``estimate``, the seconds that each was expected to take.
    out : Path
        The run folder.

    Returns
    -------
    done : float
        Share of the expected work that is done, 0..1.
    seconds : float
        Time left; models that have not begun are taken to be as much slower or faster than expected as the others.
    """
    total = sum(entry["estimate"] for entry in plan["models"])
    finished = remaining = expected = actual = 0.0
    running = []
    for entry in plan["models"]:
        place = f"{entry['model']}/seed-{entry['seed']}"
        progress = read_json(out / ".training" / place / "progress.json")
        estimate = entry["estimate"]
        record = read_json(out / place / "run.json")
        if record:
            finished += estimate
            expected += estimate
            actual += record["times"]["train_seconds"] + record["times"]["evaluate_seconds"]
        elif (out / "failed" / f"{place.replace('/', '-')}.json").exists():
            finished += estimate
        elif progress:
            finished += estimate * progress["done"]
            expected_here = estimate * (1 - progress["done"])
            seconds = progress["seconds_left"]
            running.append(expected_here if seconds is None else seconds)
            expected += expected_here
            actual += running[-1]
        else:
            remaining += estimate
    speed = actual / expected if expected > 0 and actual > 0 else 1.0
    jobs = max(plan.get("at_once", plan.get("jobs", 1)), 1)
    return finished / total if total else 1.0, max([remaining * speed / jobs + sum(running) / jobs, *running])


class Watch(threading.Thread):
    """Print a line whenever an epoch of the training is finished.

    Parameters
    ----------
    plan : dict
        The plan.
    out : Path
        The run folder.
    entry : dict
        The plan's entry for the model that this process trains.
    """

    def __init__(self, plan, out, entry):
        super().__init__(daemon=True)
        self.plan, self.out, self.entry = plan, out, entry
        self.path = out / ".training" / entry["model"] / f"seed-{entry['seed']}" / "progress.json"
        self.over = threading.Event()
        self.said = 0

    def run(self):
        """Look until `over` is set."""
        beat = time.monotonic()
        while not self.over.wait(INTERVAL):
            progress = read_json(self.path)
            if not progress:
                continue
            # A long epoch shows a sign of life each minute.
            if progress["finished"] == self.said and time.monotonic() - beat < 60:
                continue
            self.said, beat = progress["finished"], time.monotonic()
            done, seconds = left(self.plan, self.out)
            accuracy = progress.get("val_accuracy")
            seen = "" if accuracy is None else f", val_accuracy {accuracy:.3f}"
            say(
                f"{name_of(self.entry)}: {progress['done'] * progress['epochs']:.1f} of {progress['epochs']} epochs"
                f"{seen}; "
                f"whole run {done:.0%}, about {duration(seconds)} left"
            )


def say(text):
    """Print a line with the time of day."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def name_of(entry):
    """Return what a model's training is called in the terminal."""
    return f"{entry['label']} (seed {entry['seed']})"
