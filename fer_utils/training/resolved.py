"""What a training's open requests came to when it began: which data, which weights, how many threads.

``data="auto"`` or ``weights="imagenet"`` can mean one thing today and another tomorrow, when a network has come or
gone. A training that has begun goes on with what it began with.
"""

from pathlib import Path

from fer_utils.files import read_json, write_json


class Resolved:
    """A small dict on disk, beside the states of a model and seed.

    It binds only where an epoch was finished: until then nothing is lost by another answer.

    Parameters
    ----------
    folder : path
        The folder of the model and seed, which holds the states.
    """

    def __init__(self, folder):
        self.path = Path(folder) / "resolved.json"
        begun = any(Path(folder).glob("state-*/state.json"))
        self.values = read_json(self.path) if begun else {}

    @property
    def place(self):
        """Where the file lies, for people: from the run folder on."""
        return Path(*self.path.parts[-4:])

    def get(self, name, default=None):
        """Return what `name` came to, or `default`."""
        return self.values.get(name, default)

    def keep(self, name, value):
        """Note what `name` came to, JSON-able."""
        if name not in self.values or self.values[name] != value:
            self.values[name] = value
            write_json(self.path, self.values)
