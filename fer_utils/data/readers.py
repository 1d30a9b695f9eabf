"""From any form of the data to arrays: ``read`` lists the files, :mod:`fer_utils.data.decoding` makes pixels of them.

A form is a list of names and of functions that open them; what it is, its first bytes tell and not its name. What
cannot be read, or is not 48x48 greyscale in seven classes, is refused with a :class:`~fer_utils.errors.DataError` that
names the file and the reason; nothing is skipped silently.
"""

import gzip
import io
import os
import re
import tarfile
import zipfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import decoding, identity
from fer_utils.data.decoding import CLASS_NAMES, CSV_EMOTIONS, IMAGE_FORMATS, UNREADABLE, shorten, stand_in
from fer_utils.errors import DataError

#: Files of the competition that hold images, labels and usage, in the order in which they are preferred.
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")

#: How names of archives end.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")

#: Folders that hold a part of the images, and the usage that they stand for; see `_usages`.
PARTS = {"train": "Training", "training": "Training", "test": "test", "testing": "test", "publictest": "PublicTest",
         "privatetest": "PrivateTest"} | dict.fromkeys(
             ("val", "valid", "validation", "dev", "eval", "evaluation"), "PublicTest")  # fmt: skip

#: Files that operating systems leave behind; they hold no data, so they may be passed over.
LITTER = {"__macosx", "thumbs.db", "desktop.ini"}

#: The folders of a copy may lie so far down: in ``versions/1`` of kagglehub, or in a repository's ``data``.
DEPTH = 3


def part_of(folder: str) -> str:
    """Return the key of ``PARTS`` that a folder's name means (``"Private_Test"``: privatetest), or an empty string."""
    name = re.sub(r"[ _-]", "", folder.casefold())
    return name if name in PARTS else ""


@dataclass(frozen=True)
class Reading:
    """What a copy holds, in the order of the source.

    ``images`` (n, 48, 48) uint8; ``labels`` (n,) int64, index into ``CLASSES``; ``usage`` (n,) one of ``USAGES``, or
    ``"test"`` for the images of a ``test/`` folder; ``names`` (n,) file names, or ``row-000012`` for the CSV's row 12
    (counted from 0, without the header); ``form``: zip, folder, tar or csv, the last also for a CSV in an archive;
    ``jpeg``: whether every image was a JPEG, so that pixels may differ between decoders.
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

    That is a folder, zip or tar that holds ``train/<class>/<image>`` and ``test/<class>/<image>`` (also some folders
    down, also in three parts), one of the competition's CSVs, or an archive that holds one. Whatever is broken raises
    a DataError.
    """
    try:
        with ExitStack() as stack:
            form, files = _open(path, stack)
            return _read_files(files, str(path), form)
    except (*UNREADABLE, tarfile.TarError) as error:
        if getattr(error, "strerror", None):
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        size = f" ({path.stat().st_size:,} bytes; {error})"
        raise DataError(f"{path}: truncated, damaged, or no archive at all{size}; download it again") from error


def stamp(path: Path) -> list:
    """Return ``[name, size in bytes, mtime in ns]`` of a file, or of every file of a folder."""
    root = (find_root(path) or path) if path.is_dir() else path.parent
    files = _list_files(root) if path.is_dir() else [path.name]
    return [[name, (root / name).stat().st_size, (root / name).stat().st_mtime_ns] for name in files]


# --- the forms ----------------------------------------------------------------------------------------------------


def _open(path, stack):
    """Tell the form of a file by its first bytes, and list its files; `stack` closes them."""
    if path.is_dir():
        return "folder", _open_folder(path)
    with open(path, "rb") as file:
        head = file.read(1024)
    instead = stand_in(head)
    if instead:
        raise DataError(f"{path}: {instead}")
    if head.startswith(b"PK"):
        return "zip", _open_zip(path, stack)
    packed = head.startswith(b"\x1f\x8b")
    if packed:
        with gzip.open(path) as file:
            head = file.read(1024)
    if head[257:262] == b"ustar":
        return "tar", stack.enter_context(_open_tar(path, packed))
    if ".csv" in path.name.lower() or b"emotion" in head or b"pixels" in head:
        return "csv", [("", partial(gzip.open if packed else open, path, "rb"))]
    if path.suffix.lower() == ".zip":  # whose beginning may be something else
        return "zip", _open_zip(path, stack)
    raise DataError(f"{path}: not a form this project reads; give a .zip, a .csv, a .tar.gz or a folder")


