"""The flow that every model's notebook follows: begin, fit, evaluate.

The notebook brings the network and its augmentation; what all share is here. `begin` finds data, split, seed and
device, `fit` trains so that it can be stopped at any moment and called again, `evaluate` writes what the run
leaves on disk. Nothing after that needs the model.
"""

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import filelock
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from fer_utils import architecture as architectures
from fer_utils import augmentation as augmentations
from fer_utils import data as datasets
from fer_utils import pipeline, provenance, splits
from fer_utils.callbacks import KeepState, Progress, ScoreEpoch
from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS, THESIS_SETTINGS
from fer_utils.errors import ConfigError
from fer_utils.files import replacing, write_json, write_text
from fer_utils.macro import MacroPrecision, MacroRecall
from fer_utils.metrics import scores
from fer_utils.paths import resolve
from fer_utils.results import read_json
from fer_utils.state import TrainingState

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
    dataset : fer_utils.data.Dataset
        The whole dataset.
    split : fer_utils.splits.Split
        Which of its images are trained, validated and tested on.
    folder : Path
        Where the results go: ``<out>/<model>/seed-<n>``.
    state_folder : Path
        Where the training's state is kept: ``<out>/.training/<model>/seed-<n>``.
    device : dict
        ``kind`` (CPU or GPU), ``name``, ``threads``.
    started : str
        Time in UTC, ISO 8601.
    lock : filelock.FileLock
        Held while this process lives, so that no second one trains the same.
    weights : dict
        Initial weights, as `fer_utils.weights.backbone` records them.
    augmentation : dict
        Settings of the augmentation.
    kept : dict
        The training's state after `fit`: history, best epoch, segments.
    """

    parameters: dict
    dataset: datasets.Dataset
    split: splits.Split
    folder: Path
    state_folder: Path
    device: dict
    started: str
    lock: filelock.FileLock
    weights: dict = field(default_factory=lambda: {"requested": "none", "used": "none", "sha256": None, "reason": None})
    augmentation: dict = field(default_factory=dict)
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
    device = prepare_device(p["threads"], p["seed"], p["deterministic"])
    out = resolve(p["out"])
    state_folder = out / ".training" / p["model"] / f"seed-{p['seed']}"
    state_folder.mkdir(parents=True, exist_ok=True)
    # A job that lost its parent may live on for some seconds before its kernel notices; give it these.
    lock = filelock.FileLock(state_folder / "lock", timeout=20)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"{state_folder}: another process is training {p['model']} with seed {p['seed']} into this folder; "
            "wait for it, stop it, or choose another folder (out)"
        ) from None
    dataset = datasets.load(p["data"], allow_fallback=p["profile"] != "paper")
    split = splits.split(dataset, p["protocol"], p["images_per_class"], p["test_images_per_class"])
    run = TrainingRun(
        parameters=p,
        dataset=dataset,
        split=split,
        folder=out / p["model"] / f"seed-{p['seed']}",
        state_folder=state_folder,
        device=device,
        started=now(),
        lock=lock,
    )
    print(f"{p['label']}, seed {p['seed']}, protocol {p['protocol']!r}, profile {p['profile']!r}")
    print(
        f"Split: {len(split.train):,} training, {len(split.validation):,} validation, {len(split.public):,} "
        f"PublicTest and {len(split.private):,} PrivateTest images"
    )
    print(f"Device: {device['kind']} {device['name']}, {device['threads']} threads")
    for line in run.warnings():
        print(f"*** {line}")
    return run


def now():
    """Return the time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def prepare_device(threads, seed, deterministic):
    """Set threads, seeds and determinism before TensorFlow computes anything.

    Parameters
    ----------
    threads : int
        CPU threads within an operation; 0 leaves the choice to TensorFlow. One and two threads give different
        sums, so the number belongs to the record.
    seed : int
        Seeds Python, NumPy and TensorFlow.
    deterministic : bool
        Use only operations that give the same result each time.

    Returns
    -------
    dict
        ``kind``, ``name``, ``threads``.
    """
    gpus = tf.config.list_physical_devices("GPU")
    # Where TensorFlow has already started in this kernel (a cell is run again), its threads are settled.
    if threads and tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    name = provenance.cpu_name()
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name)
    return {"kind": "GPU" if gpus else "CPU", "name": name, "threads": threads or os.cpu_count()}


