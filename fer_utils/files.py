"""Files that are either whole or not there."""

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Write a file beside its place and move it there at the end.

    A process that is killed while writing leaves the old file, or none, but never half of one.

    Parameters
    ----------
    path : path
        The file to make or replace; missing folders are made.

    Yields
    ------
    Path
        Where to write. It has the suffixes of `path`, which some writers choose their format by.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


def write_text(path, text):
    """Write text as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Write a value as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