def _open_folder(folder):
    root = find_root(folder) or folder

    def open_file(name):
        # A pipe or a device would never end.
        if not (root / name).is_file():
            raise OSError("not a regular file, or a link to a file that is not there")
        return open(root / name, "rb")

    return [(name, partial(open_file, name)) for name in _list_files(root)]


def find_root(folder: Path) -> Path | None:
    """Find the folder that holds ``train/`` and the like: this one, or the only one below it; None without one."""
    level = [folder]
    for _ in range(DEPTH + 1):
        below = {place: [Path(e) for e in os.scandir(place) if e.is_dir() and not _is_litter(e.name)]
                 for place in level if os.access(place, os.R_OK | os.X_OK) or place == folder}  # fmt: skip
        roots = sorted(place for place, inner in below.items() if any(part_of(p.name) for p in inner))
        if len(roots) > 1:
            names = ", ".join(str(place.relative_to(folder)) for place in roots)
            raise DataError(f"{folder}: several copies of the data lie here ({names}); give the path of one")
        if roots:
            return roots[0]
        level = [place for inner in below.values() for place in inner]
    return None


def _list_files(root):
    """List the files in train/ and the like, and what lies beside them, relative to `root` and sorted."""

    def fail(error):
        raise error

    found = []
    for entry in root.iterdir():
        if not part_of(entry.name) or not entry.is_dir():
            found.append(entry.name + "/" * entry.is_dir())
            continue
        for folder, _, names in os.walk(entry, onerror=fail, followlinks=True):
            below = Path(folder).relative_to(root)
            # Links could lead in circles.
            if len(below.parts) > 6:
                raise DataError(f"{root}: folders nested too deep at {below}; expected train/<class>/<image>")
            found += [(below / name).as_posix() for name in names]
    return sorted(found)


def _open_zip(path, stack):
    archive = stack.enter_context(zipfile.ZipFile(path))
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    for entry in entries:
        # What bzip2 and lzma unpack at once has no limit.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            said = f"{path}: {entry.filename} is packed in an unusual way"
            raise DataError(f"{said}; pack it anew, as .zip files usually are")
    return [(entry.filename, partial(archive.open, entry)) for entry in entries]


class _Stream(gzip.GzipFile):
    """What a ``.gz`` holds; a tar header can ask for any number of bytes at once, and does not get them."""

    def read(self, size=-1):
        if not 0 <= size <= 2**24:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return super().read(size)


@contextmanager
def _open_tar(path, packed):
    with _Stream(path) if packed else open(path, "rb") as stream, tarfile.open(fileobj=stream) as archive:
        members = []
        for member in archive:
            decoding.check_number(len(members), str(path))
            members += [member] * member.isfile()
        if any(Path(member.name).suffix.lower() in IMAGE_FORMATS for member in members):
            # One stream serves no two threads, and going back in a packed one means to unpack it again.
            content = {m.name: archive.extractfile(m).read(decoding.LARGEST_IMAGE + 1) for m in members}
            yield [(name, partial(io.BytesIO, data)) for name, data in content.items()]
        else:
            yield [(member.name, partial(archive.extractfile, member)) for member in members]
        while stream.read(2**20):  # gzip compares its checksum only at the end
            pass


# --- a table, or a tree of image files ----------------------------------------------------------------------------