def fit(run, network, *, augmentation, batch_size, learning_rate, plateau_factor, plateau_patience):
    """Train a network as Table 5.1 says; called again, go on where it stopped.

    Adam, categorical cross-entropy, ReduceLROnPlateau on the validation loss, ModelCheckpoint on the validation
    accuracy (thesis, section 3.2.5 and Table 5.1).

    Parameters
    ----------
    run : TrainingRun
        What `begin` returned.
    network : keras.Model
        Takes images (48, 48, 1) in 0..255, gives 7 class probabilities.
    augmentation : dict
        See `fer_utils.augmentation.check`.
    batch_size : int
        Images in a batch.
    learning_rate : float
        Adam's, at the start.
    plateau_factor, plateau_patience : float, int
        After so many epochs without a lower validation loss the learning rate is multiplied by the factor.

    Returns
    -------
    DataFrame
        One row an epoch: ``epoch``, ``learning_rate``, and each of `fer_utils.metrics.METRICS` for training (no
        prefix; measured while training, with dropout and augmentation), ``val_``, ``public_``, ``private_`` and
        ``test_``.
    """
    p, split, dataset = run.parameters, run.split, run.dataset
    run.augmentation = augmentations.check(augmentation)
    network.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=epoch_metrics(),
        # XLA pays on a GPU and slows training on a CPU.
        jit_compile="auto" if run.device["kind"] == "GPU" else False,
    )
    # Only a built optimizer takes its state back.
    network.optimizer.build(network.trainable_variables)
    state = TrainingState(run.state_folder / "state", training_key(run, network, locals()))
    kept = state.read() or {
        "epoch": 0,
        "history": [],
        "plateau": {},
        "best": None,
        "best_epoch": None,
        "best_file": None,
        "segments": [],
    }
    first_epoch = kept["epoch"]
    run.kept = kept
    if first_epoch:
        state.restore(network, kept)
        print(f"{first_epoch} of {p['epochs']} epochs were trained before; nothing of them is done again.")
    if first_epoch < p["epochs"]:
        segment = {"first_epoch": first_epoch + 1, "last_epoch": first_epoch, "seconds": 0.0, "started": now()}
        kept["segments"].append(segment | run.device)
        plateau = keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss", factor=plateau_factor, patience=plateau_patience, min_lr=1e-6
        )
        checkpoint = keras.callbacks.ModelCheckpoint(
            state.folder / "best-{epoch:03d}.weights.h5",
            monitor="val_accuracy",
            mode="max",
            save_best_only=True,
            save_weights_only=True,
            initial_value_threshold=kept["best"],
        )
        per_class = p["epoch_images_per_class"] or p["test_images_per_class"]
        scored = splits.split(dataset, p["protocol"], test_images_per_class=per_class).test
        steps = pipeline.steps_per_epoch(len(split.train), batch_size)
        network.fit(
            pipeline.training_batches(
                dataset.images[split.train],
                dataset.labels[split.train],
                batch_size=batch_size,
                seed=p["seed"],
                settings=run.augmentation,
                first_epoch=first_epoch,
                epochs=p["epochs"],
            ),
            initial_epoch=first_epoch,
            epochs=p["epochs"],
            steps_per_epoch=steps,
            shuffle=False,
            callbacks=[
                ScoreEpoch(
                    dataset.images[scored][..., np.newaxis],
                    dataset.labels[scored],
                    dataset.usage[scored] == "PublicTest",
                    "public" if p["protocol"] == "sound" else "test",
                ),
                plateau,
                checkpoint,
                KeepState(state, plateau, kept),
                Progress(run.state_folder / "progress.json", f"{p['label']}, seed {p['seed']}", p["epochs"], steps),
            ],
            verbose=0,
        )
    return pd.DataFrame(kept["history"])


