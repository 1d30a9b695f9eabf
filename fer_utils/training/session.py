"""The beginning of every model's notebook: data, split, seed and device, and what a reader must be told of them."""

import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import keras
import tensorflow as tf

from fer_utils import provenance
from fer_utils.batch import lifeline
from fer_utils.constants import THESIS_SETTINGS
from fer_utils.data import dataset as datasets
from fer_utils.data import splits
from fer_utils.errors import ConfigError
from fer_utils.files import read_json
from fer_utils.paths import resolve
from fer_utils.report.facts import device_text
from fer_utils.training import distribution, machine, onednn
from fer_utils.training import precision as precisions
from fer_utils.training.resolved import Resolved
from fer_utils.training.state import TrainingState

#: Seconds to wait for another process that trains the same: the kernel of a run that was killed ends in some seconds.
PATIENCE = 60

#: A run with fewer epochs is a shortened one.
THESIS_EPOCHS = THESIS_SETTINGS["epochs"]

#: The parameters that a model's notebook must have for `begin`; it may have more, and all are recorded.
REQUIRED = (
    "model",
    "label",
    "data",
    "out",
    "profile",
    "protocol",
    "seed",
    "threads",
    "deterministic",
    "precision",
    "epochs",
    "images_per_class",
    "test_images_per_class",
    "epoch_images_per_class",
)


