"""Readers for every form FER2013 is met in: zip, folders, and the competition's two CSV files.

All of them return the same :class:`Reading`. What cannot be read, or is not 48x48 greyscale in seven classes,
is refused with a :class:`~fer_utils.errors.DataError` that names the file and the reason; nothing is skipped
silently.
"""

import csv
import gzip
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from fer_utils.constants import CLASSES, IMAGE_SIZE, USAGES
from fer_utils.errors import DataError

#: The competition's emotion codes: a code is an index into this tuple; ``CLASSES`` has another order.
CSV_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

#: Files of the competition that hold images, labels and usage, in the order in which they are preferred.
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")

IMAGE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}

#: Files that operating systems leave behind; they hold no data, so they may be passed over.
LITTER = {"__macosx", "thumbs.db", "desktop.ini"}

# A colour image is decoded only to see whether its channels are equal; larger ones are not worth the time.
_LARGEST_CHECKED = 512 * 512

_UNREADABLE = (
    OSError,
    SyntaxError,  # Pillow raises it for broken PNG chunks
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,  # a compression that zipfile does not know
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Reading:
    """What a reader found, in the order of the source.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    labels : ndarray of int64, shape (n,)
        Index into ``CLASSES``.
    usage : ndarray of str, shape (n,)
        One of ``USAGES``.
    names : ndarray of str, shape (n,)
        The image's file name, or ``row-000012`` for the CSV's row 12 (counted from 0, without the header).
    form : {"zip", "folder", "csv"}
        ``"csv"`` also for a CSV inside an archive.
    decoder : str
        What turned the files into pixels.
    jpeg : bool
        True if every image was a JPEG, so that pixels may differ by a grey level between decoders.
    notes : tuple of str
        What a reader of the results should know about this copy, e.g. that it was split anew.
    """

    images: np.ndarray
    labels: np.ndarray
    usage: np.ndarray
    names: np.ndarray
    form: str
    decoder: str
    jpeg: bool
    notes: tuple[str, ...]


class Member(NamedTuple):
    """An image of a ``train/<class>/<name>``, ``test/<class>/<name>`` tree."""

    path: str  # as the archive or folder knows it
    half: str  # "train" or "test"
    label: int
    name: str


class Flaw(NamedTuple):
    """Why an image cannot be used: it is unreadable, or of another size or mode."""

    path: str
    reason: str | None = None
    size: tuple[int, int] | None = None
    mode: str | None = None
    equal_channels: bool = False


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


def decoder() -> str:
    """Name the one decoder that this package uses, e.g. ``"Pillow 12.0.0 (libjpeg-turbo 3.1)"``."""
    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__} ({library})"


# --- train/ and test/ trees, in a folder or a zip -----------------------------------------------------------


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
    return _read_tree(paths, lambda path: (root / path).read_bytes(), str(root), "folder")


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
    subfolders = [p for p in sorted(folder.iterdir()) if p.is_dir() and not _is_litter(p.name)]
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
        files = [e.filename for e in archive.infolist() if not e.is_dir() and not _is_litter(e.filename)]
        if not files:
            raise DataError(f"{path}: an empty zip; download the data again")
        doubled = [name for name, n in Counter(files).items() if n > 1]
        if doubled:
            raise DataError(f"{path}: {doubled[0]} stands in the zip more than once; download the data again")
        prefix = _tree_prefix(files, str(path))
        if prefix is not None:
            return _read_tree(files, archive.read, str(path), "zip", prefix)
        name = _choose_csv(files)
        if name is None:
            raise DataError(
                f"{path}: holds neither train/<class>/ and test/<class>/ nor {' or '.join(CSV_NAMES)}; "
                f"it holds {_shorten(sorted({f.split('/')[0] for f in files}))}"
            )
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
        raise DataError(f"{where}: holds several copies of the data ({_shorten(sorted(prefixes))}); give one alone")
    return prefixes.pop() if prefixes else None


def _read_tree(
    paths: list[str], read_bytes: Callable[[str], bytes], where: str, form: str, prefix: str = ""
) -> Reading:
    members, notes = _parse_tree(paths, where, prefix)
    images, formats = _decode_all([m.path for m in members], read_bytes, where)
    labels = np.array([m.label for m in members], dtype=np.int64)
    names = np.array([m.name for m in members])
    usage, split_notes = assign_usage(np.array([m.half for m in members]), names, labels, images)
    _check_complete(usage, labels, where)
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
    notes = [f"not read, beside train/ and test/: {_shorten(sorted(others))}"] if others else []
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


def pixel_sha256(image: np.ndarray) -> str:
    """Return the sha256 of an image's pixels, rows from top to bottom, as 64 hex digits."""
    return sha256(np.ascontiguousarray(image)).hexdigest()


# --- decoding -----------------------------------------------------------------------------------------------


