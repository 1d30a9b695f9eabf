"""From a zip, a folder, a ``.tar.gz`` or a CSV to arrays: ``read`` lists the files, ``decoding`` makes pixels of them.

What cannot be read, or is not 48x48 greyscale in seven classes, is refused with a
:class:`~fer_utils.errors.DataError` that names the file and the reason; nothing is skipped silently.
"""

import gzip
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import decoding, identity
from fer_utils.data.decoding import IMAGE_FORMATS, shorten
from fer_utils.errors import DataError

#: Files of the competition that hold images, labels and usage, in the order in which they are preferred.
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")

#: Beyond these something is no copy of FER2013, and may be made to fill memory or disk: FER2013 has 35,887 images of
#: at most 3 kB, and its CSV has 300 MB.
LARGEST_IMAGE = 2**24
LARGEST_TABLE = 2**32

#: Files that operating systems leave behind; they hold no data, so they may be passed over.
LITTER = {"__macosx", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Reading:
    """What a copy holds, in the order of the source.

    ``images`` (n, 48, 48) uint8; ``labels`` (n,) int64, index into ``CLASSES``; ``usage`` (n,) one of ``USAGES``, or
    ``"test"`` for the images of a ``test/`` folder; ``names`` (n,) file names, or ``row-000012`` for the CSV's row 12
    (counted from 0, without the header); ``form``: zip, folder or csv, the last also for a CSV in an archive; ``jpeg``:
    whether every image was a JPEG, so that pixels may differ between decoders.
    """

    images: np.ndarray
    labels: np.ndarray
    usage: np.ndarray
    names: np.ndarray
    form: str
    decoder: str
    jpeg: bool
    notes: tuple[str, ...] = ()


def read(path: Path) -> Reading:
    """Read a copy of FER2013 in whatever form it is.

    That is a zip or a folder that holds ``train/<class>/<image>`` and ``test/<class>/<image>`` (also one folder down),
    one of the competition's CSVs, or a zip or ``.tar.gz`` that holds one. Whatever is broken raises a DataError.
    """
    name = path.name.lower()
    try:
        if path.is_dir():
            return _read_folder(path)
        if name.endswith(".csv"):
            with open(path, "rb") as file:
                return _read_table(file, str(path))
        if name.endswith((".tar.gz", ".tgz")):
            return _read_tar(path)
        if name.endswith(".zip"):
            return _read_zip(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise DataError(f"{path}: not a form this project reads; give a .zip, a .csv, a .tar.gz or a folder")


def stamp(path: Path) -> list:
    """Return ``[name, size in bytes, mtime in ns]`` of a file, or of every file of a folder."""
    root = (tree_root(path) or path) if path.is_dir() else path.parent
    files = _list_files(root) if path.is_dir() else [path.name]
    return [[name, (root / name).stat().st_size, (root / name).stat().st_mtime_ns] for name in files]


# --- the forms: which files there are, and how to get their bytes -------------------------------------------------


def _read_folder(folder):
    root = tree_root(folder)
    if root is None:
        raise DataError(f"{folder}: holds no train/ and test/ folders, nor does one of its subfolders")

    def read_bytes(path):
        # A pipe or a device would never end.
        if not (root / path).is_file():
            raise OSError("not a regular file")
        _check_size((root / path).stat().st_size, LARGEST_IMAGE, f"{root}: {path}")
        return (root / path).read_bytes()

    return _read_tree(_list_files(root), read_bytes, str(root), "folder")


def tree_root(folder: Path) -> Path | None:
    """Find the folder that holds ``train/`` and ``test/``: this one, or the only one below it; None without one."""

    def is_root(candidate):
        with os.scandir(candidate) as entries:
            return any(entry.name.casefold() in ("train", "test") and entry.is_dir() for entry in entries)

    if is_root(folder):
        return folder
    subfolders = [p for p in sorted(folder.iterdir()) if p.is_dir() and not _is_litter(p.name)]
    roots = [p for p in subfolders if os.access(p, os.R_OK | os.X_OK) and is_root(p)]
    if len(roots) > 1:
        names = ", ".join(p.name for p in roots)
        raise DataError(f"{folder}: several copies of the data lie here ({names}); give the path of one")
    return roots[0] if roots else None


def _list_files(root):
    """List the files in train/ and test/, and what lies beside them, relative to `root` and sorted."""

    def fail(error):
        raise error

    found = []
    for entry in sorted(root.iterdir()):
        if entry.is_file():
            found.append(entry.name)
        elif entry.name.casefold() in ("train", "test"):
            for folder, _, names in os.walk(entry, onerror=fail, followlinks=True):
                below = Path(folder).relative_to(root)
                # Links could lead in circles.
                if len(below.parts) > 6:
                    raise DataError(f"{root}: folders nested too deep at {below}; expected train/<class>/<image>")
                found += [(below / name).as_posix() for name in names]
        elif any(path.suffix.lower() in IMAGE_FORMATS for path in entry.rglob("*")):
            found.append(f"{entry.name}/")
    return sorted(found)


def _read_zip(path):
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        size = path.stat().st_size
        what = "an empty file" if size == 0 else f"truncated, damaged, or no zip at all ({size:,} bytes; {error})"
        raise DataError(f"{path}: {what}; download it again") from error
    with archive:
        for entry in archive.infolist():
            _check_entry(entry, path)
        files = [e.filename for e in archive.infolist() if not e.is_dir() and not _is_litter(e.filename)]
        if not files:
            raise DataError(f"{path}: an empty zip; download the data again")
        doubled = [name for name, n in Counter(files).items() if n > 1]
        if doubled:
            raise DataError(f"{path}: {doubled[0]} is in the zip more than once; download the data again")
        prefix = _tree_prefix(files, str(path))
        if prefix is not None:
            for entry in archive.infolist():
                _check_size(entry.file_size, LARGEST_IMAGE, f"{path}: {entry.filename}")

            def read_bytes(name):
                # Up to a limit: `archive.read` first unpacks what there is, whatever size the entry claims.
                with archive.open(name) as file:
                    return file.read(LARGEST_IMAGE + 1)

            return _read_tree(files, read_bytes, str(path), "zip", prefix)
        name = _choose_csv(files)
        if name is None:
            raise DataError(
                f"{path}: holds neither train/<class>/ and test/<class>/ nor {' or '.join(CSV_NAMES)}; "
                f"it holds {shorten(sorted({f.split('/')[0] for f in files}))}"
            )
        _check_size(archive.getinfo(name).file_size, LARGEST_TABLE, f"{path}: {name}")
        try:
            with archive.open(name) as file:
                return _read_table(file, f"{path}: {name}")
        except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError) as error:
            raise DataError(f"{path}: {name} is damaged ({error}); download the data again") from error


def _check_entry(entry, path):
    # ZipInfo has already cut the name at a NUL byte; a backslash is a separator to programs on Windows.
    name = entry.filename.replace("\\", "/")
    said = f"{path}: the entry {entry.filename!r}"
    if not name:
        raise DataError(f"{path}: damaged: an entry has no name; download it again")
    if name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name):
        raise DataError(f"{said} points outside the zip; do not use this file")
    if entry.flag_bits & 1:
        raise DataError(f"{said} is encrypted; give a zip without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # What bzip2 and lzma unpack at once has no limit.
        raise DataError(f"{said} is packed in an unusual way; pack it anew, as .zip files usually are")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise DataError(f"{said} is a link; give a zip that holds the files themselves")


def _tree_prefix(files, where):
    """Return what precedes ``train/`` and ``test/`` in the names (``""``, ``"<folder>/"``), None without them."""
    prefixes = set()
    for name in files:
        folders = name.split("/")[:-1]
        depths = [depth for depth, part in enumerate(folders[:2]) if part.casefold() in ("train", "test")]
        if depths:
            prefixes.add("".join(f"{part}/" for part in folders[: depths[0]]))
    if "" in prefixes:
        return ""
    if len(prefixes) > 1:
        raise DataError(f"{where}: holds several copies of the data ({shorten(sorted(prefixes))}); give one alone")
    return prefixes.pop() if prefixes else None


class _Stream(gzip.GzipFile):
    """What a ``.gz`` holds; a tar header can ask for any number of bytes at once, and does not get them."""

    def read(self, size=-1):
        if not 0 <= size <= 2**24:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return super().read(size)


def _read_tar(path):
    try:
        with _Stream(path) as stream, tarfile.open(fileobj=stream) as archive:
            files = []
            for member in archive:
                _check_size(member.size, LARGEST_TABLE, f"{path}: {member.name}")
                decoding.check_number(len(archive.members), str(path))
                if member.isfile() and not _is_litter(member.name):
                    files.append(member.name)
            name = _choose_csv(files)
            if name is None:
                raise DataError(f"{path}: holds neither {' nor '.join(CSV_NAMES)}, but {shorten(files)}")
            reading = _read_table(archive.extractfile(name), f"{path}: {name}")
            while stream.read(2**20):  # gzip compares its checksum only at the end
                _check_size(stream.tell(), 2 * LARGEST_TABLE, str(path))
            return reading
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}); download it again") from error


