"""Speed, side by side: ``./run_all.sh benchmark``.

Ways to train the same network run in a process each and take short turns, so that whatever else slows the machine down
slows all of them. What counts is the ratio of the speeds within one set of processes, the median of its turns; the
median over the sets has a 95% bootstrap interval. Where that interval holds the goal inside, the verdict is
"inconclusive".
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from fer_utils import provenance
from fer_utils.batch.config import choose_models, notebook_parameters, read_config
from fer_utils.errors import ConfigError, FerError
from fer_utils.files import write_json, write_text
from fer_utils.paths import project_root, resolve

#: Turns that each process takes.
TURNS = 10


class Comparison(NamedTuple):
    """Sides of `benchmarks.sides` and `benchmarks.torch_side`, and the least ratio of speeds by model, if not 1."""

    about: str
    ours: str
    over: tuple
    goals: dict = {}


COMPARISONS = {
    "fast_layers": Comparison("The same network and pipeline: ours over stock Keras.", "ours", ("stock",)),
    "generator": Comparison(
        "Ours over what the thesis used: stock Keras in float32, fed by ImageDataGenerator from folders of images.",
        *("ours", ("generator",), {"mobilenet_v3": 2.0}),
    ),
    "pytorch": Comparison(
        "Ours, pipeline and metrics included, over PyTorch, eager and compiled, on one batch repeated from memory "
        "(channels last, the faster of float32 and bfloat16 autocast).",
        *("ours", ("pytorch", "pytorch_compiled")),
    ),
    "precision": Comparison(
        "Ours in mixed_bfloat16 over float32; the note is the entry for `fer_utils/training/precision.yaml`.",
        *("bfloat16", ("float32",)),
    ),
}


def median_interval(values):
    """Return the median of some values and its 95% interval: a percentile bootstrap over the values."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or np.ptp(values) == 0:
        return float(np.median(values)), float(values.min()), float(values.max())
    found = bootstrap((values,), np.median, method="percentile", n_resamples=9999, rng=np.random.default_rng(0))
    return float(np.median(values)), float(found.confidence_interval.low), float(found.confidence_interval.high)


def verdict(low, high, goal):
    """Say whether an interval meets a goal: ``yes``, ``no``, or ``inconclusive`` where the goal lies inside."""
    return "yes" if low >= goal else "no" if high < goal else "inconclusive"


def fastest(trainers):
    """Return which of the trainers of `benchmarks.torch_side` takes the least time for a batch."""
    # A first look, for where one takes very long: bfloat16 where the processor has none. The first steps of a process
    # take longer than all later ones.
    for rounds, limit in ((1, 10), (2, 3), (8, 1)) if len(trainers) > 1 else ():
        times = [[trainer.train(1) for trainer in trainers] for _ in range(rounds)]
        least = [min(seconds) for seconds in zip(*times, strict=True)]
        ranked = sorted(zip(least, trainers, strict=True), key=lambda pair: pair[0])
        trainers = [trainer for seconds, trainer in ranked if seconds <= limit * ranked[0][0]]
    return trainers[0]


class Side:
    """One way to train, in a process of its own that works only when it is asked to; its messages go to a log."""

    def __init__(self, options, log):
        self.name, self.log = options["side"], log
        module = "torch_side" if self.name.startswith("pytorch") else "sides"
        command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(options)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # This package is not installed, and PYTHONSAFEPATH, which run_all.sh sets, leaves the working directory out.
        environment = os.environ | {"PYTHONPATH": str(project_root())}
        with open(log, "ab") as file:
            self.process = subprocess.Popen(command, stderr=file, cwd=project_root(), env=environment, **pipes)

    def end(self):
        """Stop it."""
        self.process.kill()
        self.process.wait()

    def answer(self):
        """Read a line of JSON from it; ConfigError with its last message if it ended instead."""
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        status = self.process.wait()
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
        raise ConfigError(f"the side {self.name} ended with status {status}: {said}; its messages: {self.log}")

    def measure(self):
        """Let it train for a turn; return the seconds."""
        # If it has ended, its answer says so.
        with contextlib.suppress(BrokenPipeError):
            print("go", file=self.process.stdin, flush=True)
        return self.answer()["seconds"]


