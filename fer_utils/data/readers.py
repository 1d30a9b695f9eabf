"""Readers for every form FER2013 is met in: zip, folders, and the competition's two CSV files.

All of them return the same :class:`Reading`. What cannot be read, or is not 48x48 greyscale in seven classes,
is refused with a :class:`~fer_utils.errors.DataError` that names the file and the reason; nothing is skipped
silently.
"""

import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_utils.data.competition import CSV_NAMES, choose_csv, read_csv, read_tar
from fer_utils.constants import CLASSES, USAGES
from fer_utils.data.decoding import IMAGE_FORMATS, decode_all, decoder
from fer_utils.errors import DataError
from fer_utils.data.reading import (
    LARGEST_IMAGE,
    LARGEST_TABLE,
    Reading,
    check_complete,
    check_number,
    check_size,
    is_litter,
    pixel_sha256,
    shorten,
)


class Member(NamedTuple):
    """An image of a ``train/<class>/<name>``, ``test/<class>/<name>`` tree."""

    path: str  # as the archive or folder knows it
    half: str  # "train" or "test"
    label: int
    name: str


def read(path: Path) -> Reading:
    """Read a copy of FER2013 in whatever form it is.

    Parameters
    ----------
    path : Path
        A zip, a CSV, a ``.tar.gz`` that holds a CSV, or a folder with ``train/`` and ``test/``, also one
        folder down.

    Returns
    -------
    Reading

    Raises
    ------
    DataError
        If anything about the copy is broken; the message names the file and the reason.
    """
    try:
        if path.is_dir():
            return read_folder(path)
        if path.suffix.lower() == ".csv":
            with open(path, "rb") as file:
                return read_csv(file, str(path))
        if path.name.lower().endswith((".tar.gz", ".tgz")):
            return read_tar(path)
        if path.suffix.lower() == ".zip":
            return read_zip(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise DataError(f"{path}: not a form this project reads; give a .zip, a .csv, a .tar.gz or a folder")


def stamp(path: Path) -> list:
    """List what identifies the state of a file or folder without reading it.

    Parameters
    ----------
    path : Path
        A file, or a folder that :func:`read_folder` takes.

    Returns
    -------
    list
        ``[name, size in bytes, mtime in ns]`` for the file, or for every file of the folder, sorted by name.
    """
    if path.is_dir():
        root = tree_root(path) or path
        return [[name, *_size_and_time(root / name)] for name in _list_files(root)]
    return [[path.name, *_size_and_time(path)]]


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def read_folder(folder: Path) -> Reading:
    """Read ``train/<class>/`` and ``test/<class>/`` below `folder`, or below its one subfolder that has them.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Reading

    Raises
    ------
    DataError
        See :func:`read`.
    """
    root = tree_root(folder)
    if root is None:
        raise DataError(f"{folder}: holds no train/ and test/ folders, nor does one of its subfolders")
    paths = _list_files(root)

    def read_bytes(path: str) -> bytes:
        # A pipe or a device would never end.
        if not (root / path).is_file():
            raise OSError("not a regular file")
        check_size((root / path).stat().st_size, LARGEST_IMAGE, f"{root}: {path}")
        return (root / path).read_bytes()

    return _read_tree(paths, read_bytes, str(root), "folder")


def tree_root(folder: Path) -> Path | None:
    """Find the folder that holds ``train/`` and ``test/``.

    Parameters
    ----------
    folder : Path
        Where to look: in itself, then in its subfolders.

    Returns
    -------
    Path or None
        None if there is no such folder.

    Raises
    ------
    DataError
        If several subfolders qualify.
    """

    def is_root(candidate: Path) -> bool:
        with os.scandir(candidate) as entries:
            halves = {e.name.casefold() for e in entries if e.is_dir()} & {"train", "test"}
        return bool(halves)

    if is_root(folder):
        return folder
    subfolders = [p for p in sorted(folder.iterdir()) if p.is_dir() and not is_litter(p.name)]
    roots = [p for p in subfolders if os.access(p, os.R_OK | os.X_OK) and is_root(p)]
    if len(roots) > 1:
        names = ", ".join(p.name for p in roots)
        raise DataError(f"{folder}: several copies of the data lie here ({names}); give the path of one")
    return roots[0] if roots else None


def _list_files(root: Path) -> list[str]:
    """List the files in train/ and test/, and what lies beside them, relative to `root` and sorted."""
    found = []
    for entry in sorted(root.iterdir()):
        if entry.is_file():
            found.append(entry.name)
        elif entry.name.casefold() in ("train", "test"):
            for folder, _, names in os.walk(entry, onerror=_raise, followlinks=True):
                # followlinks could walk in circles; a tree this deep is refused by _parse_tree anyway.
                below = Path(folder).relative_to(root)
                if len(below.parts) > 6:
                    raise DataError(f"{root}: folders nested too deep at {below}; expected train/<class>/<image>")
                found += [(below / name).as_posix() for name in names]
        elif any(path.suffix.lower() in IMAGE_FORMATS for path in entry.rglob("*")):
            found.append(f"{entry.name}/")
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def read_zip(path: Path) -> Reading:
    """Read a zip that holds ``train/`` and ``test/`` (also one folder down) or one of the competition's CSVs.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Reading

    Raises
    ------
    DataError
        Also for a truncated, empty or encrypted zip, a wrong checksum, and entries that point outside.
    """
    with _open_zip(path) as archive:
        for entry in archive.infolist():
            _check_entry(entry, path)
        files = [e.filename for e in archive.infolist() if not e.is_dir() and not is_litter(e.filename)]
        if not files:
            raise DataError(f"{path}: an empty zip; download the data again")
        doubled = [name for name, n in Counter(files).items() if n > 1]
        if doubled:
            raise DataError(f"{path}: {doubled[0]} stands in the zip more than once; download the data again")
        prefix = _tree_prefix(files, str(path))
        if prefix is not None:
            for entry in archive.infolist():
                check_size(entry.file_size, LARGEST_IMAGE, f"{path}: {entry.filename}")

            def read_bytes(name: str) -> bytes:
                # Up to a limit: `archive.read` first unpacks what there is, whatever size the entry claims.
                with archive.open(name) as file:
                    return file.read(LARGEST_IMAGE + 1)

            return _read_tree(files, read_bytes, str(path), "zip", prefix)
        name = choose_csv(files)
        if name is None:
            raise DataError(
                f"{path}: holds neither train/<class>/ and test/<class>/ nor {' or '.join(CSV_NAMES)}; "
                f"it holds {shorten(sorted({f.split('/')[0] for f in files}))}"
            )
        check_size(archive.getinfo(name).file_size, LARGEST_TABLE, f"{path}: {name}")
        try:
            with archive.open(name) as file:
                return read_csv(file, f"{path}: {name}")
        except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError) as error:
            raise DataError(f"{path}: {name} is damaged ({error}); download the data again") from error