def _choose_csv(files):
    """Pick the CSV to read: by name, or the only one there; None if there is none."""
    tables = [f for f in files if f.lower().endswith(".csv")]
    named = [f for wanted in CSV_NAMES for f in tables if f.lower().split("/")[-1] == wanted]
    return named[0] if named else tables[0] if len(tables) == 1 else None


def _check_size(size, largest, what):
    """Refuse a file that is larger than any of its kind, before it is read."""
    if size > largest:
        raise DataError(f"{what} has {size:,} bytes unpacked, more than {largest:,}; do not use this file")


def _is_litter(path):
    return any(part.startswith(".") or part.casefold() in LITTER for part in path.split("/"))


# --- a table, or a tree of image files ----------------------------------------------------------------------------


def _read_table(file, where):
    images, labels, usage, notes = decoding.read_csv(file, where)
    check_complete(images, labels, usage, USAGES, where)
    names = np.array([f"row-{i:06d}" for i in range(len(labels))])
    return Reading(images, labels, usage, names, "csv", "none (pixels are stored as numbers)", False, notes)


def _read_tree(paths: list[str], read_bytes: Callable[[str], bytes], where: str, form: str, prefix: str = ""):
    """Decode ``train/<class>/<name>`` and ``test/<class>/<name>``."""
    decoding.check_number(len(paths), where)
    members, notes = _parse_tree(paths, where, prefix)
    images, kinds = decoding.decode_all([member[0] for member in members], read_bytes, where)
    labels = np.array([member[2] for member in members], dtype=np.int64)
    half = np.array([member[1] for member in members])
    names = np.array([member[3] for member in members])
    check_complete(images, labels, half, ("train", "test"), where)
    if set(kinds) != {"JPEG"}:
        notes.append("image files are " + ", ".join(f"{kind} ({n})" for kind, n in sorted(kinds.items())))
    usage = np.where(half == "train", "Training", "test")
    return Reading(images, labels, usage, names, form, decoding.decoder(), set(kinds) == {"JPEG"}, tuple(notes))


