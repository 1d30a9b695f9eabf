"""What a run costs beside training, in seconds and in memory: ``./run_all.sh benchmark startup memory paper``.

Where `benchmarks.compare` compares, this measures by itself, so that its numbers are those of a machine that does
nothing else. Each measurement begins in a new process. A median over the repetitions has a 95% bootstrap interval, and
is held against a goal that it must not exceed.
"""

import ast
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from benchmarks.compare import Side, median_interval, verdict
from fer_utils.batch import config as configuration
from fer_utils.batch import job as execution
from fer_utils.batch import plan as planning
from fer_utils.constants import THESIS_SETTINGS
from fer_utils.data import dataset as datasets
from fer_utils.errors import ConfigError
from fer_utils.files import read_json
from fer_utils.paths import project_root

KERNEL = "fer2013"

#: The real data as `paper` uses them: images trained on in an epoch, and scored after it.
TRAINING, SCORED = 28_709, 7_178

#: Seconds that decoding the real data may take, reading the decoded ones, and a call with nothing to do.
DECODING, CACHED, NOTHING = 10.0, 0.5, 5.0

#: MiB that a model's notebook may take.
MEMORY = {"resnet50": 2560, "vgg16": 2560}

#: Percent of a `paper` run's time that is not `fit`.
NOT_FIT = 2.0

#: Training images of each class while memory is measured: some ten batches of 64 of each, so that scoring all of them
#: at the end takes no minutes. All 28,709 would take some 50 MiB more, and as much for a copy of them.
IMAGES = 700

#: Time `data.load` alone.
LOAD = """
import sys, time
from fer_utils.data import dataset as data

started = time.monotonic()
data.load(sys.argv[1], sys.argv[2], on_message=lambda line: None)
print(time.monotonic() - started)
"""

#: Execute a notebook as a run does.
EXECUTE = """
import sys, time
from pathlib import Path

import papermill
from fer_utils.batch import job as execution

source, target, kernel = sys.argv[1:]
started = time.monotonic()
execution.execute(Path(source), Path(target), {}, kernel, Path(target).with_suffix(".work.ipynb"))
print(time.monotonic() - started)
"""


def row(measurement, what, unit, values, goal=None, note=""):
    """Return a row of the table: what was measured, each value, the median with its interval, and the verdict."""
    median, low, high = median_interval(values)
    return {
        "measurement": measurement,
        "what": what,
        "unit": unit,
        "median": median,
        "low": low,
        "high": high,
        "goal": goal,
        "met": "" if goal is None else verdict(low, high, goal, at_most=True),
        "note": note,
        "values": list(values),
    }


def table(rows):
    """Return the rows as a Markdown table, one a measurement, with what each is about."""
    lines = []
    for name in dict.fromkeys(row["measurement"] for row in rows):
        lines += [f"## {name}", "", MEASUREMENTS[name].__doc__.split("\n")[0], ""]
        lines += ["| what | unit | median | 95% interval | at most | met | note |", "|---|---|---|---|---|---|---|"]
        for row in rows:
            if row["measurement"] == name:
                goal = "" if row["goal"] is None else f"{row['goal']:g}"
                lines.append(
                    f"| {row['what']} | {row['unit']} | {short(row['median'])} | {short(row['low'])} to "
                    f"{short(row['high'])} | {goal} | {row['met']} | {row['note']} |"
                )
        lines.append("")
    return "\n".join(lines)


def short(value):
    """Write a number with three digits, or with all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def call(*arguments):
    """Run this Python with some arguments as ``run_all.sh`` does.

    Returns
    -------
    seconds : float
        By the clock.
    out : str
        What it printed.

    Raises
    ------
    ConfigError
        If it failed, with the last of what it said.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ | {"PATH": path, "PYTHONSAFEPATH": "1"}
    started = time.monotonic()
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - started
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ConfigError(f"a measurement ended with status {done.returncode}: {arguments[:2]}\n{said}")
    return seconds, done.stdout


def batch(*arguments):
    """Call the batch command; return the seconds."""
    return call("-m", "fer_utils.batch.run", *arguments)[0]


