"""The one reader of a run folder, and the one place that decides whether what it holds is a result.

Needs no TensorFlow. Small files are read at once; tables are read when they are first asked for.
"""

import json
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.constants import PROBABILITY_COLUMNS, THESIS_SETTINGS
from fer_utils.errors import ResultsError
from fer_utils.words import listed

#: What a model's notebook leaves and the findings need; the model files themselves are not among them.
MODEL_FILES = ("history.csv", "predictions.parquet", "metrics.json", "run.json")

#: Entries of ``run.json`` that no reader can do without.
RECORD_ENTRIES = ("protocol", "data", "split", "weights", "parameters", "epochs")

#: ``usage`` of the images of each part; ``test`` is the thesis's test set of 7,178 images.
PARTS = {
    "train": ("Training",),
    "public": ("PublicTest",),
    "private": ("PrivateTest",),
    "test": ("PublicTest", "PrivateTest"),
}


def read_object(path):
    """Read a JSON file that holds an object.

    Returns
    -------
    content : dict
        Empty where there is no file, or where it is broken.
    problem : str
        Empty, or why the file cannot be used.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, f"{path.name} cannot be read: {error}"
    if not isinstance(content, dict):
        return {}, f"{path.name} holds a {type(content).__name__}, expected an object"
    return content, ""


@dataclass(frozen=True)
class Training:
    """One configured model and one seed, planned or found, whether it finished or not.

    Attributes
    ----------
    model : str
        The entry's name in ``config.yaml``, for example ``"resnet50"``.
    seed : int
    label : str
        The name that people read, for example ``"ResNet-50"``.
    folder : Path
        ``<run>/<model>/seed-<n>``, which need not exist.
    record : dict
        ``run.json``: data, split, weights, parameters, device, versions, code, times. Empty if there is none.
    failure : dict
        Empty, or ``error``, ``traceback`` and ``notebook`` (a file's name, or None): why there are no results.
    """

    model: str
    seed: int
    label: str
    folder: Path
    record: dict = field(default_factory=dict)
    failure: dict = field(default_factory=dict)

    @property
    def finished(self):
        """Whether it left results."""
        return bool(self.record) and not self.failure

    @property
    def reasons(self):
        """Why its numbers are no results of FER2013 under Table 5.1; empty if they are.

        Returns
        -------
        dict of str to str
            A sentence's part for each of ``data`` (synthetic, or not the known FER2013) and ``shortened`` (fewer
            epochs or images than the thesis).
        """
        if not self.finished:
            return {"absent": self.failure.get("error", "not trained yet")}
        found, data = {}, self.record["data"]
        if self.record.get("synthetic") or data.get("variant") == "synthetic":
            found["data"] = "synthetic data"
        elif not data.get("known"):
            found["data"] = f"data that are not the known FER2013 ({data.get('variant', 'not recorded')})"
        if self.record.get("shortened"):
            found["shortened"] = f"shortened run ({self.extent})"
        return found

    @property
    def extent(self):
        """How much was trained: ``"3 of 45 epochs, 63 training images"``."""
        split, epochs = self.record["split"], self.record["epochs"]
        said = [f"{epochs.get('run', '?')} of {THESIS_SETTINGS['epochs']} epochs"]
        said += [f"{split['train']:,} training images"] if "train" in split else []
        said += (
            [f"{split['test_images_per_class']} test images per class"] if split.get("test_images_per_class") else []
        )
        return ", ".join(said)

    @property
    def is_result(self):
        """Whether its numbers can be compared with the thesis's: the known FER2013, not shortened."""
        return not self.reasons


