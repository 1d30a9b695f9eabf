"""The beginning of every model's notebook: data, split, seed and device, and what a reader must know about them."""

from dataclasses import dataclass, field
from pathlib import Path

import filelock
import keras
import numpy as np

from fer_utils import provenance
from fer_utils.constants import THESIS_SETTINGS
from fer_utils.data import dataset as datasets
from fer_utils.data import splits
from fer_utils.errors import ConfigError
from fer_utils.files import read_json, write_json
from fer_utils.paths import resolve
from fer_utils.training import device as devices

#: Seconds to wait for another process that trains the same: the kernel of a run that was killed ends in some seconds.
PATIENCE = 60

#: The parameters that every model's notebook has; it may have more, and all are recorded.
REQUIRED = (
    "model", "label", "notebook", "data", "out", "profile", "protocol", "seed", "threads", "deterministic", "precision",
    "epochs", "images_per_class", "test_images_per_class", "epoch_images_per_class",
)  # fmt: skip


class Resolved:
    """The values that ``auto`` settings were resolved to when a training began: data, weights, threads, dtype policy.

    ``data="auto"`` or ``weights="imagenet"`` can mean one thing today and another tomorrow. A training that has begun
    goes on with what it began with: the values bind from the first finished epoch on.
    """

    def __init__(self, folder):
        self.path = Path(folder) / "resolved.json"
        begun = any(Path(folder).glob("state-*/state.json"))
        self.values = read_json(self.path) if begun else {}

    def get(self, name, default=None):
        """Return what `name` came to, or `default`."""
        return self.values.get(name, default)

    def keep(self, name, value):
        """Note what `name` came to (JSON-able) and return it."""
        if name not in self.values or self.values[name] != value:
            self.values[name] = value
            write_json(self.path, self.values)
        return value


@dataclass
class TrainingRun:
    """One training: a model's notebook, a seed, and what they were run on.

    Attributes
    ----------
    parameters : dict
        All parameters of the notebook.
    dataset : fer_utils.data.dataset.Dataset
        The whole dataset: ``images`` (n, 48, 48) uint8, ``labels`` (n,) in 0..6, ``usage``, ``ids``.
    split : fer_utils.data.splits.Split
        Positions of the training, validation and test images in it.
    scored : ndarray of int
        Positions of the test images that are scored after each epoch.
    folder : Path
        Where the results go: ``<out>/<model>/seed-<n>``.
    state_folder : Path
        Where the training's state is kept: ``<out>/.training/<model>/seed-<n>``.
    device : dict
        ``kind`` (CPU or GPU), ``name``, ``threads``.
    precision : str
        Keras's dtype policy.
    started : str
        Time in UTC, ISO 8601.
    lock : filelock.FileLock
        Held while this process lives, so that no other one trains the same.
    resolved : Resolved
        What the open requests among the parameters came to when the training began.
    weights : dict
        Initial weights, as `fer_utils.training.weights.initial_weights` records them.
    fast_layers : list of str
        What computes with fused operations, as `fer_utils.training.fast_layers.accelerate` lists it.
    augmentation : dict
        Settings of the augmentation, noted by `fer_utils.training.pipeline.batches`.
    """

    parameters: dict
    dataset: datasets.Dataset
    split: splits.Split
    scored: np.ndarray
    folder: Path
    state_folder: Path
    device: dict
    precision: str
    started: str
    lock: filelock.FileLock
    resolved: Resolved
    weights: dict = field(default_factory=lambda: {"requested": "none", "used": "none", "sha256": None, "reason": None})
    fast_layers: list = field(default_factory=list)
    augmentation: dict = field(default_factory=dict)

    @property
    def shortened(self):
        """Whether fewer epochs or images are used than Table 5.1 and section 3.1 of the thesis say."""
        p = self.parameters
        limits = (p["images_per_class"], p["test_images_per_class"], p["epoch_images_per_class"])
        return p["epochs"] < THESIS_SETTINGS["epochs"] or any(limits)

    @property
    def synthetic(self):
        """Whether the images are drawn ones."""
        return self.dataset.fingerprint["variant"] == "synthetic"

    def warnings(self):
        """Return what a reader must know before believing a number, one sentence each."""
        found = []
        if self.synthetic:
            found.append("SYNTHETIC DATA: the faces are drawn by a program; no number here is a result.")
        elif not self.dataset.fingerprint["known"]:
            found.append(f"NOT THE KNOWN FER2013: {self.dataset.fingerprint['description']}")
        if self.shortened:
            found.append(
                f"SHORTENED RUN: {self.parameters['epochs']} of {THESIS_SETTINGS['epochs']} epochs on "
                f"{len(self.split.train):,} of {int((self.dataset.usage == 'Training').sum()):,} training images; "
                "its numbers cannot be held against the thesis."
            )
        if self.weights["reason"]:
            found.append(f"RANDOM INITIALISATION: {self.weights['reason']}; every layer is trained.")
        return found