def _read_files(files, where, form):
    for name, _ in files:
        # A backslash is a separator to programs on Windows.
        if name.startswith("/") or ".." in re.split(r"[/\\]", name) or re.match("[A-Za-z]:|\\\\", name):
            raise DataError(f"{where}: the entry {name!r} points outside the archive; do not use this file")
    files = [(name, opener) for name, opener in files if not _is_litter(name)]
    if not files:
        raise DataError(f"{where}: an empty {form}; download the data again")
    decoding.check_number(len(files), where)
    prefix = _prefix([name for name, _ in files], where)
    if prefix is not None:
        return _read_tree(files, where, form, prefix)
    tables = [(name, opener) for name, opener in files if form == "csv" or name.lower().endswith((".csv", ".csv.gz"))]
    named = [pair for wanted in CSV_NAMES for pair in tables if pair[0].lower().split("/")[-1] == wanted]
    archives = [name for name, _ in files if name.lower().endswith(ARCHIVES)]
    if not named and archives:
        raise DataError(f"{where}: holds another archive, {shorten(archives)}; unpack it, and give what was in it")
    if not named and len(tables) != 1:
        holds = shorten(sorted({name.split("/")[0] for name, _ in files}))
        raise DataError(
            f"{where}: holds no train/ and test/ folders, nor {' or '.join(CSV_NAMES)}, but {holds}; give a copy of "
            "FER2013, e.g. with --data kaggle"
        )
    name, opener = (named or tables)[0]
    where = f"{where}: {name}" if name else where
    with opener() as file:
        instead = stand_in(file.read(1024))
    if instead:
        raise DataError(f"{where}: {instead}")
    with opener() as file:
        return _read_table(file, where)


def _is_litter(path):
    return any(part.startswith(".") or part.casefold() in LITTER for part in path.split("/"))


def _prefix(files, where):
    """Return what precedes ``train/`` and ``test/`` in the names (``""``, ``"<folder>/"``), None without them."""
    prefixes = set()
    for name in files:
        folders = name.split("/")[:-1]
        depth = next((i for i, part in enumerate(folders[: DEPTH + 1]) if part_of(part)), None)
        if depth is not None:
            prefixes.add("".join(f"{part}/" for part in folders[:depth]))
    if "" in prefixes:
        return ""
    if len(prefixes) > 1:
        raise DataError(f"{where}: holds several copies of the data ({shorten(sorted(prefixes))}); give one alone")
    return prefixes.pop() if prefixes else None


def _read_table(file, where):
    images, labels, usage, notes = decoding.read_csv(file, where)
    check_complete(images, labels, usage, USAGES, where)
    names = np.array([f"row-{i:06d}" for i in range(len(labels))])
    return Reading(images, labels, usage, names, "csv", "none (pixels are stored as numbers)", False, notes)


def _read_tree(files, where, form, prefix):
    """Decode ``train/<class>/<name>`` and ``test/<class>/<name>``."""
    members, notes = _parse_tree(files, where, prefix)
    paths, openers, parts, classes, names = zip(*members, strict=True)
    images, kinds = decoding.decode_all(paths, openers, where)
    labels, more = _labels(np.array(classes), images, where)
    parts, names = np.array(parts), np.array(names)
    usages = _usages(set(parts))
    doubled = [key for key, n in Counter(zip(parts, labels, names, strict=True)).items() if n > 1]
    if doubled:
        part, label, name = doubled[0]
        raise DataError(f"{where}: two images are called {part}/{CLASSES[label]}/{name}")
    check_complete(images, labels, parts, sorted(usages, key=list(PARTS).index), where, *notes)
    if set(usages) != {"train", "test"}:
        notes.append("read as: " + ", ".join(f"{part}/ as {usage}" for part, usage in sorted(usages.items())))
    if set(kinds) != {"JPEG"}:
        notes.append("image files are " + ", ".join(f"{kind} ({n})" for kind, n in sorted(kinds.items())))
    usage = np.array([usages[part] for part in parts])
    return Reading(images, labels, usage, names, form, decoding.decoder(), set(kinds) == {"JPEG"}, (*notes, *more))