@dataclass(frozen=True)
class ModelResult(Training):
    """A finished training. Tables are read when first asked for; ResultsError where one is broken."""

    def _read(self, name, reader):
        try:
            return reader(self.folder / name)
        except (OSError, ValueError) as error:
            raise ResultsError(
                f"{self.folder / name} cannot be read ({error}). Delete {self.folder} and train this model again."
            ) from error

    @cached_property
    def history(self):
        """``history.csv``: one row per epoch; see the column names in the README."""
        return self._read("history.csv", pd.read_csv)

    @cached_property
    def predictions(self):
        """``predictions.parquet``: one row per image, ``id``, ``usage``, ``label`` and seven probabilities."""
        return self._read("predictions.parquet", pd.read_parquet)

    @cached_property
    def predictions_last(self):
        """As `predictions`, of the last epoch's weights on the test images; None in older run folders."""
        there = (self.folder / "predictions_last.parquet").exists()
        return self._read("predictions_last.parquet", pd.read_parquet) if there else None

    @cached_property
    def metrics(self):
        """``metrics.json``: scores of the best and of the last epoch, for each part of the data."""
        return self._read("metrics.json", lambda path: json.loads(path.read_text(encoding="utf-8")))

    @cached_property
    def architecture(self):
        """``architecture.json``, the network's layers; empty if there is none."""
        return read_object(self.folder / "architecture.json")[0]

    @cached_property
    def summary(self):
        """Keras's summary of the network; empty if there is none."""
        path = self.folder / "summary.txt"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def select(self, part):
        """Labels and probabilities of one part of the data.

        Parameters
        ----------
        part : {"train", "public", "private", "test", "validation"}
            ``test`` is public and private together, the thesis's 7,178 images; ``validation`` depends on the
            run's protocol.

        Returns
        -------
        y_true : ndarray of int, shape (n,)
        y_proba : ndarray of float32, shape (n, 7)
        """
        rows = self.predictions[self.mask(part)]
        return rows["label"].to_numpy(dtype=np.int64), rows[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float32)

    def mask(self, part):
        """Boolean rows of ``predictions`` that belong to a part (see `select`)."""
        if part == "validation":
            part = "public" if self.record["protocol"] == "sound" else "test"
        return self.predictions["usage"].isin(PARTS[part]).to_numpy()

    @property
    def final_part(self):
        """The part on which the final figure is reported: ``private`` (sound) or ``test`` (thesis)."""
        return "private" if self.record["protocol"] == "sound" else "test"

    @property
    def pretrained(self):
        """Whether the training started from ImageNet weights."""
        return self.record["weights"]["used"] == "imagenet"


@dataclass(frozen=True)
class Run:
    """A whole run folder.

    Attributes
    ----------
    folder : Path
        The run folder.
    plan : dict
        ``plan.json``; empty if a notebook was run alone.
    dataset : dict
        ``dataset/dataset.json``; empty if the dataset notebook was not run.
    trainings : list of Training
        What was planned, in the plan's order; without a plan what was found, by name and seed. Finished ones are
        ModelResult.
    problems : list of str
        Files of the run as a whole that are broken.
    """

    folder: Path
    plan: dict = field(default_factory=dict)
    dataset: dict = field(default_factory=dict)
    trainings: list[Training] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def models(self):
        """The finished trainings, as ModelResult."""
        return [training for training in self.trainings if training.finished]

    @property
    def failures(self):
        """``model``, ``seed``, ``label``, ``error``, ``traceback`` and ``notebook`` of each training that failed."""
        return [{"model": t.model, "seed": t.seed, "label": t.label} | t.failure for t in self.trainings if t.failure]

    @cached_property
    def images(self):
        """``dataset/images.parquet``, one row per image of the dataset; None if there is none."""
        path = self.folder / "dataset" / "images.parquet"
        return pd.read_parquet(path) if path.exists() else None

    def by_name(self, model):
        """All finished seeds of one model, in order of the seed."""
        return sorted((result for result in self.models if result.model == model), key=lambda result: result.seed)

    @property
    def first_seeds(self):
        """One result per model, its lowest seed: what a figure with one curve per model shows."""
        return [self.by_name(name)[0] for name in dict.fromkeys(result.model for result in self.models)]

    @property
    def reasons(self):
        """Why the run as a whole is no result, each reason once with the models that it holds for.

        Returns
        -------
        dict of str to str
            By kind, as `Training.reasons`; a kind that holds for all models names none.
        """
        if not self.models:
            return {"absent": "no model has been trained"}
        found = {}
        for result in self.models:
            for kind, text in result.reasons.items():
                found.setdefault(kind, {}).setdefault(text, []).append(result.label)
        return {
            kind: "; ".join(
                text if len(labels) == len(self.models) else f"{text}: {listed(dict.fromkeys(labels))}"
                for text, labels in texts.items()
            )
            for kind, texts in found.items()
        }

    @property
    def is_result(self):
        """Whether every finished training is a result; False where there is none."""
        return not self.reasons


def read_failures(folder):
    """Read ``failed/<model>-seed-<n>.json``, by model and seed."""
    found = {}
    for path in sorted(Path(folder).glob("failed/*-seed-*.json")):
        model, _, seed = path.stem.rpartition("-seed-")
        content, problem = read_object(path)
        if seed.isdigit():
            blank = {"error": problem or "no error recorded", "traceback": "", "notebook": None}
            found[model, int(seed)] = blank | content
    return found


