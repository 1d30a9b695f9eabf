"""The state of a training, kept so that it can be stopped at any moment and go on.

Keras's ``BackupAndRestore`` does not do here: it keeps neither the dropout generators nor the learning-rate
schedule's patience, so that a resumed training differs from an uninterrupted one; it writes in place; and it
deletes what it kept when the training ends.
"""

import hashlib
import itertools
import json
import os
from pathlib import Path

import numpy as np

from fer_utils.files import flush, read_json, remove_unfinished, replacing, write_json

#: What the parts of a key are called for people; those not named here are called what they are.
NAMES = {
    "code": "training code",
    "trainable": "layers that are trained",
    "images": "images chosen",
    "sha256": "values of the initial weights",
    "used": "initial weights",
    "distribution": "devices trained on at once",
}


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


def differences(before, after):
    """Say in which parts two keys differ, with the values where they are short.

    Returns
    -------
    list of str
        For example ``["learning_rate 0.001 -> 0.01", "training code"]``.
    """

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
        Everything that the training's course depends on but its length, JSON-able.
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
        """Say why there is nothing to go on from although something lies there; empty where nothing does.

        Returns
        -------
        str
            What differs from the training that was worked on last, where the others lie, how much they take.
        """
        if (self.folder / "state.json").exists():
            return f"{Path(*self.folder.parts[-4:])}: what was kept there is damaged; this training begins anew."
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
            "back; delete what is not needed any more."
        )

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
            The network.
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