def _parse_tree(files, where, prefix):
    """Return (path, opener, part, class, name) of each image, and what else there is."""
    members, others, unknown = [], set(), Counter()
    for path, opener in files:
        parts = path.removeprefix(prefix).split("/")
        part = part_of(parts[0])
        if not path.startswith(prefix) or not part or len(parts) == 1:
            others.add(parts[0] + "/" * (len(parts) > 1))
        elif len(parts) != 3:
            raise DataError(f"{where}: {path} is out of place; expected {parts[0]}/<class>/<image>")
        elif parts[1].casefold() not in (*CLASS_NAMES, *"0123456"):
            unknown[f"{parts[0]}/{parts[1]}"] += 1
        elif Path(path).suffix.lower() not in IMAGE_FORMATS:
            raise DataError(f"{where}: {path} is not an image ({', '.join(IMAGE_FORMATS)}); remove it")
        else:
            members.append((path, opener, part, parts[1].casefold(), parts[2]))
    if unknown:
        found = ", ".join(f"{folder} ({n} files)" for folder, n in sorted(unknown.items()))
        raise DataError(f"{where}: unknown class folder: {found}; the classes are {', '.join(CLASSES)}")
    if not members:
        raise DataError(f"{where}: train/ and test/ hold no images")
    return members, [f"not read, beside train/ and test/: {shorten(sorted(others))}"] if others else []


def _labels(classes, images, where):
    """Return labels from the names of folders; numbers are those under which the images are FER2013's."""
    if not np.isin(classes, list("0123456")).any():
        return np.array([CLASSES.index(CLASS_NAMES[name]) for name in classes], dtype=np.int64), []
    some = slice(None, None, len(images) // decoding.COMPARED + 1)
    known = identity.known_labels(images[some])
    ways = []
    for order, said in ((CLASSES, "alphabetical"), (CSV_EMOTIONS, "the competition's")):
        meaning = CLASS_NAMES | dict(zip("0123456", order, strict=True))
        labels = np.array([CLASSES.index(meaning[name]) for name in classes], dtype=np.int64)
        ways.append(((known == labels[some]).sum(), said, labels))
    agree, said, labels = max(ways, key=lambda way: way[0])
    if agree > 0.8 * max((known >= 0).sum(), 1):
        return labels, [f"class folders are numbers, whose order is {said}, as the known images show"]
    raise DataError(
        f"{where}: class folders are numbers, and no image tells which (0 to 6 is alphabetical, or the competition's "
        f"{', '.join(CSV_EMOTIONS)}); rename the folders to {', '.join(CLASSES)}"
    )


def _usages(parts):
    """Return the usage of each part; the only one beside train is the whole test set, whatever it is called."""
    usages = {part: PARTS[part] for part in parts}
    tests = [part for part in parts if usages[part] != "Training"] or ["test"]
    if len(tests) == 1:
        usages[tests[0]] = "test"
    usages = {part: "PrivateTest" if len(tests) > 1 and usage == "test" else usage for part, usage in usages.items()}
    return usages if "Training" in usages.values() else usages | {"train": "Training"}


def check_complete(images, labels, part, parts, where: str, *notes: str) -> None:
    """Refuse a copy that lacks a part, or a class in one of them, and say where the known images of it are."""
    for one in parts:
        in_part = labels[part == one]
        if not len(in_part):
            sizes = ", ".join(f"{name} {np.count_nonzero(part == name):,}" for name in parts)
            said = "; ".join([f"FER2013 has {' and '.join(parts)}", *notes])
            raise DataError(f"{where}: no images in {one} ({sizes}); {said}")
        missing = np.setdiff1d(range(len(CLASSES)), in_part)
        if len(missing):
            names = ", ".join(CLASSES[k] for k in missing)
            why = _merged(images[part == one], in_part, missing) or "this copy is incomplete"
            raise DataError(f"{where}: no images of class {names} in {one}; {why}")


def _merged(images, labels, missing):
    """Say among which classes FER2013's images of the missing ones are; nothing where they are missing too."""
    known, of_all = identity.known_labels(images), identity.load_reference(identity.REFERENCE)["label"]
    filed = Counter(CLASSES[k] for k in labels[np.isin(known, missing)])
    # Some pictures are in FER2013 twice, under two labels.
    expected = of_all.isin(missing).mean() * (known >= 0).sum()
    among = ", ".join(f"{name} ({n:,})" for name, n in filed.most_common(3))
    return f"FER2013's of that class are among {among}: classes were merged" if filed.total() > expected / 2 else ""