def compare(name, model, folder, options, images):
    """Return the rows of one comparison for one model, whose network a training left in `folder`."""
    comparison, log = COMPARISONS[name], resolve(options.out) / f"{name}-{model}.log"
    common = {"folder": str(folder), "data": options.data, "images": str(images), "seconds": options.seconds}
    names, ready, seconds = [comparison.ours, *comparison.over], {}, {}
    # One process is faster than the next with the same code, by some percent of a short step: more turns of the same
    # processes would only make the interval narrow around that chance.
    for pair in range(options.pairs):
        with contextlib.ExitStack() as stack:
            sides = {}
            for side in names[:]:
                # The first says how many batches make a turn, so that all do the same work. PyTorch's sides say which
                # precision they found to be faster, so that they need not look again.
                known = {"side": side, "steps": ready[names[0]]["steps"] if ready else 0}
                known["bfloat16"] = ready.get(side, {}).get("bfloat16")
                sides[side] = Side(common | known, log)
                stack.callback(sides[side].end)
                try:
                    ready[side] = known | sides[side].answer()
                except ConfigError as error:
                    if pair or side == names[0]:
                        raise
                    print(f"  {name}, {model}: left out: {error}")
                    names.remove(side)
            for side in names:
                sides[side].measure()  # not counted: the first steps of a process take longer
                seconds.setdefault(side, []).append([])
            for turn in range(TURNS):
                first = (pair + turn) % len(names)
                for side in names[first:] + names[:first]:
                    seconds[side][-1].append(sides[side].measure())
        ratios = {side: np.median(np.divide(seconds[side][-1], seconds[names[0]][-1])) for side in names[1:]}
        said = ", ".join(f"{ratio:.3f} over {side}" for side, ratio in ratios.items())
        print(f"  {name}, {model}: pair {pair + 1} of {options.pairs}: {said}")
    ours, *over = names
    about = {"comparison": name, "model": model, "machine": ready[ours]["machine"]}
    about["goal"] = comparison.goals.get(model, 1.0)
    return [make_row(about, ready[ours], ready[side], seconds[ours], seconds[side]) for side in over]


def make_row(about, ours, other, our_seconds, other_seconds):
    """Return a row of the table from what two sides said of themselves, and their seconds, of shape (pairs, turns)."""
    ratio, low, high = median_interval(np.median(np.divide(other_seconds, our_seconds), axis=1))
    met = verdict(low, high, about["goal"])
    note = f"{ours['note']}; {other['note']}"
    if about["comparison"] == "precision":
        used = "mixed_bfloat16" if met == "yes" else "float32"
        found = f"used: {used}, ratio: [{ratio:.3f}, {low:.3f}, {high:.3f}]"
        note = f"`{ours['notebook']}: {{kinds: {{{ours['kind']}: {{{found}}}}}}}`"
    row = {"over": other["side"], "ratio": ratio, "low": low, "high": high, "met": met, "note": note}
    speeds = [ours["images"] / float(np.median(seconds)) for seconds in (our_seconds, other_seconds)]
    return about | row | {"images_per_second": speeds, "seconds": [our_seconds, other_seconds]}