def _decode_all(paths: list[str], read_bytes: Callable[[str], bytes], where: str) -> tuple[np.ndarray, list[str]]:
    """Decode every image, in threads (Pillow lets go of Python's lock while it decodes)."""
    images = np.empty((len(paths), IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)

    def decode_range(start: int) -> tuple[list[str], list[Flaw]]:
        formats, flaws = [], []
        for i in range(start, min(start + 512, len(paths))):
            result = _decode(paths[i], read_bytes)
            if isinstance(result, Flaw):
                flaws.append(result)
            else:
                images[i], kind = result
                formats.append(kind)
        return formats, flaws

    with ThreadPoolExecutor(_cores()) as pool:
        results = list(pool.map(decode_range, range(0, len(paths), 512)))
    flaws = [flaw for _, part in results for flaw in part]
    if flaws:
        raise DataError(f"{where}: {_describe(flaws, len(paths))}")
    return images, [kind for part, _ in results for kind in part]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decode(path: str, read_bytes: Callable[[str], bytes]) -> tuple[np.ndarray, str] | Flaw:
    try:
        with Image.open(io.BytesIO(read_bytes(path)), formats=tuple(set(IMAGE_FORMATS.values()))) as image:
            if image.size == (IMAGE_SIZE, IMAGE_SIZE) and image.mode == "L":
                return np.asarray(image), image.format
            equal = False
            if image.mode in ("RGB", "RGBA") and image.width * image.height <= _LARGEST_CHECKED:
                pixels = np.asarray(image)[..., :3]
                equal = bool((pixels == pixels[..., :1]).all())
            return Flaw(path, size=image.size, mode=image.mode, equal_channels=equal)
    except UnidentifiedImageError:
        return Flaw(path, reason="not a JPEG, PNG or BMP image")
    except _UNREADABLE as error:
        return Flaw(path, reason=str(error) or type(error).__name__)


def _describe(flaws: list[Flaw], n: int) -> str:
    """Say in one sentence what is wrong with the images of a copy, the gravest first."""
    unreadable = [f for f in flaws if f.reason]
    if unreadable:
        first = unreadable[0]
        return f"{len(unreadable)} of {n} images cannot be read; {first.path}: {first.reason}; replace the copy"
    sizes = Counter("{}x{}".format(*f.size) for f in flaws if f.size != (IMAGE_SIZE, IMAGE_SIZE))
    modes = Counter(f.mode for f in flaws if f.mode != "L")
    found = [_tally(kinds, n) for kinds in (sizes, modes) if kinds]
    if modes and all(f.equal_channels for f in flaws if f.mode != "L"):
        found.append("with equal channels (grey stored as colour)")
    kind = " and ".join(["resized"] * (sizes.total() == n) + ["colour"] * (modes.total() == n))
    verdict = f"a {kind} copy of FER2013" if kind else f"the first is {flaws[0].path}"
    return (
        f"{', '.join(found)}: {verdict}; FER2013's images are {IMAGE_SIZE}x{IMAGE_SIZE} 8-bit greyscale (L); "
        "use the original, since what a conversion did to the pixels cannot be undone"
    )


def _tally(kinds: Counter, n: int) -> str:
    """Return e.g. ``"every image is 75x75"`` or ``"3 of 40 images are 75x75 (2), 96x96 (1)"``."""
    listed = ", ".join(f"{kind} ({k})" for kind, k in kinds.most_common(5)) if len(kinds) > 1 else next(iter(kinds))
    return f"every image is {listed}" if kinds.total() == n else f"{kinds.total()} of {n} images are {listed}"


# --- the competition's CSV files ----------------------------------------------------------------------------


def read_tar(path: Path) -> Reading:
    """Read a ``.tar.gz`` that holds one of the competition's CSVs, as ``fer2013.tar.gz`` does.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Reading

    Raises
    ------
    DataError
        See :func:`read`.
    """
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream) as archive:
            files = [m.name for m in archive.getmembers() if m.isfile() and not _is_litter(m.name)]
            name = _choose_csv(files)
            if name is None:
                raise DataError(f"{path}: holds neither {' nor '.join(CSV_NAMES)}, but {_shorten(files)}")
            reading = read_csv(archive.extractfile(name), f"{path}: {name}")
            while stream.read(2**20):  # gzip compares its checksum only at the end
                pass
            return reading
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}); download it again") from error


def _choose_csv(files: Iterable[str]) -> str | None:
    """Pick the CSV to read: by name, or the only one there."""
    tables = [f for f in files if f.lower().endswith(".csv")]
    for wanted in CSV_NAMES:
        named = [f for f in tables if f.lower().split("/")[-1] == wanted]
        if named:
            return named[0]
    return tables[0] if len(tables) == 1 else None