def read_training(folder, model, seed, label=None, failure=None):
    """Read one training's folder: a ModelResult if it finished, else a Training that says why not."""
    record, problem = read_object(folder / "run.json")
    label = str(label or record.get("label") or (failure or {}).get("label") or model)
    if record and not failure:
        lacking = [name for name in RECORD_ENTRIES if name not in record]
        missing = [name for name in MODEL_FILES if not (folder / name).exists()]
        if lacking:
            problem = f"run.json lacks {', '.join(lacking)}; delete the folder and train this model again"
        elif missing:
            problem = f"{', '.join(missing)} missing; delete the folder and train this model again"
        else:
            problem = read_object(folder / "metrics.json")[1]
    if problem and not failure:
        failure = {"error": problem, "traceback": "", "notebook": None}
    failure = {name: failure.get(name) for name in ("error", "traceback", "notebook")} if failure else {}
    return (ModelResult if record and not failure else Training)(model, seed, label, folder, record, failure)


def read_model(folder):
    """Read one finished training, ``<run>/<model>/seed-<n>``.

    Raises
    ------
    ResultsError
        If it did not finish, or one of `MODEL_FILES` is missing.
    """
    folder = Path(folder)
    record, _ = read_object(folder / "run.json")
    found = read_training(folder, record.get("model", folder.parent.name), record.get("seed", 0))
    if not found.finished:
        raise ResultsError(f"{folder}: {found.failure.get('error', 'no run.json')}; expected {', '.join(MODEL_FILES)}.")
    return found


def read_run(folder):
    """Read a run folder, whatever part of it is there. A broken file is a training's failure or a problem, no error.

    Parameters
    ----------
    folder : path
        The run folder (``--out``).

    Returns
    -------
    Run
        Without trainings where nothing was planned or run yet.
    """
    folder = Path(folder)
    plan, plan_problem = read_object(folder / "plan.json")
    dataset, dataset_problem = read_object(folder / "dataset" / "dataset.json")
    failures = read_failures(folder)
    wanted = {(entry["model"], entry["seed"]): entry.get("label") for entry in plan.get("models", [])}
    if not wanted:
        places = {path.parent for path in folder.glob("*/seed-*/*") if path.suffix in (".json", ".ipynb")}
        seeds = [(path.parent.name, path.name.removeprefix("seed-")) for path in places]
        wanted = dict.fromkeys(sorted({(m, int(s)) for m, s in seeds if s.isdigit()} | set(failures)))
    trainings = [
        read_training(folder / model / f"seed-{seed}", model, seed, label, failures.get((model, seed)))
        for (model, seed), label in wanted.items()
    ]
    return Run(folder, plan, dataset, trainings, [text for text in (plan_problem, dataset_problem) if text])


def command(run, models=(), *, seeds=(), profile=None, data=None, **parameters):
    """Write the command that repeats a run with more models, other seeds or other parameters.

    Parameters
    ----------
    run : Run
        Its own options are kept, its models and seeds named.
    models : sequence of str
        Further models.
    seeds : sequence of int
        Other seeds than the run's.
    profile, data : str, optional
        Another profile, other data. A run folder holds one of each, so ``--out`` and ``--set`` are then left out.
    **parameters
        Notebook parameters to set.

    Returns
    -------
    str
        Without ``--publish`` and what goes to Snakemake.
    """
    kept = run_options(run)
    anew = profile is not None or data is not None
    settings = {} if anew else dict(pair.partition("=")[::2] for pair in kept.pop("--set", []))
    for name in ("--set", "--out") if anew else ():
        kept.pop(name, None)
    wanted = list(dict.fromkeys([*(t.model for t in run.trainings), *models]))
    seeds = sorted(set(seeds or (t.seed for t in run.trainings)))
    chosen = {
        "--profile": profile,
        "--data": data,
        "--models": ",".join(wanted),
        "--seeds": "" if seeds in ([], [0]) else ",".join(map(str, seeds)),  # 0 is the default
    }
    options = {name: chosen.get(name) or value for name, value in (dict.fromkeys(chosen) | kept).items()}
    words = ["./run_all.sh"]
    for name, value in options.items():
        words += [name, value] if value else []
    for name, value in (settings | parameters).items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)


def run_options(run):
    """Return the options of the command that made a run; without a plan what its records tell."""
    words = shlex.split(run.plan.get("command", ""))[1:]
    words = words[: words.index("--")] if "--" in words else words
    options = {}
    while words:
        name, has_value, value = words.pop(0).partition("=")
        if name == "--publish" or not name.startswith("--"):
            continue
        value = value if has_value else words.pop(0) if words else ""
        if name == "--set":
            options.setdefault(name, []).append(value)
        else:
            options[name] = value
    for name in ("--models", "--seeds"):
        options.pop(name, None)
    if not run.plan.get("command"):
        records = [training.record for training in run.trainings if training.record]
        profile = run.plan.get("profile") or next((record.get("profile") for record in records), None)
        if profile in ("smoke", "quick", "paper"):  # a notebook run alone has none of them
            options["--profile"] = profile
        if any(record.get("synthetic") for record in records):
            options["--data"] = "synthetic"
    return options
