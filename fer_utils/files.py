"""Files that are either whole or not there."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

#: How the names of unfinished files' folders end.
UNFINISHED = ".unfinished"

#: Seconds without a sign of life after which a writer, perhaps on another host, is taken to be gone.
SILENCE = 60


@contextmanager
def replacing(path, durable=True):
    """Write a file beside its place and move it there at the end.

    A process that is killed while writing leaves the old file, or none, but never half of one.

    Parameters
    ----------
    path : path
        The file to make or replace; missing folders are made.
    durable : bool
        Whether the file must be whole after a crash of the machine too, and not only of the process.

    Yields
    ------
    Path
        Where to write. It has the suffixes of `path`, which some writers choose their format by.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-", suffix=UNFINISHED) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        move(temporary, path, durable)


def move(source, target, durable=True):
    """Move a file to its place within a file system, in one step."""
    if durable:
        flush(source)
    os.replace(source, target)
    if durable:
        # The name lies in the folder. Some network file systems cannot flush one.
        with contextlib.suppress(OSError):
            flush(Path(target).parent)


def flush(path):
    """Have the system write to the disk what it still holds in memory of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clock(folder):
    """Return the time by the clock that stamps the files of a folder, which on a network is another machine's."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime
    return time.time()


def remove_unfinished(folder):
    """Remove what processes that were killed left of files that they were writing, here and below.

    What changed within the last `SILENCE` seconds stays: someone on another host may be writing it, and locks may be
    known on their own host only.
    """
    for path in Path(folder).rglob(f".*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):
            changed = max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
            if clock(folder) - changed >= SILENCE:
                shutil.rmtree(path, ignore_errors=True)


def write_text(path, text, durable=True):
    """Write text as UTF-8, whole or not at all; see `replacing`."""
    with replacing(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value, durable=True):
    """Write a value as indented JSON, whole or not at all; see `replacing`."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", durable)


def read_json(path):
    """Read a JSON file, or return an empty dict where there is none."""
    path = Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