def read_csv(file: io.BufferedIOBase, where: str) -> Reading:
    """Read ``fer2013.csv`` (emotion,pixels,Usage) or ``icml_face_data.csv`` (emotion, Usage, pixels).

    The columns are found by name, blanks around names and values do not count. Labels are turned from the
    competition's codes (``CSV_EMOTIONS``) into indices of ``CLASSES``.

    Parameters
    ----------
    file : binary file
    where : str
        What error messages call the file.

    Returns
    -------
    Reading

    Raises
    ------
    DataError
        Names the line of the first malformed row (the header is line 1).
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = csv.reader(text)
    try:
        header = [column.strip().casefold() for column in next(rows, [])]
        _check_header(header, where)
        at = [header.index(column) for column in ("emotion", "usage", "pixels")]
        labels, usage, images = [], [], []
        for row in rows:
            if not row:  # a blank line, as at the end of many files
                continue
            line = f"{where}, line {rows.line_num}"
            if len(row) != len(header):
                raise DataError(f"{line}: {len(row)} fields, expected {len(header)} ({','.join(header)})")
            emotion, part, pixels = (row[i].strip() for i in at)
            labels.append(_parse_emotion(emotion, line))
            usage.append(_parse_usage(part, line))
            images.append(_parse_pixels(pixels, line))
    except csv.Error as error:
        raise DataError(f"{where}, line {rows.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where}, after line {rows.line_num}: not a text file ({error.reason})") from error
    if not images:
        raise DataError(f"{where}: holds a header but no rows")
    labels, usage = np.array(labels, dtype=np.int64), np.array(usage)
    _check_complete(usage, labels, where)
    others = sorted(set(header) - {"emotion", "usage", "pixels"})
    return Reading(
        images=np.stack(images).reshape(-1, IMAGE_SIZE, IMAGE_SIZE),
        labels=labels,
        usage=usage,
        names=np.array([f"row-{i:06d}" for i in range(len(labels))]),
        form="csv",
        decoder="none (pixels are stored as numbers)",
        jpeg=False,
        notes=(f"columns not read: {_shorten(others)}",) if others else (),
    )


def _check_header(header: list[str], where: str) -> None:
    missing = [column for column in ("emotion", "pixels", "usage") if column not in header]
    if missing:
        hint = ""
        if header in (["emotion", "pixels"], ["pixels"]):
            hint = "; this is the competition's train.csv or test.csv, which does not tell the splits"
        found = _shorten([column[:40] for column in header]) or "none"
        raise DataError(
            f"{where}: no column {', '.join(missing)}, found {found}{hint}; "
            f"expected emotion, pixels and Usage as in {' or '.join(CSV_NAMES)}"
        )
    if len(set(header)) != len(header):
        raise DataError(f"{where}: a column name stands twice in the header: {','.join(header)}")


_LABEL_OF_CODE = {str(code): CLASSES.index(name) for code, name in enumerate(CSV_EMOTIONS)}


def _parse_emotion(text: str, line: str) -> int:
    if text not in _LABEL_OF_CODE:
        codes = ", ".join(f"{code} {name}" for code, name in enumerate(CSV_EMOTIONS))
        raise DataError(f"{line}: emotion is {text[:40]!r}, expected a code from 0 to 6 ({codes})")
    return _LABEL_OF_CODE[text]


def _parse_usage(text: str, line: str) -> str:
    if text not in USAGES:
        raise DataError(f"{line}: Usage is {text[:40]!r}, expected one of {', '.join(USAGES)}")
    return text


def _parse_pixels(text: str, line: str) -> np.ndarray:
    try:
        # Ten times faster than int() on each, and 35,887 rows hold 83 million numbers.
        values = np.fromstring(text, dtype=np.int64, sep=" ")
    except ValueError:
        wrong = next((v for v in text.split() if not re.fullmatch(r"\d+", v)), "")
        raise DataError(f"{line}: pixel {wrong[:40]!r} is not a whole number from 0 to 255") from None
    if len(values) != IMAGE_SIZE**2:
        side = round(len(values) ** 0.5)
        hint = f" (a {side}x{side} image: a resized copy)" if side > 1 and side**2 == len(values) else ""
        raise DataError(f"{line}: {len(values)} pixels{hint}, expected {IMAGE_SIZE**2} ({IMAGE_SIZE}x{IMAGE_SIZE})")
    if values.min() < 0 or values.max() > 255:
        wrong = values[(values < 0) | (values > 255)][0]
        raise DataError(f"{line}: pixel value {wrong} is outside 0 to 255")
    return values.astype(np.uint8)


# --- shared -------------------------------------------------------------------------------------------------


def _check_complete(usage: np.ndarray, labels: np.ndarray, where: str) -> None:
    """Refuse a copy that lacks a usage, or a class in one of them."""
    for part in USAGES:
        in_part = labels[usage == part]
        if not len(in_part):
            raise DataError(f"{where}: no {part} images; FER2013 has {', '.join(USAGES)}")
        missing = [name for label, name in enumerate(CLASSES) if label not in in_part]
        if missing:
            raise DataError(f"{where}: no images of class {', '.join(missing)} in {part}; this copy is incomplete")


def _is_litter(path: str) -> bool:
    return any(part.startswith(".") or part.casefold() in LITTER for part in path.split("/"))


def _shorten(items: list[str], most: int = 5) -> str:
    """Join up to `most` items, and say how many more there are."""
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
