"""Speed, side by side: ``./run_all.sh benchmark``.

Two ways to train the same network run in a process each and take short turns, so that whatever else slows the machine
slows both. What counts is the ratio of each pair of processes, the median of its turns'; the median of all pairs' has a
95% bootstrap interval, and where that interval holds the goal inside, the benchmark has not answered.
`benchmarks.costs` measures what is no comparison.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from fer_utils import provenance
from fer_utils.batch.config import choose_models, read_config
from fer_utils.errors import ConfigError, FerError
from fer_utils.files import write_json, write_text
from fer_utils.paths import project_root
from fer_utils.training import machine, onednn

#: Sides that differ in this, and what they are told of it.
ONEDNN = {"with_onednn": "1", "without_onednn": "0"}


@dataclass(frozen=True)
class Comparison:
    """What is measured against what.

    Attributes
    ----------
    about : str
        One sentence for the table.
    ours, other : str
        Sides: methods of `benchmarks.sides.Sides`, or ``"pytorch"``.
    goal : dict of str to float
        The least ratio of speeds, ours over the other's, by model; ``""`` is for all others.
    turns : int
        How often each process of a pair takes its turn.
    """

    about: str
    ours: str
    other: str
    goal: dict
    turns: int = 10


COMPARISONS = {
    "ceiling": Comparison(
        "Images a second of our whole pipeline, over those of `fit` on one batch repeated from memory.",
        "pipeline",
        "repeated",
        {"": 0.97},
    ),
    "generator": Comparison(
        "Images a second of ours, over those of stock Keras fed by ImageDataGenerator from folders of images.",
        "pipeline",
        "generator",
        {"": 1.0, "mobilenet_v3": 2.0},
    ),
    "pytorch": Comparison(
        "Images a second of ours, pipeline and metrics included, over those of PyTorch on one batch repeated from "
        "memory (channels last, the better of float32 and bfloat16 autocast).",
        "pipeline",
        "pytorch",
        {"": 1.0},
    ),
    "precision": Comparison(
        "Images a second of ours in mixed_bfloat16, over those in float32; `precision.yaml` is made from this.",
        "bfloat16",
        "float32",
        {"": 1.0},
    ),
    "onednn": Comparison(
        "Images a second of ours, over those of the same with oneDNN off, as TensorFlow has it on many laptops.",
        "with_onednn",
        "without_onednn",
        {"": 1.0},
    ),
    "resume": Comparison(
        "Images a second of epochs with exact resume (keyed order, deterministic operations, state kept), over those "
        "of plain `fit` on the same arrays; no augmentation, the same scoring after each epoch.",
        "resumable",
        "plain",
        {"": 0.97},
        # An epoch each.
        turns=1,
    ),
}


def median_interval(values):
    """Median of some values with its 95% interval.

    Parameters
    ----------
    values : sequence of float

    Returns
    -------
    median, low, high : float
        Bootstrap over the values (percentile).
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or np.ptp(values) == 0:
        return float(np.median(values)), float(values.min()), float(values.max())
    found = bootstrap((values,), np.median, method="percentile", n_resamples=9999, rng=np.random.default_rng(0))
    return float(np.median(values)), float(found.confidence_interval.low), float(found.confidence_interval.high)


def ratio_interval(ours, other, together=1):
    """Median ratio of paired speeds with its 95% interval.

    Parameters
    ----------
    ours, other : sequence of float
        Seconds of the same work, in pairs.
    together : int
        So many after each other were measured by the same processes, and count as one value: their median.

    Returns
    -------
    ratio, low, high : float
        How many times as fast ours is; see `median_interval`.
    """
    ratios = np.asarray(other, dtype=float) / np.asarray(ours, dtype=float)
    return median_interval([np.median(ratios[n : n + together]) for n in range(0, len(ratios), together)])