def table(rows):
    """Return the rows as Markdown tables, one a comparison, with what each compares."""
    lines = []
    for name in dict.fromkeys(row["comparison"] for row in rows):
        lines += [f"## {name}", "", COMPARISONS[name].about, ""]
        lines += ["| model | over | ours, images/s | other, images/s | ratio | 95% interval | goal | met | note |"]
        lines += ["|---|---|--:|--:|--:|---|--:|---|---|"]
        for row in rows:
            if row["comparison"] == name:
                speeds = " | ".join(f"{speed:.0f}" for speed in row["images_per_second"])
                lines.append(
                    f"| {row['model']} | {row['over']} | {speeds} | {row['ratio']:.3f} | {row['low']:.3f} to "
                    f"{row['high']:.3f} | {row['goal']:g} | {row['met']} | {row['note']} |"
                )
        lines.append("")
    return "\n".join(lines)


def find_training(run, model):
    """Return the folder of a model's first finished training in a run folder."""
    for record in sorted(run.glob(f"{model}/seed-*/run.json")):
        if record.with_name("model.keras").exists():
            return record.parent
    raise ConfigError(
        f"{run}: no finished training of {model} (run.json, model.keras); finish it, or give another --run"
    )


def make_run(config, models, folder):
    """Train each model for a moment, as a user would, for the networks that this leaves."""
    command = ["--profile", "smoke", "--data", "synthetic", "--models", ",".join(models), "--out", str(folder)]
    if any("weights" in notebook_parameters(config["models"][model]["notebook"]) for model in models):
        command += ["--set", "weights=none"]
    # Without findings and report.
    if status := subprocess.call([sys.executable, "-m", "fer_utils.batch.run", *command, "--", "--until", "model"]):
        raise ConfigError(f"the small run that the networks come from ended with status {status}; see above")


def main(arguments=None):
    """Run what the command line names; table and JSON are written anew after each comparison of a model."""
    parser = argparse.ArgumentParser(prog="./run_all.sh benchmark", description=__doc__.split("\n")[0])
    has_torch = importlib.util.find_spec("torch") is not None
    default = ["fast_layers", "generator", *(["pytorch"] if has_torch else [])]
    about = f"{', '.join(COMPARISONS)}; default: {' '.join(default)}"
    parser.add_argument("names", nargs="*", default=default, metavar="NAME", help=about)
    parser.add_argument("--models", metavar="A,B", help="default: those of --run, else the thesis's four")
    parser.add_argument("--pairs", type=int, default=10, metavar="N", help="pairs of processes (default: 10)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn (default: 1)")
    parser.add_argument("--data", default="synthetic", help="images to train on, as for a run (default: synthetic)")
    parser.add_argument("--run", metavar="DIR", help="run folder with the networks; default: a small run is made")
    parser.add_argument("--out", default="results/benchmark", metavar="DIR", help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        if unknown := [name for name in options.names if name not in COMPARISONS]:
            raise ConfigError(f"no comparison {', '.join(unknown)}; there are {', '.join(COMPARISONS)}")
        if "pytorch" in options.names and not has_torch:
            raise ConfigError("PyTorch is not installed: pip install -r requirements-benchmark.txt")
        if options.pairs < 1:
            raise ConfigError(f"--pairs {options.pairs}: expected 1 or more")
        config, out = read_config(), resolve(options.out)
        run = resolve(options.run or out / "run")
        if options.run and not options.models:
            options.models = ",".join(sorted({path.parent.parent.name for path in run.glob("*/seed-*/run.json")}))
        models = choose_models(config, options.models)
        out.mkdir(parents=True, exist_ok=True)
        if not options.run:
            make_run(config, models, run)
        trainings = {model: find_training(run, model) for model in models}
        command = ["./run_all.sh", "benchmark", *(sys.argv[1:] if arguments is None else arguments)]
        about, rows = {"command": command, "git": provenance.git(), "system": platform.platform()}, []
        with tempfile.TemporaryDirectory() as temporary:
            for name in options.names:
                for model in models:
                    rows += compare(name, model, trainings[model], options, Path(temporary, "images"))
                    write_json(out / "benchmark.json", about | {"rows": rows})
                    write_text(out / "benchmark.md", table(rows))
    except FerError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print(f"\n{table(rows)}\n{out / 'benchmark.md'}")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
