"""The published set: a run folder in small, which holds all that its figures, tables and verdicts are computed from.

It lacks the networks' weights and the dataset. Of the predictions it holds the test images, and the training images
that show the same picture as a test image; every number, table and figure is computed again from these files before
they take the place of the old set.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pandas as pd

from fer_utils.batch.config import read_config
from fer_utils.batch.processes import RUN_ID
from fer_utils.errors import ConfigError, ResultsError
from fer_utils.files import UNFINISHED, write_json, write_text
from fer_utils.findings import statistics
from fer_utils.findings.results import once, read_run
from fer_utils.paths import project_root
from fer_utils.provenance import now, prediction_lines
from fer_utils.words import commit_text, device_text, duration, interval, listed, plural

#: Figures and tables that need the dataset: those of its notebook, and faces. Those of 06_methods are made again.
OF_DATASET = re.compile(r"(fig|table)-(3\.|D)|fig-\w+-(faces|gradcam)\.")

#: The notebooks that need the published files only.
CHAPTERS = ("methods", "findings", "audit")

#: What a published set is checked with: ``sha256sum --check SHA256SUMS``.
SUMS = "SHA256SUMS"

#: Where the table of the results stands in README.md.
MARKERS = ("<!-- results of figures/, filled in by ./run_all.sh --publish -->", "<!-- end of the results -->")

#: The figure that stands there too, in the published folder.
FIGURE = "![Accuracy of the models, with 95% intervals]({}/figures/fig-5.1-accuracy.png)"

FILES = """\
| file | what it holds |
|---|---|
| `report.html` | the report; one file that loads nothing from the network |
| `claims.csv` | one row per claim and reading, with the verdict |
| `figures/` | every figure as SVG, PNG and CSV, every table as CSV |
| `<model>/seed-<n>/run.json`, `history.csv`, `metrics.json`, `architecture.json` | as the training left them; \
`left_out` in `run.json` names the weights that are not here |
| `<model>/seed-<n>/predictions.parquet`, `predictions_last.parquet` | seven probabilities (float32, as predicted) of \
each test image at the best and at the last epoch, and of the training images that show the same picture as a test \
image; `check` is the CRC-32 of the row |
| `gradcam.json` | where the best model looks on a few test images: the map of each |
| `dataset/images.parquet` | hash and spread of the test images and of those that show the same picture |
| `SHA256SUMS` | of every file |

`./run_all.sh verify` computes figures, tables and verdicts again from these files, without the dataset, and says what
differs. `./run_all.sh compare RUN` puts a run beside this one."""


def refuse(plan):
    """Refuse what is never worth publishing, before hours are spent on it."""
    drawn = plan.get("data_variant") == "synthetic"
    if drawn or plan["profile"] == "smoke":
        what = "the drawn faces, not FER2013" if drawn else "a smoke run, a check on a few images"
        raise ConfigError(
            f"--publish: this run is of {what}; its numbers say nothing, and figures/ is what others compare theirs "
            "with. Nothing was published. Run --profile paper (or quick) with --data PATH, or leave out --publish."
        )


def without_folders(command):
    """Strip the folders of a command's paths, which would tell whose machine it was."""
    return re.sub(r"(?<![.\w])[~/][^\s']*/", "", command)


def checks(predictions):
    """CRC-32 of each row; a row that was changed by hand no longer fits."""
    return [zlib.crc32(line) for line in prediction_lines(predictions)]


def write_predictions(table, path):
    """Write predictions with a column `check`, as small as float32 can be without loss."""
    table = table.assign(check=checks(table)).astype({"check": "uint32"})
    floats = [name for name in table if name.startswith("p_")]
    encodings = {"use_dictionary": ["usage"], "use_byte_stream_split": floats}
    encodings["column_encoding"] = {"id": "DELTA_BYTE_ARRAY"}
    table.to_parquet(path, index=False, compression="zstd", compression_level=19, **encodings)


def sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_inputs(run, target):
    """Write the small run folder: what the chapters of `CHAPTERS` read, without weights, images and folders' names."""
    plan = {name: value for name, value in run.plan.items() if not name.startswith("data_")}
    plan.pop("kept", None)
    kept = ("data_variant", "data_description", "data_sha256")
    plan |= {name: run.plan[name] for name in kept if name in run.plan}
    plan["command"] = without_folders(run.plan.get("command", ""))
    names = ("model", "seed", "label")
    plan["models"] = [{name: getattr(result, name) for name in names} for result in run.models]
    write_json(target / "plan.json", plan | {"kernel": "python3", "published": now()})
    copy_files(run.folder / "dataset", target / "dataset", lambda name: name == "dataset.json")
    copy_files(run.folder, target, lambda name: name == "gradcam.json")
    copy_files(run.folder / "benchmarks", target / "benchmarks")
    same_picture = set()
    (target / "dataset").mkdir(exist_ok=True)
    if run.images is not None:
        tested = run.images.loc[run.images["usage"] != "Training", "pixel_hash"]
        images = run.images[run.images["pixel_hash"].isin(tested)]
        same_picture = set(images["id"])
        columns = ["id", "usage", "label", "pixel_hash", "std"]
        images[columns].to_parquet(target / "dataset" / "images.parquet", index=False, compression="zstd")
    for result in run.models:
        folder = target / result.place
        copy_files(result.folder, folder, ("history.csv", "metrics.json", "architecture.json").__contains__)
        weights = {path.name: path for path in result.folder.glob("model.*")}
        left_out = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in weights.items()}
        write_json(folder / "run.json", {"left_out": left_out} | result.record)
        predictions = result.predictions
        kept = (predictions["usage"] != "Training") | predictions["id"].isin(same_picture)
        write_predictions(predictions[kept], folder / "predictions.parquet")
        if result.predictions_last is not None:
            write_predictions(result.predictions_last, folder / "predictions_last.parquet")


def copy_files(source, target, wanted=lambda name: True):
    """Copy the wanted files of one folder, if there is one, to another."""
    for path in sorted(source.glob("*")):
        if path.is_file() and wanted(path.name):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.name)


def start(folder, *words):
    """Start a module of this package in a run folder, quietly."""
    # Jobs end where the folder is not that of the run that is named here, and this folder is no run's.
    environment = {name: value for name, value in os.environ.items() if name != RUN_ID}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    return subprocess.Popen([sys.executable, "-m", *words], cwd=folder, **options)


def recompute(folder):
    """Execute the notebooks that need a run's files only, at once; ResultsError with what one of them said."""
    jobs = [start(folder, "fer_utils.batch.job", chapter) for chapter in CHAPTERS]
    for job, said in [(job, job.communicate()[0]) for job in jobs]:
        if job.returncode:
            said = said.strip() or f"a notebook ended with code {job.returncode}"
            raise ResultsError(f"{folder}: figures and verdicts cannot be computed from its files:\n{said}")


# --- what is said of it -----------------------------------------------------------------------------------------


def results_table(run):
    """Write the scores of a run as a table in Markdown, one row per training; a sentence where they are no results."""
    parts = ("private", "test")
    tables = [statistics.headline(run.models, part).set_index(["model", "seed", "metric"]) for part in parts]
    sizes = [f"{table['n'].iloc[0]:,}" for table in tables]
    head = f"| Model | Initial weights | Accuracy, PrivateTest ({sizes[0]}) | Accuracy, all {sizes[1]} test images "
    lines = [head + "| F1, macro, of these | Epochs | Training |", "|---|---|---|---|---|---|---|"]
    several = max(len(run.by_name(result.model)) for result in run.models) > 1
    for result in run.models:
        scores = [(tables[0], "accuracy"), (tables[1], "accuracy"), (tables[1], "macro_f1")]
        texts = [interval(*table.loc[(*result.key, name), ["value", "low", "high"]]) for table, name in scores]
        weights, seconds = result.record["weights"]["used"], result.record["times"]["train_seconds"]
        cells = [result.title if several else result.label, weights.replace("none", "random"), *texts]
        lines.append(f"| {' | '.join([*cells, str(result.record['epochs']['run']), duration(seconds)])} |")
    notes = [] if run.is_result else [f"These are no results: {'; '.join(run.reasons.values())}."]
    config, trained = read_config(), {result.model for result in run.models}
    absent = [config["models"][name]["label"] for name in config["default_models"] if name not in trained]
    notes += [f"Not trained yet: {listed(absent)}."] if absent else []
    return "\n".join([*lines, "", " ".join(["In brackets 95% intervals over the images.", *notes])])


