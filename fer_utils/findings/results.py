"""The one reader of a run folder, and the one place that decides whether what it holds is a result.

Small files are read at once, tables when they are first asked for.
"""

import argparse
import json
import os
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from fer_utils.constants import PROBABILITY_COLUMNS, THESIS_SETTINGS
from fer_utils.errors import ResultsError
from fer_utils.paths import project_root

#: What a model's notebook leaves and the findings need; the model files themselves are not among them.
MODEL_FILES = ("history.csv", "predictions.parquet", "metrics.json", "run.json")

#: Entries of ``run.json`` that no reader can do without.
RECORD_ENTRIES = ("protocol", "data", "split", "weights", "parameters", "epochs")

#: What is known of a failure, as the batch room writes it to ``failed/<model>-seed-<n>.json``.
FAILURE = {"error": "no error recorded", "traceback": "", "notebook": None}

#: ``usage`` of the images of each part; ``test`` is the thesis's test set of 7,178 images.
PARTS = {
    "train": ("Training",),
    "public": ("PublicTest",),
    "private": ("PrivateTest",),
    "test": ("PublicTest", "PrivateTest"),
}


def read_object(path):
    """Read a JSON object; return it (empty if absent or broken) and what is wrong with the file (empty if nothing)."""
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


def once(texts):
    """Join texts, each once, without the empty ones."""
    return "; ".join(dict.fromkeys(filter(None, texts)))


@dataclass(frozen=True)
class Training:
    """One configured model and one seed, planned or found, whether it finished or not.

    Attributes
    ----------
    model, label : str
        The entry's name in ``config.yaml``, for example ``"resnet50"``, and the name that people read.
    seed : int
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
    def key(self):
        """Model and seed."""
        return self.model, self.seed

    @property
    def place(self):
        """Its folder within a run's: ``"resnet50/seed-0"``."""
        return f"{self.model}/seed-{self.seed}"

    @property
    def title(self):
        """``"ResNet-50, seed 0"``."""
        return f"{self.label}, seed {self.seed}"

    @property
    def finished(self):
        """Whether it left results."""
        return bool(self.record) and not self.failure

    @property
    def reasons(self):
        """Why its numbers cannot be compared with the thesis's, by kind; empty if they can.

        ``absent`` (it did not finish), ``data`` (synthetic, or not the known FER2013) and ``shortened`` (fewer epochs
        or images than the thesis).
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
    def seconds(self):
        """How long training and scoring took."""
        return self.record["times"]["train_seconds"] + self.record["times"]["evaluate_seconds"]

    @property
    def is_result(self):
        """Whether its numbers can be compared with the thesis's: the known FER2013, not shortened."""
        return not self.reasons

    @property
    def extent(self):
        """How much was trained and tested: ``"3 of 45 epochs, 63 training images"``."""
        split, epochs = self.record["split"], self.record["epochs"]
        said = [f"{epochs.get('run', '?')} of {THESIS_SETTINGS['epochs']} epochs"]
        said += [f"{split['train']:,} training images"] if "train" in split else []
        limit = split.get("test_images_per_class")
        return ", ".join(said + ([f"{limit} test images per class"] if limit else []))


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
        """``history.csv``: one row per epoch; see the columns in docs/results.md."""
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

    def select(self, part):
        """Labels and probabilities of one part of the data.

        Parameters
        ----------
        part : {"train", "public", "private", "test"}
            ``test`` is public and private together, the thesis's 7,178 images.

        Returns
        -------
        y_true : ndarray of int, shape (n,)
        y_proba : ndarray of float32, shape (n, 7)
        """
        rows = self.predictions[self.mask(part)]
        return rows["label"].to_numpy(dtype=np.int64), rows[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float32)

    def mask(self, part):
        """Boolean rows of ``predictions`` that belong to a part (see `select`)."""
        return self.predictions["usage"].isin(PARTS[part]).to_numpy()

    @property
    def augmentation(self):
        """The settings of the augmentation that are on: ``{"rotation_range": "rotation_range 10"}``."""
        return {name: f"{name} {value}" for name, value in self.record.get("augmentation", {}).items() if value}

    @property
    def networks(self):
        """Names of the files of the trained network; a published set names those that it does not hold."""
        return sorted({path.name for path in self.folder.glob("model.*")} | set(self.record.get("left_out", ())))

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
    plan, dataset : dict
        ``plan.json`` and ``dataset/dataset.json``; empty if a notebook was run alone.
    trainings : list of Training
        What was planned, and what earlier calls finished, in the order of ``config.yaml``; without a plan what was
        found, by name and seed. Finished ones are ModelResult.
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
        """As `Training.reasons`, over all finished trainings; ``absent`` if there is none."""
        found = [result.reasons for result in self.models] or [{"absent": "no model has been trained"}]
        return {kind: once(reasons.get(kind) for reasons in found) for kind in dict.fromkeys(chain(*found))}

    @property
    def is_result(self):
        """Whether every finished training is a result; False where there is none."""
        return not self.reasons