def imports_of(notebook):
    """Return the import statements of a notebook as Python code."""
    cells = nbformat.read(project_root() / "notebooks" / notebook, 4).cells
    nodes = [node for cell in cells if cell.cell_type == "code" for node in ast.parse(cell.source).body]
    return "\n".join(ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def startup(models, options, folder):
    """Take the time of what is no training: data, imports, a kernel, a call with nothing to do, the report.

    Yields
    ------
    dict
        Rows.
    """
    repeats = range(options.pairs or 10)
    dataset = datasets.load(options.data, on_message=lambda line: None)
    source, images = planning.data_path(dataset), len(dataset.labels)
    real = planning.data_name(dataset.fingerprint).startswith("fer2013") and images == TRAINING + SCORED
    note = f"{images:,} images"
    if source == "synthetic":
        note += ", drawn each time: nothing is decoded or cached"
    if not real:
        note += "; the goal is for FER2013's 35,887"

    def load(cache):
        return float(call("-c", LOAD, source, str(cache))[1])

    decoding = []
    for _ in repeats:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            decoding.append(load(cache))
    yield row("startup", "decoding all images, no cache", "s", decoding, DECODING if real else None, note)
    cache = folder / "cache"
    load(cache)
    yield row("startup", "the same from the cache", "s", [load(cache) for _ in repeats], CACHED if real else None, note)

    notebook = configuration.read_config()["models"][models[0]]["notebook"]
    values = [call("-c", imports_of(notebook))[0] for _ in repeats]
    yield row("startup", "Python and a notebook's imports", "s", values, note=notebook)

    trivial = folder / "trivial.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]), trivial)
    values = [float(call("-c", EXECUTE, str(trivial), str(folder / "done.ipynb"), KERNEL)[1]) for _ in repeats]
    yield row("startup", "a kernel and a cell without imports", "s", values)

    run = folder / "nothing-to-do"
    command = ["--profile", "smoke", "--data", "synthetic", "--models", ",".join(models), "--out", str(run)]
    first = batch(*command)
    values = [batch(*command) for _ in repeats]
    note = f"smoke, drawn faces, {', '.join(models)}; the first call took {first:.0f} s"
    yield row("startup", "a call with nothing to do", "s", values, NOTHING, note)
    # A report takes some ten seconds, and is no more than looked at.
    values = [batch("report", "--out", str(run)) for _ in range(options.pairs or 3)]
    yield row("startup", "report of that run", "s", values)


def short_paper(model, dataset, out):
    """Return the parameters of a `paper` training of one epoch on few images, that scores all it would score."""
    parameters = configuration.resolve_parameters(configuration.read_config(), "paper", model)
    changes = {"profile": "alone", "epochs": 1, "images_per_class": IMAGES}
    return parameters | changes | {"data": planning.data_path(dataset), "out": str(out)}


def memory(models, options, folder):
    """Measure the most memory that a model's notebook holds: batch 64, one short epoch, all test images scored.

    Yields
    ------
    dict
        Rows.
    """
    dataset = datasets.load(options.data, on_message=lambda line: None)
    for model in models:
        entry = configuration.read_config()["models"][model]
        book = nbformat.read(project_root() / "notebooks" / entry["notebook"], 4)
        book.cells.append(nbformat.v4.new_code_cell("from fer_utils.training import machine\nmachine.peak_memory_mb()"))
        source = folder / entry["notebook"]
        nbformat.write(book, source)
        values = []
        for _ in range(options.pairs or 2):
            with tempfile.TemporaryDirectory(dir=folder) as out:
                target = Path(out, "executed.ipynb")
                work = Path(out, "work", "notebook.ipynb")
                execution.execute(source, target, short_paper(model, dataset, out), KERNEL, work)
                (output,) = nbformat.read(target, 4).cells[-1].outputs
                values.append(float(output.data["text/plain"]))
                record = read_json(Path(out, model, "seed-0", "run.json"))
        split = record["split"]
        note = f"{split['train']:,} trained on, {split['public'] + split['private']:,} scored, {record['precision']}"
        yield row("memory", model, "MiB", values, MEMORY.get(model), note)


def notebook_times(path):
    """Return the seconds that papermill noted of an executed model's notebook.

    Returns
    -------
    dict
        ``whole`` (kernel included), ``fit`` and ``evaluate``: the cells that call these.
    """
    book = nbformat.read(path, 4)

    def of(call):
        return sum(cell.metadata.papermill.duration for cell in book.cells if call in cell.source)

    whole = book.metadata.papermill.duration
    return {"whole": whole, "fit": of("fitting.fit("), "evaluate": of("evaluation.evaluate(")}


def paper_seconds(train, predict, save, notebook, predicted):
    """Work out the seconds of a model's `paper` training from measured parts.

    Parameters
    ----------
    train, predict : float
        Seconds an image.
    save : float
        Seconds to keep the state after an epoch.
    notebook : dict
        `notebook_times` of a short run on the same data.
    predicted : int
        Images that the short run's evaluation predicted.

    Returns
    -------
    fit : float
        Seconds in `fit`, the building of the graph included, which the short run's is almost all of.
    scoring : float
        Those of them that score the epochs.
    beside : float
        Seconds of the rest of the notebook: kernel, imports, data, evaluation, files.
    """
    epochs = THESIS_SETTINGS["epochs"]
    scoring = epochs * SCORED * predict
    fit = notebook["fit"] + epochs * (TRAINING * train + save) + scoring
    # All images with the best epoch's weights, and the test images with the last one's.
    more = (TRAINING + 2 * SCORED - predicted) * predict
    return fit, scoring, notebook["whole"] - notebook["fit"] + more


def measure_model(model, options, folder, repeats):
    """Measure what an epoch is made of.

    Returns
    -------
    train, predict, save : list of float
        Seconds an image, an image, an epoch.
    """
    common = {"model": model, "data": options.data, "steps": options.steps, "turns": repeats}
    common |= {"seconds": options.seconds or 4.0, "folder": str(folder)}
    log = Path(project_root(), options.out) / f"paper-{model}.log"
    train, predict, save = [], [], []
    side = Side(common | {"side": "pipeline"}, log)
    try:
        train = [side.measure() / side.ready["images"] for _ in range(repeats)]
    finally:
        side.end()
    side = Side(common | {"side": "after_epoch"}, log)
    try:
        for _ in range(repeats):
            answer = side.ask()
            predict.append(answer["predict"] / side.ready["images"])
            save.append(answer["save"])
    finally:
        side.end()
    return train, predict, save


def paper(models, options, folder):
    """Work out from measured parts what a `paper` run takes here, and how much of it is not `fit`.

    Yields
    ------
    dict
        Rows.
    """
    repeats = options.pairs or 3
    dataset = datasets.load(options.data, on_message=lambda line: None)
    source = planning.data_path(dataset)
    wholes, notebooks, predicted = [], [], {}
    for number in range(repeats):
        run = folder / f"short-{number}"
        whole = batch("--profile", "smoke", "--data", source, "--models", ",".join(models), "--out", str(run))
        found = {model: notebook_times(run / model / "seed-0" / "notebook.ipynb") for model in models}
        for model in models:
            split = read_json(run / model / "seed-0" / "run.json")["split"]
            predicted[model] = split["train"] + 2 * (split["public"] + split["private"])
        notebooks.append(found)
        wholes.append(whole - sum(times["whole"] for times in found.values()))
    all_fit, all_beside = [0.0] * repeats, list(wholes)
    for model in models:
        train, predict, save = measure_model(model, options, folder, repeats)
        milliseconds = [[1000 * value for value in values] for values in (train, predict)]
        cost = f"`cost: {median_interval(milliseconds[0])[0]:.3g}`"
        yield row("paper", f"{model}: to train on an image", "ms", milliseconds[0], note=cost)
        yield row("paper", f"{model}: to predict an image", "ms", milliseconds[1])
        yield row("paper", f"{model}: to keep an epoch's state", "s", save)
        parts = zip(train, predict, save, [found[model] for found in notebooks], strict=True)
        fit, scoring, beside = zip(*(paper_seconds(*values, predicted[model]) for values in parts), strict=True)
        all_fit = [a + b for a, b in zip(all_fit, fit, strict=True)]
        all_beside = [a + b for a, b in zip(all_beside, beside, strict=True)]
        yield row("paper", f"{model}: fit", "s", fit)
        yield row("paper", f"{model}: of fit, scoring", "%", percent(scoring, fit))
        yield row("paper", f"{model}: the rest of its notebook", "s", beside)
        yield row("paper", f"{model}: of its notebook, not fit", "%", share(beside, fit))
    yield row("paper", "all: what is no model's notebook", "s", wholes, note="plan, dataset, methods, findings, report")
    yield row("paper", "all: whole run", "s", [a + b for a, b in zip(all_fit, all_beside, strict=True)])
    yield row("paper", "all: not fit", "%", share(all_beside, all_fit), NOT_FIT)


def percent(parts, wholes):
    """Return what some parts are of their wholes, in percent."""
    return [100 * part / whole for part, whole in zip(parts, wholes, strict=True)]


def share(beside, fit):
    """Return what is not `fit`, in percent of both."""
    return percent(beside, [a + b for a, b in zip(beside, fit, strict=True)])


#: By name; each takes models, options and a folder for what does not stay, and yields rows.
MEASUREMENTS = {"startup": startup, "memory": memory, "paper": paper}