@dataclass
class TrainingRun:
    """One training: a model's notebook, a seed, and what they were run on.

    Attributes
    ----------
    parameters : dict
        All parameters of the notebook.
    dataset : fer_utils.data.dataset.Dataset
        The whole dataset.
    split : fer_utils.data.splits.Split
        Which of its images are trained, validated and tested on.
    folder : Path
        Where the results go: ``<out>/<model>/seed-<n>``.
    state_folder : Path
        Where the training's state is kept: ``<out>/.training/<model>/seed-<n>``.
    device : dict
        ``kind`` (CPU or GPU), ``name``, ``threads``, ``replicas``, and ``distribution`` where there are several.
    precision : str
        Keras's dtype policy, what ``auto`` stands for resolved.
    started : str
        Time in UTC, ISO 8601.
    lock : filelock.FileLock
        Held while this process lives, so that no other one trains the same.
    resolved : fer_utils.training.resolved.Resolved
        What the open requests among the parameters came to when the training began.
    strategy : tf.distribute.Strategy or None
        What spreads the training over several devices; None on one.
    weights : dict
        Initial weights, as `fer_utils.training.weights.backbone` records them.
    augmentation : dict
        Settings of the augmentation.
    state : fer_utils.training.state.TrainingState
        The training's state on disk, after `fer_utils.training.fitting.fit`.
    kept : dict
        What the state holds: history, best epoch, segments.
    """

    parameters: dict
    dataset: datasets.Dataset
    split: splits.Split
    folder: Path
    state_folder: Path
    device: dict
    precision: str
    started: str
    lock: filelock.FileLock
    resolved: Resolved
    strategy: tf.distribute.Strategy | None = None
    weights: dict = field(default_factory=lambda: {"requested": "none", "used": "none", "sha256": None, "reason": None})
    augmentation: dict = field(default_factory=dict)
    state: TrainingState | None = None
    kept: dict = field(default_factory=dict)

    @property
    def shortened(self):
        """Whether fewer epochs or images were used than the thesis's Table 5.1 and section 3.1 say."""
        p = self.parameters
        limits = (p["images_per_class"], p["test_images_per_class"], p["epoch_images_per_class"])
        return p["epochs"] < THESIS_EPOCHS or any(limits)

    @property
    def synthetic(self):
        """Whether the images are drawn ones."""
        return self.dataset.fingerprint["variant"] == "synthetic"

    def scope(self):
        """Return what the network must be built in, for a ``with``; on one device it does nothing."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def warnings(self):
        """Return what a reader must know before believing a number, one sentence each."""
        found = []
        if self.synthetic:
            found.append("SYNTHETIC DATA: the faces are drawn by a program; no number here is a result.")
        elif not self.dataset.fingerprint["known"]:
            found.append(f"NOT THE KNOWN FER2013: {self.dataset.fingerprint['description']}")
        if self.shortened:
            p = self.parameters
            found.append(
                f"SHORTENED RUN: {p['epochs']} of {THESIS_EPOCHS} epochs on {len(self.split.train):,} of "
                f"{int((self.dataset.usage == 'Training').sum()):,} training images; "
                "its numbers cannot be held against the thesis."
            )
        if self.weights["reason"]:
            found.append(f"RANDOM INITIALISATION: {self.weights['reason']}; every layer is trained.")
        if self.strategy and self.device["kind"] == "CPU":
            found.append(
                f"LOGICAL DEVICES: one processor stands for {self.device['replicas']} devices, which shows that "
                "training on several works and is slower than on one."
            )
        return found


def begin(parameters):
    """Find data, split, seed and device, and say what this run is.

    Parameters
    ----------
    parameters : dict
        The notebook's parameters by name, at least those in `REQUIRED`.

    Returns
    -------
    TrainingRun

    Raises
    ------
    ConfigError
        If a parameter is missing or impossible, or another process trains the same model and seed.
    DataError
        If the data cannot be had or is damaged.
    """
    missing = [name for name in REQUIRED if name not in parameters]
    if missing:
        raise ConfigError(f"the parameters cell lacks {', '.join(missing)}; expected {', '.join(REQUIRED)}")
    p = dict(parameters)
    if p["epochs"] < 1:
        raise ConfigError(f"epochs is {p['epochs']}; expected 1 or more")
    # A kernel whose run was killed must not go on; where it is no run's, nothing is followed.
    lifeline.follow(lambda: os._exit(1))
    out = resolve(p["out"])
    state_folder = out / ".training" / p["model"] / f"seed-{p['seed']}"
    state_folder.mkdir(parents=True, exist_ok=True)
    # The same kernel may hold it already: its cells are run again.
    lock = filelock.FileLock(state_folder / "lock", timeout=PATIENCE, is_singleton=True)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"{state_folder}: another process is training {p['model']} with seed {p['seed']} into this folder; "
            "wait for it, stop it, or choose another folder (out)"
        ) from None
    resolved = Resolved(state_folder)
    # A notebook without the parameter knows nothing of a scope.
    devices = distribution.choose(p.get("devices", 1), resolved)
    device = prepare_device(choose_threads(p["threads"], resolved), p["seed"], p["deterministic"], devices)
    precision = choose_precision(p, resolved, device["kind"])
    keras.config.set_dtype_policy(precision)
    dataset = load_data(p, resolved)
    split = splits.split(dataset, p["protocol"], p["images_per_class"], p["test_images_per_class"])
    refuse_other_data(out, dataset.fingerprint)
    run = TrainingRun(
        parameters=p,
        dataset=dataset,
        split=split,
        folder=out / p["model"] / f"seed-{p['seed']}",
        state_folder=state_folder,
        device=device,
        precision=precision,
        started=provenance.now(),
        lock=lock,
        resolved=resolved,
        strategy=distribution.mirrored(device["kind"], devices) if devices > 1 else None,
    )
    print(f"{p['label']}, seed {p['seed']}, protocol {p['protocol']!r}, profile {p['profile']!r}")
    print(
        f"Split: {len(split.train):,} training, {len(split.validation):,} validation, {len(split.public):,} "
        f"PublicTest and {len(split.private):,} PrivateTest images"
    )
    print(f"Device: {device_text({'device': device})}, {precision}")
    if device["kind"] == "CPU" and onednn.came_too_late():
        print("*** This is slow: without oneDNN. Restart the kernel, and import fer_utils before keras and tensorflow.")
    for line in run.warnings():
        print(f"*** {line}")
    return run


def choose_threads(asked, resolved):
    """Return the number of threads: as asked, else as when the training began, else as many as there are cores.

    Parameters
    ----------
    asked : int
        0 for no wish.
    resolved : fer_utils.training.resolved.Resolved
        The number is noted there.
    """
    threads = asked or resolved.get("threads") or available_cores()
    resolved.keep("threads", threads)
    return threads


def choose_precision(parameters, resolved, device):
    """Return the dtype policy: as asked, else as when the training began, else what the table says of this device."""
    asked = parameters["precision"]
    if asked != "auto":
        return precisions.choose(asked, parameters.get("notebook"), device)
    precision = resolved.get("precision") or precisions.choose("auto", parameters.get("notebook"), device)
    resolved.keep("precision", precision)
    return precision


def available_cores():
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def load_data(parameters, resolved):
    """Load the dataset; where it was left open which, the one that the training began with.

    Raises
    ------
    ConfigError
        If that cannot be had any more.
    DataError
        If no data can be had, or they are damaged.
    """
    asked, before = parameters["data"], resolved.get(f"data {parameters['data']}")
    known = before and (before["path"] is None or Path(before["path"]).exists())
    if known:
        print("The data are those that the trainings in this folder began with.")
    source = (before["path"] or "synthetic") if known else asked
    dataset = datasets.load(source, allow_fallback=parameters["profile"] != "paper")
    found = dataset.fingerprint["sha256"]
    if before and before["fingerprint"] != found:
        raise ConfigError(
            f"data {asked!r}: the trainings in this folder began with {before['description']} This is something else: "
            f"{dataset.fingerprint['description']} Get the first back, or choose another folder (out)."
        )
    if asked in ("auto", "kaggle"):
        record = {"path": dataset.path and str(dataset.path), "fingerprint": found}
        resolved.keep(f"data {asked}", record | {"description": dataset.fingerprint["description"]})
    return dataset


def refuse_other_data(out, fingerprint):
    """Keep results on different data out of one folder.

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
                f"{fingerprint['description']} Results of the two would lie side by side as if they were one: give "
                "another folder (out), or delete that one."
            )


def prepare_device(threads, seed, deterministic, devices=1):
    """Set threads, devices, seeds and determinism before TensorFlow computes anything.

    Parameters
    ----------
    threads : int
        CPU threads within an operation. One and two threads give different sums, so the number belongs to the record.
    seed : int
        Seeds Python, NumPy and TensorFlow.
    deterministic : bool
        Use only operations that give the same result each time.
    devices : int
        How many to use.

    Returns
    -------
    dict
        ``kind``, ``name``, ``threads``, ``replicas``, and ``distribution`` where there are several.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            raise ConfigError(
                f"threads is {threads}, and TensorFlow runs in this kernel with another number; restart the kernel"
            ) from None
    distribution.prepare(devices)
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    name = machine.cpu_name() + (", without oneDNN" if onednn.in_use() is False else "")
    if gpus:
        details = [(gpu, tf.config.experimental.get_device_details(gpu)) for gpu in gpus[:devices]]
        name = " and ".join(dict.fromkeys(detail.get("device_name", gpu.name) for gpu, detail in details))
    device = {"kind": "GPU" if gpus else "CPU", "name": name, "threads": threads, "replicas": devices}
    return device | ({"distribution": distribution.NAME} if devices > 1 else {})
