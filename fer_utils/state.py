"""The state of a training, kept so that it can be stopped at any moment and go on.

Keras's ``BackupAndRestore`` does not do here: it keeps neither the dropout generators nor the learning-rate
schedule's patience, so that a resumed training differs from an uninterrupted one; it writes in place; and it
deletes what it kept when the training ends.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from fer_utils.files import replacing, write_json

#: Trainings of one model and seed whose states are kept; a large network's takes some hundred megabytes.
KEPT = 3


def flatten(tree, prefix=""):
    """Turn a nested dict of arrays into a flat one, with ``/`` between the levels' names."""
    flat = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}//") if isinstance(value, dict) else {path: np.asarray(value)}
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


class TrainingState:
    """The last finished epoch of one training, on disk.

    Trainings of the same model and seed with different settings lie beside each other, in folders named after their
    key, so that trying something never costs the epochs of what was there before; the `KEPT` used last stay. A folder
    holds ``state.json`` (epoch, history, schedule, which files belong to it), ``epoch-<n>.npz`` (weights, optimizer,
    generators) and ``best-<n>.weights.h5``. ``state.json`` is replaced as a whole after the files that it names are
    written, and what it no longer names is removed after that.

    Parameters
    ----------
    parent : path
        The folder of the model and seed.
    key : dict
        Everything that the training's course depends on but its length, JSON-able.
    epochs : int
        How long the training is to be. A longer one goes on from a shorter; a shorter one than what is there begins
        anew, in a folder of its own.
    """

    def __init__(self, parent, key, epochs):
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = Path(parent) / f"state-{name}"
        kept = self.read()
        if kept and kept["epoch"] > epochs:
            self.folder = self.folder.with_name(f"state-{name}-{epochs}")
        self.folder.mkdir(parents=True, exist_ok=True)
        os.utime(self.folder)
        states = sorted(Path(parent).glob("state-*"), key=os.path.getmtime)
        for old in states[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def read(self):
        """Return what was kept as a dict, or None where there is nothing whole."""
        path = self.folder / "state.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return kept if all((self.folder / name).exists() for name in kept["files"]) else None

    def restore(self, network, kept):
        """Set a compiled network, with its optimizer built, to the state kept.

        Raises
        ------
        ValueError
            If the state's variables are not the network's: Keras itself ignores those that do not fit.
        """
        # The metrics are set back at the start of an epoch and need not be there before the first batch.
        self._set(network, kept, lambda name: not name.startswith("metrics_variables"))

    def restore_weights(self, network, kept):
        """Set a network, compiled or not, to the weights of the last epoch kept."""
        self._set(network, kept, lambda name: name.startswith(("trainable_variables", "non_trainable_variables")))

    def _set(self, network, kept, wanted):
        with np.load(self.folder / kept["state_file"]) as arrays:
            flat = {name: arrays[name] for name in arrays.files}
        names = {name for name in flatten(network.get_state_tree(value_format="numpy_array")) if wanted(name)}
        if names - set(flat):
            raise ValueError(f"{self.folder}: the kept state lacks {sorted(names - set(flat))[:3]}; delete it")
        network.set_state_tree(unflatten({name: flat[name] for name in names}))

    def save(self, network, kept):
        """Keep the state after an epoch.

        Parameters
        ----------
        network : keras.Model
            The network.
        kept : dict
            What else to keep, JSON-able; ``epoch`` (finished epochs) and ``best_file`` are required. The names of
            the files written are added to it.
        """
        name = f"epoch-{kept['epoch']:03d}.npz"
        arrays = flatten(network.get_state_tree(value_format="numpy_array"))
        with replacing(self.folder / name) as temporary:
            np.savez(temporary, **{k: v for k, v in arrays.items() if not k.startswith("metrics_variables")})
        kept["state_file"], kept["files"] = name, [name, kept["best_file"]]
        write_json(self.folder / "state.json", kept)
        for path in [*self.folder.glob("epoch-*.npz"), *self.folder.glob("best-*.weights.h5")]:
            if path.name not in kept["files"]:
                path.unlink()