def _parse_tree(paths, where, prefix):
    """Return (path, half, label, name) of each image, and what else there is."""
    members, others, unknown = [], set(), Counter()
    for path in paths:
        if _is_litter(path):
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
            members.append((path, half, CLASSES.index(parts[1].casefold()), parts[2]))
    if unknown:
        found = ", ".join(f"{folder} ({n} files)" for folder, n in sorted(unknown.items()))
        raise DataError(f"{where}: unknown class folder: {found}; the classes are {', '.join(CLASSES)}")
    if not members:
        raise DataError(f"{where}: train/ and test/ hold no images")
    doubled = [key for key, n in Counter(member[1:] for member in members).items() if n > 1]
    if doubled:
        half, label, name = doubled[0]
        raise DataError(f"{where}: two images are called {half}/{CLASSES[label]}/{name}")
    return members, [f"not read, beside train/ and test/: {shorten(sorted(others))}"] if others else []


def check_complete(images, labels, part, parts, where: str) -> None:
    """Refuse a copy that lacks a part, or a class in one of them, and say where the known images of it are."""
    for one in parts:
        in_part = labels[part == one]
        if not len(in_part):
            sizes = ", ".join(f"{name} {np.count_nonzero(part == name):,}" for name in parts)
            raise DataError(f"{where}: no images in {one} ({sizes}); FER2013 has {' and '.join(parts)}")
        missing = [label for label in range(len(CLASSES)) if label not in in_part]
        if missing:
            known = identity.known_labels(images)
            filed = Counter(CLASSES[label] for label in labels[np.isin(known, missing) & (part == one)])
            merged = ", ".join(f"{name} ({n:,})" for name, n in filed.most_common(3))
            raise DataError(
                f"{where}: no images of class {', '.join(CLASSES[i] for i in missing)} in {one}; "
                + (
                    f"FER2013's of that class are among {merged}: classes were merged"
                    if merged
                    else "this copy is incomplete"
                )
            )
