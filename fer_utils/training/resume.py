"""Exact resume: a training can be stopped at any moment and goes on to the same weights.

Keras's ``BackupAndRestore`` is not exact: it keeps neither the dropout generators nor the patience of the learning
rate's schedule, so that a resumed training differs from an uninterrupted one; it writes in place; and it deletes what
it kept when the training ends.
"""

import hashlib
import itertools
import json
import os
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from fer_utils import provenance
from fer_utils.files import flush, read_json, remove_unfinished, replacing, write_json
from fer_utils.metrics import METRICS
from fer_utils.paths import project_root
from fer_utils.training import weights
from fer_utils.training.callbacks import PARTS

#: Parameters on which the course of a training does not depend, or which the key stores differently.
NOT_IN_KEY = {
    "model", "label", "notebook", "data", "out", "profile", "threads", "epochs", "precision", "weights",
    "images_per_class", "test_images_per_class", "epoch_images_per_class",
}  # fmt: skip

#: What the parts of a key are called for people; those not named here are called what they are.
NAMES = {
    "code": "training code",
    "trainable": "layers that are trained",
    "images": "images chosen",
    "sha256": "values of the initial weights",
    "used": "initial weights",
}


class ExactResume(keras.callbacks.Callback):
    """Keep the training's state after each epoch; begin with what was kept of it before.

    `TrainingState` chooses the state: the one with the same key (see `training_key`) that is not longer than this
    training is to be. This callback restores it, and the notebook's ``fit`` begins at `epoch`.

    Parameters
    ----------
    run : TrainingRun
        What `begin` returned.
    network : keras.Model
        Compiled. It is set to the state of the last whole epoch, if there is one.
    augmentation : dict
        Settings of the augmentation: with other settings it is another training.

    Attributes
    ----------
    epoch : int
        Epochs already trained; where ``fit`` begins.
    best_weights : str
        Where ``ModelCheckpoint`` is to save the best weights.
    kept : dict
        What is kept beside the network: history, state of the schedule, best epoch, segments.

    Raises
    ------
    TrainingError
        If the training cannot begin because its initial weights are gone.
    """

    def __init__(self, run, network, augmentation):
        super().__init__()
        # Keras numbers the optimizers that a kernel makes, and the state is kept under this name.
        network.optimizer.name = type(network.optimizer).__name__.lower()
        # Only a built optimizer takes its state back.
        network.optimizer.build(network.trainable_variables)
        key = training_key(run, network, augmentation)
        self.run, self.epochs = run, run.parameters["epochs"]
        self.state = TrainingState(run.state_folder, key, self.epochs)
        nothing = {"epoch": 0, "history": [], "plateau": {}, "best": None, "best_epoch": None, "best_file": None}
        self.kept = self.state.read() or nothing | {"segments": []}
        self.epoch = self.kept["epoch"]
        self.best_weights = str(self.state.folder / "best-{epoch:03d}.weights.h5")
        if self.epoch:
            self.state.restore(network, self.kept)
            print(f"{self.epoch} of {self.epochs} epochs were trained before; they are not trained again.")
            print(moved(self.kept["segments"][-1], run.device) if self.epoch < self.epochs else "", end="")
        else:
            print(self.state.explain_beginning(), end="")
            weights.check(run.weights)

    def watch(self, schedule, checkpoint):
        """Keep the state of these two callbacks as well, which come before this one in the list of callbacks.

        Parameters
        ----------
        schedule : keras.callbacks.ReduceLROnPlateau
            It forgets its patience when a training begins.
        checkpoint : keras.callbacks.ModelCheckpoint
            It forgets its best value.

        Returns
        -------
        ExactResume
            This callback.
        """
        self.schedule, self.checkpoint = schedule, checkpoint
        return self

    @property
    def history(self):
        """DataFrame with one row per epoch.

        ``epoch``, ``learning_rate``, and each of `fer_utils.metrics.METRICS` for training (no prefix; counted while
        training, with dropout and augmentation), ``val_``, ``public_``, ``private_`` and ``test_``.
        """
        return pd.DataFrame(self.kept["history"])

    def on_train_begin(self, logs=None):
        """Restore what schedule and checkpoint have just forgotten."""
        for name, value in self.kept["plateau"].items():
            setattr(self.schedule, name, value)
        if self.kept["best"] is not None:
            self.checkpoint.best = self.kept["best"]
        segment = {"first_epoch": self.epoch + 1, "last_epoch": self.epoch, "seconds": 0.0}
        self.kept["segments"].append(segment | {"started": provenance.now(), "git": provenance.git()} | self.run.device)
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs):
        """Keep the epoch."""
        kept = self.kept
        columns = ["loss", *(name for name in METRICS if name != "loss")]
        columns += [f"{prefix}_{name}" for prefix in PARTS for name in columns]
        row = {"epoch": epoch + 1, "learning_rate": float(logs["learning_rate"])}
        kept["history"].append(row | {name: float(logs[name]) for name in columns})
        kept["epoch"] = self.epoch = epoch + 1
        kept["plateau"] = {name: float(getattr(self.schedule, name)) for name in ("best", "wait", "cooldown_counter")}
        if kept["best_file"] is None or self.checkpoint.best != kept["best"]:
            kept["best"], kept["best_epoch"] = float(self.checkpoint.best), epoch + 1
            kept["best_file"] = Path(self.best_weights.format(epoch=epoch + 1)).name
        now = time.monotonic()
        kept["segments"][-1]["last_epoch"] = epoch + 1
        kept["segments"][-1]["seconds"] += now - self.started
        self.started = now
        self.state.save(self.model, kept)