def begin(namespace):
    """Find data, split, seed and device, and say what this run is.

    Parameters
    ----------
    namespace : dict
        The notebook's ``globals()``. The names that its parameters cell annotates with a type are the parameters; at
        least those in `REQUIRED`.

    Returns
    -------
    TrainingRun

    Raises
    ------
    ConfigError
        If a parameter is missing or impossible, or another process trains the same model and seed.
    DataError
        If the data are missing or damaged.
    """
    p = {name: namespace[name] for name in namespace.get("__annotations__", {}) if name in namespace}
    missing = [name for name in REQUIRED if name not in p]
    if missing:
        raise ConfigError(f"the parameters cell lacks {', '.join(missing)}; expected {', '.join(REQUIRED)}")
    if p["epochs"] < 1:
        raise ConfigError(f"epochs is {p['epochs']}; expected 1 or more")
    out = resolve(p["out"])
    state_folder = out / ".training" / p["model"] / f"seed-{p['seed']}"
    lock = take(state_folder, p)
    resolved = Resolved(state_folder)
    # Another number of threads gives other sums, so a training keeps the number that it began with.
    threads = resolved.keep("threads", p["threads"] or resolved.get("threads") or devices.available_cores())
    device = devices.prepare(threads, p["seed"], p["deterministic"])
    precision = devices.choose_precision(p["precision"], p["notebook"], device["kind"])
    if p["precision"] == "auto":
        precision = resolved.keep("precision", resolved.get("precision", precision))
    keras.config.set_dtype_policy(precision)
    dataset = load_data(p, resolved)
    refuse_other_data(out, dataset.fingerprint)
    per_class = p["epoch_images_per_class"] or p["test_images_per_class"]
    run = TrainingRun(
        parameters=p,
        dataset=dataset,
        split=splits.split(dataset, p["protocol"], p["images_per_class"], p["test_images_per_class"]),
        scored=splits.split(dataset, p["protocol"], test_images_per_class=per_class).test,
        folder=out / p["model"] / f"seed-{p['seed']}",
        state_folder=state_folder,
        device=device,
        precision=precision,
        started=provenance.now(),
        lock=lock,
        resolved=resolved,
    )
    print(f"{p['label']}, seed {p['seed']}, protocol {p['protocol']!r}, profile {p['profile']!r}")
    print(
        f"Split: {len(run.split.train):,} training, {len(run.split.validation):,} validation, "
        f"{len(run.split.public):,} PublicTest and {len(run.split.private):,} PrivateTest images"
    )
    print(f"Device: {device['kind']} {device['name']}, {threads} threads, {precision}")
    if device["kind"] == "CPU" and devices.onednn_came_too_late():
        print("*** This is slow: without oneDNN. Restart the kernel, and import fer_utils before keras and tensorflow.")
    for line in run.warnings():
        print(f"*** {line}")
    return run


def take(state_folder, p):
    """Lock the state of a model and seed for this process; a kernel whose cells are run again holds it already."""
    state_folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(state_folder / "lock", timeout=PATIENCE, is_singleton=True)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"{state_folder}: another process is training {p['model']} with seed {p['seed']} into this folder; "
            "wait for it, stop it, or choose another folder (out)"
        ) from None
    return lock


def load_data(p, resolved):
    """Load the dataset; where it was left open which, the one that the training began with.

    Raises
    ------
    ConfigError
        If that one is gone.
    DataError
        If no data are found, or they are damaged.
    """
    asked, before = p["data"], resolved.get(f"data {p['data']}")
    known = before and (before["path"] is None or Path(before["path"]).exists())
    if known:
        print("The data are those that the trainings in this folder began with.")
    source = (before["path"] or "synthetic") if known else asked
    dataset = datasets.load(source, allow_fallback=p["profile"] != "paper")
    found = dataset.fingerprint["sha256"]
    if before and before["fingerprint"] != found:
        raise ConfigError(
            f"data {asked!r}: the trainings in this folder began with {before['description']} This is something else: "
            f"{dataset.fingerprint['description']} Restore the first, or choose another folder (out)."
        )
    if asked in ("auto", "kaggle"):
        record = {"path": dataset.path and str(dataset.path), "fingerprint": found}
        resolved.keep(f"data {asked}", record | {"description": dataset.fingerprint["description"]})
    return dataset


def refuse_other_data(out, fingerprint):
    """Keep results on different data out of one folder, where they would look like one run.

    Raises
    ------
    ConfigError
        If the run folder holds a training on other data.
    """
    for path in sorted(Path(out).glob("*/seed-*/run.json")):
        other = read_json(path)["data"]
        if other["fingerprint"] != fingerprint["sha256"]:
            raise ConfigError(
                f"{path}: holds results on other data ({other['source']}: {other['description']}); these are "
                f"{fingerprint['description']} Give another folder (out), or delete that one."
            )