def verdict(low, high, goal, at_most=False):
    """Say whether an interval meets a goal: ``yes``, ``no``, or ``inconclusive`` where it straddles it.

    Parameters
    ----------
    low, high : float
        The interval.
    goal : float
        What is to be reached, or not to be exceeded.
    at_most : bool
        Whether it is not to be exceeded.
    """
    if at_most:
        low, high, goal = -high, -low, -goal
    if low >= goal:
        return "yes"
    return "no" if high < goal else "inconclusive"


def fastest(trainers):
    """Return the one that trains a batch in the least time.

    Parameters
    ----------
    trainers : list
        Each has a method ``train`` that takes a number of batches and returns seconds: those of
        `benchmarks.torch_side`, which no test can import beside TensorFlow.
    """
    # A first look, for where one takes very long: bfloat16 where the processor has none. The first steps of a process
    # take longer than all later ones.
    for rounds, limit in ((1, 10), (2, 3), (8, 1)):
        times = [[trainer.train(1) for trainer in trainers] for _ in range(rounds)]
        least = [min(seconds) for seconds in zip(*times, strict=True)]
        ranked = sorted(zip(least, trainers, strict=True), key=lambda pair: pair[0])
        trainers = [trainer for seconds, trainer in ranked if seconds <= limit * ranked[0][0]]
    return trainers[0]


class Side:
    """One way to train, in a process of its own that works only when it is asked to.

    Parameters
    ----------
    options : dict
        What `benchmarks.sides.main` and `benchmarks.torch_side.main` take.
    log : path
        Where its messages go.
    """

    def __init__(self, options, log):
        module = "benchmark_torch" if options["side"] == "pytorch" else "benchmark_sides"
        # TensorFlow chooses this before anything can be said to it.
        environment = {onednn.VARIABLE: ONEDNN[options["side"]]} if options["side"] in ONEDNN else {}
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"fer_utils.{module}", json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=os.environ | environment,
            )
        self.log = log
        self.ready = self.answer()

    def answer(self):
        """Read a line of JSON from it.

        Raises
        ------
        ConfigError
            If it ended instead.
        """
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise ConfigError(f"a side of the benchmark ended with status {self.process.wait()}; its messages: {self.log}")

    def ask(self):
        """Let it work for one measurement; return its answer."""
        print("go", file=self.process.stdin, flush=True)
        return self.answer()

    def measure(self):
        """Let it work for one measurement; return the seconds."""
        return self.ask()["seconds"]

    def end(self):
        """Stop it."""
        self.process.kill()
        self.process.wait()


def compare(name, model, options, folder):
    """Measure one comparison for one model.

    Returns
    -------
    dict
        A row of the table, with the seconds of every turn of both.
    """
    comparison = COMPARISONS[name]
    repeats = options.pairs or 10
    common = {"model": model, "data": options.data, "seconds": options.seconds or 1.0, "turns": comparison.turns}
    log = Path(project_root(), options.out) / f"{name}-{model}.log"
    steps, turns = options.steps, []
    # One process is faster than the next with the same code, by some percent of a short step: more turns of the same
    # two would only make the interval narrow around that chance.
    for pair in range(repeats):
        started = folder / f"{name}-{model}-{pair}"
        started.mkdir()
        of_both = common | {"folder": str(started)}
        with contextlib.ExitStack() as ends:
            # Both do the same work: the first says how many batches make a turn of the length asked for.
            ours = Side(of_both | {"side": comparison.ours, "steps": steps}, log)
            ends.callback(ours.end)
            steps = ours.ready["steps"]
            other = Side(of_both | {"side": comparison.other, "steps": steps}, log)
            ends.callback(other.end)
            # PyTorch's side tells which precision it found to be faster, so that it need not be found again.
            common["bfloat16"] = other.ready.get("bfloat16")
            for turn in range(comparison.turns):
                order = (ours, other) if (pair + turn) % 2 == 0 else (other, ours)
                seconds = {side: side.measure() for side in order}
                turns.append((seconds[ours], seconds[other]))
        ratio, _, _ = ratio_interval(*zip(*turns[-comparison.turns :], strict=True))
        print(f"  {name}, {model}: pair {pair + 1} of {repeats}: {ratio:.3f}")
    ratio, low, high = ratio_interval(*zip(*turns, strict=True), together=comparison.turns)
    goal = comparison.goal.get(model, comparison.goal[""])
    images = ours.ready["images"]
    return {
        "comparison": name,
        "model": model,
        "ours": images / float(np.median([a for a, _ in turns])),
        "other": images / float(np.median([b for _, b in turns])),
        "ratio": ratio,
        "low": low,
        "high": high,
        "goal": goal,
        "met": verdict(low, high, goal),
        "note": "; ".join(filter(None, (ours.ready.get("note"), other.ready.get("note")))),
        "pairs": repeats,
        "turns": turns,
    }