def read_training(folder, model, seed, label=None, failure=None):
    """Read one training's folder: a ModelResult if it finished, else a Training that says why not."""
    record, problem = read_object(folder / "run.json")
    if record:
        # The last file of a training that ended well, so that a failure is an older one.
        failure = None
        lacking = [name for name in RECORD_ENTRIES if name not in record]
        missing = [name for name in MODEL_FILES if not (folder / name).exists()]
        if lacking or missing:
            what = f"run.json lacks {', '.join(lacking)}" if lacking else f"{', '.join(missing)} missing"
            problem = f"{what}; delete the folder and train this model again"
        else:
            problem = read_object(folder / "metrics.json")[1]
    failure = failure or ({"error": problem} if problem else {})
    label = str(label or record.get("label") or failure.get("label") or model)
    if failure:
        failure = {name: failure.get(name, default) for name, default in FAILURE.items()}
    return (ModelResult if record and not failure else Training)(model, seed, label, folder, record, failure)


def read_run(folder):
    """Read a run folder (``--out``), whatever part of it is there.

    A broken file is a training's failure or one of the run's problems, and no error. Returns a `Run`, without trainings
    where nothing was planned or run yet.
    """
    folder = Path(folder)
    plan, plan_problem = read_object(folder / "plan.json")
    dataset, dataset_problem = read_object(folder / "dataset" / "dataset.json")
    failures = {}
    for path in folder.glob("failed/*-seed-*.json"):
        model, _, seed = path.stem.rpartition("-seed-")
        content, problem = read_object(path)
        if seed.isdigit():
            failures[model, int(seed)] = {"error": problem} if problem else FAILURE | content
    entries = sorted([*plan.get("models", []), *plan.get("kept", [])], key=lambda entry: entry.get("place", 0))
    wanted = {(entry["model"], entry["seed"]): entry.get("label") for entry in entries}
    if not wanted:
        places = {path.parent for path in folder.glob("*/seed-*/*") if path.suffix in (".json", ".ipynb")}
        found = [(path.parent.name, path.name.removeprefix("seed-")) for path in places]
        wanted = dict.fromkeys(sorted({(model, int(seed)) for model, seed in found if seed.isdigit()} | set(failures)))
    trainings = [
        read_training(folder / model / f"seed-{seed}", model, seed, label, failures.get((model, seed)))
        for (model, seed), label in wanted.items()
    ]
    return Run(folder, plan, dataset, trainings, [text for text in (plan_problem, dataset_problem) if text])


def portable(path):
    """Write a path so that it holds from the project's root, if it can be without telling whose machine it is on."""
    for base, name in ((project_root(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return name + path.relative_to(base).as_posix()
    return os.path.relpath(path, project_root())


def own_parameters(models):
    """Names of the parameters that the entries of these models in ``config.yaml`` set."""
    config = yaml.safe_load((project_root() / "config.yaml").read_text(encoding="utf-8"))["models"]
    return {name for model in models for name in (config.get(model) or {}).get("parameters", {})}


def command(run, models=(), *, seeds=(), profile=None, data=None, fresh=False, **parameters):
    """Write the command, to be typed at the project's root, that adds models, seeds or parameters to a run's folder.

    Parameters
    ----------
    run : Run
        Its own options are kept, its models and seeds named. Its folder knows the data, so ``--data`` is not needed.
    models : sequence of str
        Further models. A setting of the run that the entry of one in ``config.yaml`` has too is taken back.
    seeds : sequence of int
        Other seeds than the run's.
    profile, data : str, optional
        Another profile; other data, or ``"auto"`` to look for them. A run folder holds one of each, so another one is
        then used, without ``--set``.
    fresh : bool
        Use another folder in any case.
    **parameters
        Notebook parameters to set; None takes a setting of the run back.

    Returns
    -------
    str
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("profile", "data", "models", "seeds", "jobs", "kernel", "out"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--set", action="append", default=[])
    try:
        words = shlex.split(run.plan.get("command", ""))
    except ValueError:  # no command line
        words = []
    kept = vars(parser.parse_known_args(words)[0])
    settings = dict(pair.partition("=")[::2] for pair in kept.pop("set"))
    records = [training.record for training in run.trainings if training.record]
    planned = run.plan.get("profile")
    if not run.plan and records:  # notebooks that were run alone
        planned = records[0].get("profile")
        kept["profile"] = planned if planned in ("smoke", "quick", "paper") else None
        kept["data"] = "synthetic" if any(record.get("synthetic") for record in records) else None
    if fresh or data or profile not in (None, planned):
        if kept["data"] not in (None, "auto", "synthetic", "kaggle") and run.plan.get("data_path"):
            kept["data"] = portable(Path(run.plan["data_path"]))
        kept |= {"out": None, "profile": profile or planned, "data": data or kept["data"]}
        settings = {}
    elif run.plan:
        # Nothing is trained in a published set: who has none of its run makes one of his own.
        out = None if run.plan.get("published") else portable(run.folder.absolute())
        kept |= {"out": out, "profile": planned, "data": None}
    kept["data"] = None if kept["data"] == "auto" else kept["data"]
    of_models = [{t.seed for t in run.trainings if t.model == model} for model in {t.model for t in run.trainings}]
    # What has further seeds keeps them without being named.
    seeds = sorted(set(seeds) or (set.intersection(*of_models) if of_models else ()))
    kept["models"] = ",".join(dict.fromkeys([*(training.model for training in run.trainings), *models]))
    kept["seeds"] = None if seeds == [0] else ",".join(map(str, seeds))  # 0 is the default
    settings = {name: value for name, value in settings.items() if name not in own_parameters(models)}
    settings = {name: value for name, value in (settings | parameters).items() if value is not None}
    words = [word for name, value in kept.items() if value for word in (f"--{name}", value)]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return shlex.join(["./run_all.sh", *words])