def epoch_metrics():
    """Return Table 5.1's metrics as Keras counts them over a training epoch."""
    return [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.Precision(name="precision"),
        keras.metrics.Recall(name="recall"),
        keras.metrics.F1Score(average="micro", threshold=0.5, name="f1"),
        keras.metrics.AUC(name="auc"),
        MacroPrecision(name="macro_precision"),
        MacroRecall(name="macro_recall"),
        keras.metrics.F1Score(average="macro", name="macro_f1"),
    ]


def training_key(run, network, settings):
    """Everything that the course of a training depends on: a kept state with another key is of no use.

    Threads and device are left out: a training that is moved goes on, and the record says where each epoch ran.
    """
    p = run.parameters
    return {
        "network": network.to_json(),
        "trainable": [variable.path for variable in network.trainable_variables],
        "weights": {name: run.weights[name] for name in ("used", "sha256")},
        "data": run.dataset.fingerprint["sha256"],
        "parameters": {
            name: p[name] for name in ("protocol", "seed", "epochs", "images_per_class", "epoch_images_per_class")
        }
        | {"test_images_per_class": p["test_images_per_class"]},
        "settings": {
            name: settings[name]
            for name in ("augmentation", "batch_size", "learning_rate", "plateau_factor", "plateau_patience")
        },
        "code": provenance.code_hash(["augmentation", "pipeline", "callbacks", "metrics", "macro"]),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def evaluate(run, network):
    """Score the best and the last epoch and write what the run leaves.

    The predictions come from the weights with the best validation accuracy. The network is left with them.

    Parameters
    ----------
    run : TrainingRun
        After `fit`.
    network : keras.Model
        The network that was trained.

    Returns
    -------
    DataFrame
        One row per scored part of the data and epoch: ``epoch``, ``images`` and the metrics.
    """
    kept, split, dataset = run.kept, run.split, run.dataset
    started = time.monotonic()
    run.folder.mkdir(parents=True, exist_ok=True)

    def predict(index):
        images = dataset.images[index][..., np.newaxis]
        return network.predict(images, batch_size=256, verbose=0)

    last = {"epoch": kept["epoch"]} | score_test(run, predict(split.test))
    network.load_weights(run.state_folder / "state" / kept["best_file"])
    everything = np.concatenate([split.train, split.test])
    proba = predict(everything)
    best = {"epoch": kept["best_epoch"]}
    best["train"] = scores(dataset.labels[split.train], proba[: len(split.train)])
    best |= score_test(run, proba[len(split.train) :])

    history = pd.DataFrame(kept["history"])
    predictions = pd.DataFrame({"id": dataset.ids[everything], "usage": dataset.usage[everything]})
    predictions["label"] = dataset.labels[everything].astype("int8")
    predictions[list(PROBABILITY_COLUMNS)] = proba.astype("float32")
    architecture = architectures.describe(network)

    with replacing(run.folder / "history.csv") as path:
        history.to_csv(path, index=False)
    with replacing(run.folder / "predictions.parquet") as path:
        predictions.to_parquet(path, index=False)
    # Saved with standard metrics and without the optimizer's moments: loading needs Keras alone.
    network.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    for name in ("model.keras", "model.h5"):
        with replacing(run.folder / name) as path:
            network.save(path)
    with replacing(run.folder / "model.weights.h5") as path:
        network.save_weights(path)
    write_text(run.folder / "summary.txt", architectures.summary_text(network))
    write_json(run.folder / "architecture.json", architecture)
    write_json(run.folder / "metrics.json", {"best": best, "last": last})
    record = make_record(run, architecture, time.monotonic() - started)
    # The last to be written: a folder with a record is a whole one.
    write_json(run.folder / "run.json", record)
    return score_table(run, best, last)


def score_test(run, proba):
    """Score probabilities of the test images, in the split's order, on each of its parts."""
    labels = run.dataset.labels[run.split.test]
    public = run.dataset.usage[run.split.test] == "PublicTest"
    parts = {
        "public": scores(labels[public], proba[public]),
        "private": scores(labels[~public], proba[~public]),
        "test": scores(labels, proba),
    }
    return {"validation": parts["public" if run.parameters["protocol"] == "sound" else "test"]} | parts


def score_table(run, best, last):
    """Return the scores of the best and the last epoch as a table for people."""
    names = {
        "train": "training images",
        "public": "PublicTest",
        "private": "PrivateTest",
        "test": "PublicTest + PrivateTest",
    }
    rows = []
    for which, epoch in (("best", best), ("last", last)):
        for part, name in names.items():
            if part in epoch:
                values = {k: v for k, v in epoch[part].items() if k not in ("n", "per_class")}
                row = {"epoch": f"{which} ({epoch['epoch']})", "scored on": name, "images": epoch[part]["n"]}
                rows.append(row | values)
    return pd.DataFrame(rows).set_index(["epoch", "scored on"])


def make_record(run, architecture, evaluate_seconds):
    """Return ``run.json``: all that made the numbers of this run."""
    p, kept, fingerprint, split = run.parameters, run.kept, run.dataset.fingerprint, run.split
    seconds = sum(segment["seconds"] for segment in kept["segments"])
    gpu_peak = None
    if run.device["kind"] == "GPU":
        gpu_peak = round(tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20, 1)
    shown = p | {
        "optimizer": "Adam",
        "loss": "CategoricalCrossentropy",
        # Where files lie is nobody's business but the machine's.
        "data": run.dataset.source,
        "out": Path(p["out"]).name,
    }
    if "weights" in p:
        shown["weights"] = run.weights["requested"]
    return {
        "model": p["model"],
        "seed": p["seed"],
        "label": p["label"],
        "notebook": p.get("notebook", ""),
        "profile": p["profile"],
        "protocol": p["protocol"],
        "data": {
            "source": run.dataset.source,
            "variant": fingerprint["variant"],
            "known": fingerprint["known"],
            "description": fingerprint["description"],
            "fingerprint": fingerprint["sha256"],
            "decoder": fingerprint["decoder"],
            "n_images": fingerprint["n_images"],
        },
        "split": {
            "train": len(split.train),
            "validation": len(split.validation),
            "public": len(split.public),
            "private": len(split.private),
            "images_per_class": p["images_per_class"],
            "test_images_per_class": p["test_images_per_class"],
            "epoch_images_per_class": p["epoch_images_per_class"],
        },
        "weights": run.weights,
        "parameters": shown,
        "architecture": {
            name: architecture[name] for name in architecture if not isinstance(architecture[name], (list, dict))
        },
        "augmentation": run.augmentation,
        "device": run.device,
        "versions": provenance.versions(),
        "git": provenance.git(),
        "times": {
            "started": run.started,
            "finished": now(),
            "train_seconds": round(seconds, 1),
            "seconds_per_epoch": round(seconds / kept["epoch"], 2),
            "evaluate_seconds": round(evaluate_seconds, 1),
        },
        "segments": kept["segments"],
        "memory": {"peak_rss_mb": provenance.peak_memory_mb(), "gpu_peak_mb": gpu_peak},
        "epochs": {"requested": p["epochs"], "run": kept["epoch"], "best": kept["best_epoch"]},
        "classes": list(CLASSES),
        "shortened": run.shortened,
        "synthetic": run.synthetic,
        "warnings": run.warnings(),
    }


def closing_sentence(run):
    """Say in a sentence what came out, for the notebook's end."""
    scored = read_json(run.folder / "metrics.json")["best"]
    part, name = ("private", "PrivateTest") if run.parameters["protocol"] == "sound" else ("test", "the test images")
    kind = "This is no result of FER2013: " if run.synthetic else ""
    return (
        f"{kind}{run.parameters['label']} (seed {run.parameters['seed']}) reached an accuracy of "
        f"{scored[part]['accuracy']:.3f} and a macro F1 of {scored[part]['macro_f1']:.3f} on {name} "
        f"({scored[part]['n']:,} images), from epoch {scored['epoch']} of {run.kept['epoch']}; on PublicTest and "
        f"PrivateTest together, {scored['test']['accuracy']:.3f} ({scored['test']['n']:,} images)."
    )