def markdown(table):
    """Write a table, with its index, in Markdown."""
    cells = table.reset_index().astype(str)
    rows = [list(cells.columns), ["---"] * len(cells.columns), *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tally(folder):
    """Write how many verdicts there are of each kind: as one sentence, and by group and reading in Markdown."""
    verdicts = pd.read_csv(folder / "claims.csv", dtype=str, keep_default_na=False)
    counts = verdicts["verdict"].value_counts()
    sentence = f"{plural(verdicts['id'].nunique(), 'statement')} of the thesis, {plural(len(verdicts), 'verdict')}: "
    sentence += ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    verdicts["reading"] = verdicts["reading"].replace("", "any")
    groups = verdicts.groupby(["group", "reading", "verdict"], sort=False).size().unstack(fill_value=0)
    return f"{sentence}.", markdown(groups[counts.index])


def describe(run):
    """Write the published set's README.md from its files."""
    records = [result.record for result in run.models]
    segments = {result.title: result.record.get("segments") or [] for result in run.models}
    stops = [
        f"{title} (after epoch {' and '.join(str(segment['last_epoch']) for segment in parts[:-1])})"
        for title, parts in segments.items()
        if len(parts) > 1
    ]
    started = [parts[0]["started"] for parts in segments.values() if parts] or [r["times"]["started"] for r in records]
    versions = ("python", "tensorflow", "keras", "numpy", "matplotlib")
    known = (f"{name} {records[0].get('versions', {}).get(name)}" for name in versions)
    lines = [
        "# Published results\n",
        f"Made by `{run.plan['command']}`, published by `--publish`.\n",
        f"- profile: {run.plan['profile']} ({run.plan.get('about', '')})",
        f"- data: {run.plan.get('data_variant')}, fingerprint `{run.plan.get('data_sha256')}`",
        f"- code: {once(map(commit_text, records))}",
        f"- machine: {once(map(device_text, records))}; {records[0].get('versions', {}).get('platform', '')}",
        f"- software: {', '.join(known)}",
        f"- trained: {min(started)} to {max(r['times']['finished'] for r in records)}",
        f"- stopped and resumed: {', '.join(stops) or 'none'}\n",
        results_table(run),
        "",
        *(f"{text}\n" for text in tally(run.folder)),
        FILES,
    ]
    return "\n".join(lines) + "\n"


def readme_block(folder):
    """Return what stands between the `MARKERS` of README.md: the results that a folder publishes, or nothing."""
    run = read_run(folder)
    if not (run.models and run.plan.get("published")):
        return ""
    shown, place = FIGURE.format(folder.name), f"{folder.name}/claims.csv"
    return f"{results_table(run)}\n\n{shown}\n\n{tally(folder)[0]} Each with its rule and reason: [{place}]({place}).\n"


def fill_readme(root):
    """Put the published results between the markers of the project's README.md, where it has them."""
    path = root / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    begin, end = MARKERS
    if begin in text and end in text:
        before, after = text.partition(begin)[0], text.partition(end)[2]
        write_text(path, f"{before}{begin}\n{readme_block(root / 'figures')}{end}{after}")


# --- publishing -------------------------------------------------------------------------------------------------


def write_sums(folder):
    """Write the SHA-256 of every file of a folder, as ``sha256sum`` does."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SUMS]
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / SUMS, "".join(lines))


def make_report(run, folder):
    """Write ``report.html`` from the run's executed notebooks, of each model the first, and of no other network."""
    shown = ["dataset", *(result.place for result in run.first_seeds)]
    for place in shown:
        if (run.folder / place / "notebook.ipynb").exists():
            (folder / place).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.folder / place / "notebook.ipynb", folder / place / "notebook.ipynb")
    page = start(folder, "fer_utils.report.page", ".")
    said = page.communicate()[0]
    if page.returncode:
        raise ResultsError(f"{folder}: the report cannot be made:\n{said.strip()}")
    # They hold folders of this machine; the report does not.
    for path in folder.rglob("notebook.ipynb"):
        path.unlink()
    for name in CHAPTERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    shutil.rmtree(folder / ".training", ignore_errors=True)


def publish(run):
    """Replace ``figures/`` of the project by what a run publishes; where that fails, the old set stays.

    ConfigError if the run is not worth publishing or not complete, ResultsError if a file is broken.
    """
    refuse(run.plan)
    missing = [training.title for training in run.trainings if not training.finished]
    if missing or not run.models:
        raise ConfigError(
            f"--publish: {run.folder} lacks {listed(missing) or 'every training'}, and only complete runs are "
            "published. Nothing was published. The same command without --publish trains what is missing."
        )
    root = project_root()
    target = root / "figures"
    for left in root.glob(f".figures-*{UNFINISHED}"):
        # A publish that was killed between the two renames below.
        if (left / "old").exists() and not target.exists():
            (left / "old").rename(target)
        shutil.rmtree(left, ignore_errors=True)
    print("Publishing: computing every figure, table and verdict again from what will be published", flush=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".figures-", suffix=UNFINISHED) as folder:
        new, old = Path(folder, "new"), Path(folder, "old")
        new.mkdir()
        copy_inputs(run, new)
        copy_files(run.folder / "figures", new / "figures", OF_DATASET.match)
        for result in run.first_seeds:  # another seed has the same network
            place = Path(result.place, "figures")
            copy_files(run.folder / place, new / place)
        recompute(new)
        make_report(run, new)
        small = read_run(new)
        write_text(new / "README.md", describe(small))
        write_sums(new)
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            os.rename(old, target)
            raise
    fill_readme(root)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    report = (target / "report.html").stat().st_size
    print(f"Published: {target} ({plural(len(small.models), 'training')}, {size / 1e6:.1f} MB)")
    if report > 5_000_000:
        print(f"  report.html has {report / 1e6:.1f} MB, more than the 5 MB that open everywhere")