@contextmanager
def _open_zip(path: Path):
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        size = path.stat().st_size
        what = "an empty file" if size == 0 else f"truncated, damaged, or no zip at all ({size:,} bytes; {error})"
        raise DataError(f"{path}: {what}; download it again") from error
    with archive:
        yield archive


def _check_entry(entry: zipfile.ZipInfo, path: Path) -> None:
    # ZipInfo has already cut the name at a NUL byte; a backslash is a separator to programs on Windows.
    name = entry.filename.replace("\\", "/")
    if not name:
        raise DataError(f"{path}: damaged: an entry has no name; download it again")
    if name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name):
        raise DataError(f"{path}: the entry {entry.filename!r} points outside the zip; do not use this file")
    if entry.flag_bits & 1:
        raise DataError(f"{path}: the entry {entry.filename!r} is encrypted; give a zip without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{path}: the entry {entry.filename!r} is packed in an unusual way; zip the files anew (deflate)"
        )
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise DataError(f"{path}: the entry {entry.filename!r} is a link, not a file; zip the files themselves")


def _tree_prefix(files: list[str], where: str) -> str | None:
    """Return what precedes ``train/`` and ``test/`` in the names (``""``, ``"<folder>/"``), None without them."""
    prefixes = set()
    for name in files:
        parts = name.split("/")
        for depth in (0, 1):
            if len(parts) > depth + 1 and parts[depth].casefold() in ("train", "test"):
                prefixes.add("".join(f"{part}/" for part in parts[:depth]))
                break
    if "" in prefixes:
        return ""
    if len(prefixes) > 1:
        raise DataError(f"{where}: holds several copies of the data ({shorten(sorted(prefixes))}); give one alone")
    return prefixes.pop() if prefixes else None


def _read_tree(
    paths: list[str], read_bytes: Callable[[str], bytes], where: str, form: str, prefix: str = ""
) -> Reading:
    check_number(len(paths), where)
    members, notes = _parse_tree(paths, where, prefix)
    images, formats = decode_all([m.path for m in members], read_bytes, where)
    labels = np.array([m.label for m in members], dtype=np.int64)
    names = np.array([m.name for m in members])
    usage, split_notes = assign_usage(np.array([m.half for m in members]), names, labels, images)
    check_complete(usage, labels, where)
    kinds = Counter(formats)
    if set(kinds) != {"JPEG"}:
        notes.append("image files are " + ", ".join(f"{kind} ({n})" for kind, n in sorted(kinds.items())))
    return Reading(
        images=images,
        labels=labels,
        usage=usage,
        names=names,
        form=form,
        decoder=decoder(),
        jpeg=set(kinds) == {"JPEG"},
        notes=(*notes, *split_notes),
    )


