"""A run folder, read back: everything that figures, claims and report are made from. Needs no TensorFlow."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.errors import ResultsError
from fer_utils.files import read_json

#: What a model's notebook leaves and the findings need; the model files themselves are not among them.
MODEL_FILES = ("history.csv", "predictions.parquet", "metrics.json", "run.json")


@dataclass(frozen=True)
class ModelResult:
    """What one training left: one configured model, one seed.

    Attributes
    ----------
    model : str
        The entry's name in ``config.yaml``, for example ``"resnet50"``.
    seed : int
        The random seed.
    label : str
        The name that people read, for example ``"ResNet-50"``.
    record : dict
        ``run.json``: data, split, weights, parameters, device, versions, code, times.
    history : DataFrame
        One row an epoch; see the column names in the README.
    predictions : DataFrame
        One row an image: ``id``, ``usage``, ``label`` and seven probabilities.
    metrics : dict
        ``metrics.json``: scores of the best and of the last epoch per split.
    summary : str
        Keras's summary of the network.
    architecture : dict
        The network as `fer_utils.training.architecture.describe` describes it.
    folder : Path
        Where it was read from.
    """

    model: str
    seed: int
    label: str
    record: dict
    history: pd.DataFrame
    predictions: pd.DataFrame
    metrics: dict
    summary: str
    architecture: dict
    folder: Path

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
        usages = {
            "train": ("Training",),
            "public": ("PublicTest",),
            "private": ("PrivateTest",),
            "test": ("PublicTest", "PrivateTest"),
        }[part]
        return self.predictions["usage"].isin(usages).to_numpy()

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
    models : list of ModelResult
        In the plan's order, then by name and seed.
    failures : list of dict
        ``model``, ``seed``, ``error``, ``traceback``, ``notebook`` of each model that failed.
    dataset : dict
        ``dataset/dataset.json``; empty if the dataset notebook was not run.
    images : DataFrame or None
        ``dataset/images.parquet``.
    """

    folder: Path
    plan: dict
    models: list[ModelResult] = field(default_factory=list)
    failures: list[dict] = field(default_factory=list)
    dataset: dict = field(default_factory=dict)
    images: pd.DataFrame | None = None

    def by_name(self, model):
        """All seeds of one model, in order of the seed."""
        return sorted((m for m in self.models if m.model == model), key=lambda m: m.seed)

    @property
    def first_seeds(self):
        """One result per model, its lowest seed: what a figure with one curve per model shows."""
        names = dict.fromkeys(m.model for m in self.models)
        return [self.by_name(name)[0] for name in names]


def digest_predictions(predictions):
    """Hash predictions by what they are and not by how they are stored, so that two people can compare theirs.

    Parameters
    ----------
    predictions : DataFrame
        As in ``predictions.parquet``.

    Returns
    -------
    str
        SHA-256, in hexadecimal, of one line an image, in order: id, usage, label and the seven probabilities as
        the hexadecimal digits of big-endian float32, with tabs between the four.
    """
    probabilities = predictions[list(PROBABILITY_COLUMNS)].to_numpy(dtype=">f4")
    sha = hashlib.sha256()
    columns = (predictions["id"], predictions["usage"], predictions["label"], probabilities)
    for image, usage, label, row in zip(*columns, strict=True):
        sha.update(f"{image}\t{usage}\t{label}\t{row.tobytes().hex()}\n".encode())
    return sha.hexdigest()


def read_model(folder):
    """Read one training's folder, ``<run>/<model>/seed-<n>``.

    Raises
    ------
    ResultsError
        If one of `MODEL_FILES` is missing.
    """
    folder = Path(folder)
    missing = [name for name in MODEL_FILES if not (folder / name).exists()]
    if missing:
        raise ResultsError(
            f"{folder}: {', '.join(missing)} missing; expected {', '.join(MODEL_FILES)}. "
            "Run the model's notebook again, or delete the folder."
        )
    record = read_json(folder / "run.json")
    summary = folder / "summary.txt"
    return ModelResult(
        model=record["model"],
        seed=record["seed"],
        label=record["label"],
        record=record,
        history=pd.read_csv(folder / "history.csv"),
        predictions=pd.read_parquet(folder / "predictions.parquet"),
        metrics=read_json(folder / "metrics.json"),
        summary=summary.read_text(encoding="utf-8") if summary.exists() else "",
        architecture=read_json(folder / "architecture.json"),
        folder=folder,
    )


def read_run(folder):
    """Read a run folder, whatever part of it is there.

    Parameters
    ----------
    folder : path
        The run folder (``--out``).

    Returns
    -------
    Run
        With no models where none has been run yet.
    """
    folder = Path(folder)
    plan = read_json(folder / "plan.json")
    planned = [(entry["model"], entry["seed"]) for entry in plan.get("models", [])]
    models = [read_model(path.parent) for path in sorted(folder.glob("*/seed-*/run.json"))]
    if planned:
        models = [m for m in models if (m.model, m.seed) in planned]
        models.sort(key=lambda m: planned.index((m.model, m.seed)))
    failures = [read_json(path) for path in sorted(folder.glob("failed/*.json"))]
    if planned:
        failures = [failure for failure in failures if (failure["model"], failure["seed"]) in planned]
    images = folder / "dataset" / "images.parquet"
    return Run(
        folder=folder,
        plan=plan,
        models=models,
        failures=failures,
        dataset=read_json(folder / "dataset" / "dataset.json"),
        images=pd.read_parquet(images) if images.exists() else None,
    )
