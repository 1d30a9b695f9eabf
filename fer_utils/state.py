"""The state of a training, kept so that it can be stopped at any moment and go on.

Keras's ``BackupAndRestore`` does not do here: it keeps neither the dropout generators nor the learning-rate
schedule's patience, so that a resumed training differs from an uninterrupted one; it writes in place; and it
deletes what it kept when the training ends.
"""

import json
from pathlib import Path

import numpy as np

from fer_utils.files import replacing, write_json


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

    The folder holds ``state.json`` (epoch, history, schedule, which files belong to it), ``epoch-<n>.npz`` (weights,
    optimizer, generators) and ``best-<n>.weights.h5``. ``state.json`` is replaced as a whole after the files that
    it names are written, and what it no longer names is removed after that.

    Parameters
    ----------
    folder : path
        Where this training's state lies; other trainings of the same model and seed lie beside it.
    key : dict
        Everything that the training's course depends on, JSON-able. A state with another key is not used.
    """

    def __init__(self, folder, key):
        self.folder = Path(folder)
        self.key = json.loads(json.dumps(key))
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(self):
        """Return what was kept as a dict, or None where there is nothing that fits."""
        path = self.folder / "state.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if kept.get("key") != self.key or not all((self.folder / name).exists() for name in kept["files"]):
            return None
        return kept

    def restore(self, network, kept):
        """Set a compiled network, with its optimizer built, to the state kept.

        Raises
        ------
        ValueError
            If the state's variables are not the network's: Keras itself ignores those that do not fit.
        """
        with np.load(self.folder / kept["state_file"]) as arrays:
            flat = {name: arrays[name] for name in arrays.files}
        current = flatten(network.get_state_tree(value_format="numpy_array"))
        # The metrics are set back at the start of an epoch and need not be there before the first batch.
        wanted = {name for name in current if not name.startswith("metrics_variables")}
        if wanted - set(flat):
            raise ValueError(f"the kept state lacks {sorted(wanted - set(flat))[:3]}")
        network.set_state_tree(unflatten({name: flat[name] for name in wanted}))

    def save(self, network, kept):
        """Keep the state after an epoch.

        Parameters
        ----------
        network : keras.Model
            The network.
        kept : dict
            What else to keep, JSON-able; ``epoch`` (finished epochs) and ``best_file`` are required.
        """
        name = f"epoch-{kept['epoch']:03d}.npz"
        arrays = flatten(network.get_state_tree(value_format="numpy_array"))
        with replacing(self.folder / name) as temporary:
            np.savez(temporary, **{k: v for k, v in arrays.items() if not k.startswith("metrics_variables")})
        files = [name, kept["best_file"]]
        write_json(self.folder / "state.json", kept | {"key": self.key, "state_file": name, "files": files})
        for path in [*self.folder.glob("epoch-*.npz"), *self.folder.glob("best-*.weights.h5")]:
            if path.name not in files:
                path.unlink()