def _parse_tree(paths: list[str], where: str, prefix: str) -> tuple[list[Member], list[str]]:
    members, others, unknown = [], set(), Counter()
    for path in paths:
        if is_litter(path):
            continue
        parts = path.removeprefix(prefix).split("/")
        half = parts[0].casefold()
        if not path.startswith(prefix) or half not in ("train", "test") or len(parts) == 1:
            others.add(parts[0] + "/" * (len(parts) > 1))
        elif len(parts) != 3:
            raise DataError(f"{where}: {path} is out of place; expected {half}/<class>/<image>")
        elif parts[1].casefold() not in CLASSES:
            unknown[f"{half}/{parts[1]}"] += 1
        elif Path(path).suffix.lower() not in IMAGE_FORMATS:
            raise DataError(f"{where}: {path} is not an image ({', '.join(IMAGE_FORMATS)}); remove it")
        else:
            members.append(Member(path, half, CLASSES.index(parts[1].casefold()), parts[2]))
    if unknown:
        found = ", ".join(f"{folder} ({n} files)" for folder, n in sorted(unknown.items()))
        raise DataError(f"{where}: unknown class folder: {found}; the classes are {', '.join(CLASSES)}")
    if not members:
        raise DataError(f"{where}: train/ and test/ hold no images")
    # Before decoding, so that a copy with a class missing is refused at once.
    for half in ("train", "test"):
        present = {m.label for m in members if m.half == half}
        missing = [name for label, name in enumerate(CLASSES) if label not in present]
        if len(missing) == len(CLASSES):
            raise DataError(f"{where}: no images in {half}/; FER2013 has both train/ and test/")
        if missing:
            raise DataError(f"{where}: no images of class {', '.join(missing)} in {half}/; this copy is incomplete")
    doubled = [key for key, n in Counter((m.half, m.label, m.name) for m in members).items() if n > 1]
    if doubled:
        half, label, name = doubled[0]
        raise DataError(f"{where}: two images are called {half}/{CLASSES[label]}/{name}")
    notes = [f"not read, beside train/ and test/: {shorten(sorted(others))}"] if others else []
    return members, notes


def assign_usage(
    half: np.ndarray, names: np.ndarray, labels: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Tell the usage of each image of a ``train/``, ``test/`` tree.

    The folder decides between training and test, the file name's prefix between PublicTest and PrivateTest. In
    a copy that was split anew, test images whose names say neither are shared out by content: the distinct images
    of a class, sorted by the hash of their pixels, go to the two in turn. So identical images stay
    together, and the result depends neither on names nor on the form of the copy.

    Parameters
    ----------
    half : ndarray of str, shape (n,)
        ``"train"`` or ``"test"``.
    names : ndarray of str, shape (n,)
        File names.
    labels : ndarray of int, shape (n,)
        Index into ``CLASSES``.
    images : ndarray of uint8, shape (n, 48, 48)

    Returns
    -------
    usage : ndarray of str, shape (n,)
        One of ``USAGES``.
    notes : list of str
        How folders and names disagree; empty for FER2013 as published.
    """
    prefix = np.array([name.split("_")[0] if "_" in name else "" for name in names])
    prefix[~np.isin(prefix, USAGES)] = ""
    test = half == "test"
    usage = np.where(test, prefix, "Training").astype("U11")
    undecided = test & ~np.isin(prefix, USAGES[1:])
    hashes = np.array([pixel_sha256(image) for image in images[undecided]])
    for label in np.unique(labels[undecided]):
        of_class = np.flatnonzero(undecided)[labels[undecided] == label]
        _, rank = np.unique(hashes[labels[undecided] == label], return_inverse=True)
        usage[of_class] = np.where(rank % 2 == 0, "PublicTest", "PrivateTest")

    notes = []
    from_test = np.count_nonzero(~test & np.isin(prefix, USAGES[1:]))
    from_train = np.count_nonzero(test & (prefix == "Training"))
    unnamed_train = np.count_nonzero(~test & (prefix == ""))
    unnamed_test = np.count_nonzero(test & (prefix == ""))
    if from_test or from_train:
        notes.append(
            f"split anew: {from_test} of {np.count_nonzero(~test)} images in train/ are named as test "
            f"images, {from_train} of {np.count_nonzero(test)} in test/ as training images"
        )
    if unnamed_train or unnamed_test:
        notes.append(
            f"renamed: {unnamed_train} images in train/ and {unnamed_test} in test/ do not carry their usage "
            "in their names"
        )
    if undecided.any():
        notes.append(
            f"{np.count_nonzero(undecided)} test images whose names say neither PublicTest nor PrivateTest "
            "were shared out between the two by the hash of their pixels"
        )
    return usage, notes