def training_key(run, network, augmentation):
    """Everything that the course of a training depends on, but its length: with another key it is another training.

    Device and threads are left out: a training that is moved goes on, and the record says where each epoch ran.

    Returns
    -------
    dict
        JSON-able.
    """
    layers = json.loads(network.to_json())
    # Optimizer and loss are the notebook's code; whether XLA compiles is the device's.
    layers.pop("compile_config", None)
    images = hashlib.sha256(run.split.train.tobytes() + b"/" + run.scored.tobytes()).hexdigest()
    notebook = project_root() / "notebooks" / run.parameters["notebook"]
    return {
        "network": json.dumps(layers, sort_keys=True),
        "trainable": [variable.path for variable in network.trainable_variables],
        "weights": {name: run.weights[name] for name in ("used", "sha256")},
        "data": run.dataset.fingerprint["sha256"],
        "images": images,
        "parameters": {name: value for name, value in run.parameters.items() if name not in NOT_IN_KEY},
        "precision": run.precision,
        "augmentation": augmentation,
        "code": provenance.code_hash(notebook if notebook.is_file() else None),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def moved(before, now):
    """Say that a training goes on on another machine, since that changes its last digits; empty if it does not."""
    names = [name for name in ("kind", "name", "threads") if before[name] != now[name]]
    if not names:
        return ""
    changes = "; ".join(f"{name} {before[name]} -> {now[name]}" for name in names)
    return f"*** It goes on elsewhere ({changes}): its numbers differ a little from those without the move.\n"


def differences(before, after):
    """List in which parts two keys differ, with values where they are short, as in ``learning_rate 0.001 -> 0.01``."""

    def parts(key, top=""):
        for name, value in key.items():
            if isinstance(value, dict):
                yield from parts(value, name)
            else:
                yield (top, name), value

    def short(value):
        return isinstance(value, bool | int | float) or isinstance(value, str) and len(value) <= 30

    before, after = dict(parts(before)), dict(parts(after))
    found = []
    for place in dict.fromkeys([*before, *after]):
        old, new = before.get(place), after.get(place)
        if old != new:
            name = NAMES.get(place[1], place[1])
            found.append(f"{name} {old} -> {new}" if short(old) and short(new) else name)
    return found


def flatten(tree, prefix=""):
    """Turn a nested dict into a flat one, with ``//`` between the levels' names."""
    flat = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}//") if isinstance(value, dict) else {path: value}
    return flat


def unflatten(flat):
    """Undo `flatten`."""
    tree = {}
    for path, value in flat.items():
        *levels, name = path.split("//")
        node = tree
        for level in levels:
            node = node.setdefault(level, {})
        node[name] = value
    return tree


def read_kept(folder):
    """Return what ``state.json`` of a state's folder holds, or None where that, or a file it names, is not whole."""
    try:
        kept = json.loads((Path(folder) / "state.json").read_text(encoding="utf-8"))
        whole = all((Path(folder) / name).stat().st_size == size for name, size in kept["files"].items())
    except (OSError, ValueError, AttributeError):
        return None
    return kept if whole else None