def table(rows):
    """Return the rows as a Markdown table, one a comparison, with what each compares."""
    lines = []
    for name in dict.fromkeys(row["comparison"] for row in rows):
        lines += [f"## {name}", "", COMPARISONS[name].about, ""]
        lines += ["| model | ours, images/s | other, images/s | ratio | 95% interval | goal | met | note |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for row in rows:
            if row["comparison"] == name:
                lines.append(
                    f"| {row['model']} | {row['ours']:.0f} | {row['other']:.0f} | {row['ratio']:.3f} | "
                    f"{row['low']:.3f} to {row['high']:.3f} | {row['goal']:g} | {row['met']} | {row['note']} |"
                )
        lines.append("")
    return "\n".join(lines)


def main(arguments=None):
    """Run what the command line names; table and JSON are brought up to date after each."""
    # It takes intervals and sides from here.
    from benchmarks.costs import MEASUREMENTS
    from benchmarks.costs import table as table_of_costs

    config = read_config()
    known = [*COMPARISONS, *MEASUREMENTS]
    parser = argparse.ArgumentParser(prog="./run_all.sh benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=["ceiling", "generator", "resume"], metavar="|".join(known))
    parser.add_argument("--models", help=f"with commas; default: {','.join(config['default_models'])}")
    parser.add_argument(
        "--pairs",
        "--repeats",
        type=int,
        help="pairs of processes, or measurements of each cost (default: 10; 2 or 3 of long ones)",
    )
    parser.add_argument("--seconds", type=float, help="length of a turn, or of a cost's measurement (default: 1; 4)")
    parser.add_argument("--steps", type=int, default=0, help="batches of one, or of an epoch of resume")
    parser.add_argument("--data", default="synthetic", help="as for a run; only costs depend on it")
    parser.add_argument("--out", default="results/benchmark", help="folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        unknown = [name for name in options.names if name not in known]
        if unknown:
            raise ConfigError(f"no comparison {', '.join(unknown)}; there are {', '.join(known)}")
        models = choose_models(config, options.models)
        out = Path(project_root(), options.out)
        out.mkdir(parents=True, exist_ok=True)
        about = {
            "cpu": machine.cpu_name(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "versions": machine.versions(),
            "git": provenance.git(),
            "command": ["./run_all.sh", "benchmark", *(sys.argv[1:] if arguments is None else arguments)],
        }
        compared, costs = [], []

        def text():
            return "\n".join(filter(None, (table(compared), table_of_costs(costs))))

        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for name in options.names:
                if name in MEASUREMENTS:
                    measured, rows, shown = MEASUREMENTS[name](models, options, folder), costs, table_of_costs
                else:
                    measured, rows, shown = (compare(name, model, options, folder) for model in models), compared, table
                for row in measured:
                    rows.append(row)
                    write_json(out / "benchmark.json", about | {"rows": compared + costs})
                    write_text(out / "benchmark.md", text())
                    print(shown([row]).splitlines()[-1])
    except FerError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print(f"\n{text()}\n{out / 'benchmark.md'}")
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