class TrainingState:
    """The last finished epoch of one training, on disk.

    Trainings of the same model and seed with different settings lie beside each other, in folders named after their
    key, so that trying something never costs the epochs of what was there before; none is ever removed. A folder
    holds ``key.json``, ``state.json`` (epoch, history, schedule, which files belong to it), ``epoch-<n>.npz`` (weights,
    optimizer, generators) and ``best-<n>.weights.h5``. ``state.json`` is replaced as a whole after the files that it
    names are written, and what it no longer names is removed after that.

    Parameters
    ----------
    parent : path
        The folder of the model and seed. Nobody else may be writing there.
    key : dict
        From `training_key`.
    epochs : int
        How long the training is to be. A longer one goes on from a shorter; a shorter one than what is there begins
        anew, in a folder of its own.
    """

    def __init__(self, parent, key, epochs):
        self.parent, self.key, self.epochs = Path(parent), key, epochs
        remove_unfinished(self.parent)
        name = f"state-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]}"
        own = {path: read_kept(path) for path in [self.parent / name, *sorted(self.parent.glob(f"{name}-*"))]}
        short_enough = {path: kept["epoch"] for path, kept in own.items() if kept and kept["epoch"] <= epochs}
        if short_enough:
            self.folder = max(short_enough, key=short_enough.get)
        else:
            names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
            self.folder = next(self.parent / n for n in names if own.get(self.parent / n) is None)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "key.json").exists():
            write_json(self.folder / "key.json", key)
        os.utime(self.folder)

    def read(self):
        """Return what was kept as a dict, or None where there is nothing whole."""
        return read_kept(self.folder)

    def explain_beginning(self):
        """Return why nothing is resumed although trainings are kept here; empty where there are none."""
        if (self.folder / "state.json").exists():
            return f"{Path(*self.folder.parts[-4:])}: what was kept there is damaged; this training begins anew.\n"
        others = [path for path in self.parent.glob("state-*") if (path / "state.json").exists()]
        if not others:
            return ""
        last = max(others, key=os.path.getmtime)
        before, kept = read_json(last / "key.json"), read_kept(last) or {}
        if before == self.key:
            what = f"it has {kept.get('epoch')} epochs, and this one is to have {self.epochs}"
        else:
            what = "; ".join(differences(before, self.key)) if before else "its settings were not recorded"
        size = sum(file.stat().st_size for path in others for file in path.iterdir())
        place = Path(*self.parent.parts[-3:])
        return (
            f"This training begins anew. It differs from the last one here in: {what}. What was trained before is kept "
            f"({place}/state-... in the run folder, {size / 1e6:.0f} MB in all) and goes on when its settings come "
            "back; delete what is not needed any more.\n"
        )

    def restore(self, network, kept):
        """Set a compiled network, with its optimizer built, to the state kept.

        Raises
        ------
        ValueError
            If the state lacks variables of the network; Keras itself ignores those that do not match.
        """
        # The metrics are reset at the start of an epoch and need not exist before the first batch.
        self._set(network, kept, lambda name: not name.startswith("metrics_variables"))

    def restore_weights(self, network, kept):
        """Set a network, compiled or not, to the weights of the last epoch kept."""
        self._set(network, kept, lambda name: name.startswith(("trainable_variables", "non_trainable_variables")))

    def _set(self, network, kept, wanted):
        names = {name for name in flatten(network.get_state_tree()) if wanted(name)}
        with np.load(self.folder / kept["state_file"]) as arrays:
            if names - set(arrays.files):
                raise ValueError(
                    f"{self.folder}: the kept state lacks {sorted(names - set(arrays.files))[:3]}; delete it"
                )
            # Of a large network the whole state is half a gigabyte; only what is wanted is read.
            network.set_state_tree(unflatten({name: arrays[name] for name in names}))

    def save(self, network, kept):
        """Keep the state after an epoch.

        Parameters
        ----------
        network : keras.Model
        kept : dict
            What else to keep, JSON-able; ``epoch`` (finished epochs) and ``best_file`` are required. The names of
            the files written are added to it.
        """
        name = f"epoch-{kept['epoch']:03d}.npz"
        # Variables, not arrays: each is copied when it is written, and not all of them at once.
        arrays = flatten(network.get_state_tree())
        with replacing(self.folder / name) as temporary:
            np.savez(temporary, **{k: v for k, v in arrays.items() if not k.startswith("metrics_variables")})
        flush(self.folder / kept["best_file"])
        kept["state_file"] = name
        kept["files"] = {name: (self.folder / name).stat().st_size for name in (name, kept["best_file"])}
        write_json(self.folder / "state.json", kept)
        for path in [*self.folder.glob("epoch-*.npz"), *self.folder.glob("best-*.weights.h5")]:
            if path.name not in kept["files"]:
                path.unlink()
