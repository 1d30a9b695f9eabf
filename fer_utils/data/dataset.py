"""The dataset as arrays: ``load()`` finds it, reads it once and maps it into memory ever after."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import decoding, identity, readers, sources, verdict
from fer_utils.data.synthetic import make_faces
from fer_utils.errors import DataError
from fer_utils.files import read_json, replacing, write_json

#: This many decoded copies are kept; of more, those not used for longest are removed (about 90 MB each).
CACHE_ENTRIES = 4


@dataclass(frozen=True)
class Dataset:
    """FER2013, or what stands in for it, in an order that does not depend on the form it came in.

    Sorted by usage (in the order of ``USAGES``), label, sha256 of the pixels, name.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
        Read-only; may be mapped from a file.
    labels : ndarray of int64, shape (n,)
        Index into ``CLASSES``.
    usage : ndarray of str, shape (n,)
        One of ``USAGES``.
    ids : ndarray of str, shape (n,)
        ``"<usage>/<class>/<name>"``, e.g. ``"Training/angry/Training_10131352.jpg"``. Base names alone repeat.
    source : str
        ``"synthetic"``, ``"kaggle:msambare/fer2013"`` or the base name of a file or folder.
    fingerprint : dict
        What this copy is: ``variant``, ``known``, ``description``, ``differences`` (see
        :func:`fer_utils.data.verdict.identify`); ``sha256`` of pixels, labels and usage, ``counts`` ({usage: {class:
        n}}), ``n_images``, ``decoder``, ``form`` (zip, folder, csv or synthetic), ``notes``.
    notes : tuple of str
        What a reader of the results should know: what was tried before falling back, oddities of the copy.
    path : Path or None
        Where it was found; None for the synthetic set. It names a place on this machine and is never recorded.
    """

    images: np.ndarray
    labels: np.ndarray
    usage: np.ndarray
    ids: np.ndarray
    source: str
    fingerprint: dict
    notes: tuple[str, ...] = ()
    path: Path | None = None


def load(
    source: str | Path = "auto",
    cache: str | Path | None = None,
    on_message: Callable[[str], None] = print,
    *,
    allow_fallback: bool = True,
) -> Dataset:
    """Load FER2013.

    Parameters
    ----------
    source : {"auto", "synthetic", "kaggle"} or path
        ``"auto"`` tries the environment variable ``FER2013_DATA``, the cache folder, Kaggle, and last the
        synthetic set, and says so. A path is a zip, a CSV or a folder; see :mod:`fer_utils.data.readers`.
    cache : path, optional
        Folder of downloads and decoded images. Default: ``FER_CACHE``, else ``data/`` of the project.
    on_message : callable
        Takes one line of text for the user.
    allow_fallback : bool
        False: raise rather than fall back to the synthetic set.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the data is missing, or broken in any way; the message names the file and the reason.
    """
    folder = sources.cache_folder(cache)
    try:
        found = sources.find(source, folder, on_message, allow_fallback)
        arrays, meta = _read_cached(found.path, folder / "decoded", on_message) if found.path else _draw()
    except OSError as error:  # a dangling link, a folder without permission, a disk that is gone
        name = error.filename or source
        hint = f"; it is a link to {os.readlink(name)}: fetch that file" if os.path.islink(name) else ""
        raise DataError(f"{name}: cannot be read: {error.strerror or error}{hint}") from error
    for array in arrays.values():
        if array.flags.writeable:
            array.flags.writeable = False
    dataset = Dataset(
        **arrays,
        source=found.source,
        fingerprint=meta["fingerprint"],
        notes=(*found.notes, *meta["notes"]),
        path=found.path,
    )
    on_message(f"Data: {found.source}, {len(dataset.labels):,} images. {dataset.fingerprint['description']}")
    for note in meta["notes"]:
        on_message(f"Note: {note}")
    return dataset


def _draw():
    images, labels, usage = make_faces()
    found = {
        "variant": "synthetic",
        "known": False,
        "description": "Synthetic faces drawn by this package; no result from them is one on FER2013.",
        "differences": ["drawn, not photographed"],
    }
    names = np.array([f"drawn-{i:06d}" for i in range(len(labels))])
    drawn_with = f"drawn with {decoding.decoder()}"
    return _finish(readers.Reading(images, labels, usage, names, "synthetic", drawn_with, jpeg=False), found)


def _read(path):
    reading = readers.read(path)
    usage, found = verdict.identify(reading.images, reading.labels, reading.usage, reading.names, jpeg=reading.jpeg)
    usage, notes = _share_out(usage, reading)
    readers.check_complete(reading.images, reading.labels, usage, USAGES, str(path))
    return _finish(replace(reading, usage=usage, notes=(*reading.notes, *notes)), found)


def _share_out(usage, reading):
    """Decide the usage of test images that are not FER2013's: by the file name's prefix, else by content.

    The distinct images of a class, sorted by the hash of their pixels, go to PublicTest and PrivateTest in turn. So
    identical images stay together, and the result depends neither on names nor on the form of the copy.
    """
    prefixes = np.array([name.split("_")[0] for name in reading.names])
    usage = np.where((usage == "test") & np.isin(prefixes, USAGES[1:]), prefixes, usage).astype("U11")
    undecided = usage == "test"
    for label in np.unique(reading.labels[undecided]):
        of_class = np.flatnonzero(undecided & (reading.labels == label))
        _, rank = np.unique([_pixel_sha256(image) for image in reading.images[of_class]], return_inverse=True)
        usage[of_class] = np.where(rank % 2 == 0, "PublicTest", "PrivateTest")
    n = np.count_nonzero(undecided)
    note = (
        f"{n:,} test images that are not FER2013's and whose names say neither PublicTest nor PrivateTest were shared "
        "out between the two by the hash of their pixels"
    )
    return usage, [note] if n else []


def _finish(reading, found):
    """Sort the images and describe them."""
    arrays = sort(reading.images, reading.labels, reading.usage, reading.names)
    meta = {
        "sha256": content_hash(arrays["images"], arrays["labels"], arrays["usage"]),
        "counts": counts(arrays["labels"], arrays["usage"]),
        "n_images": len(reading.labels),
        "decoder": reading.decoder,
        "form": reading.form,
        "notes": list(reading.notes),
    }
    return arrays, {"fingerprint": found | meta, "notes": list(reading.notes)}


def sort(images: np.ndarray, labels: np.ndarray, usage: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    """Return a dataset's arrays in the canonical order: usage, label, sha256 of the pixels, name."""
    keys = [names, [_pixel_sha256(image) for image in images], labels, [USAGES.index(part) for part in usage]]
    order = np.lexsort(keys)
    ids = [f"{usage[i]}/{CLASSES[labels[i]]}/{names[i]}" for i in order]
    return {"images": images[order], "labels": labels[order], "usage": usage[order], "ids": np.array(ids)}


def _pixel_sha256(image):
    return hashlib.sha256(np.ascontiguousarray(image)).hexdigest()


def content_hash(images: np.ndarray, labels: np.ndarray, usage: np.ndarray) -> str:
    """Return the sha256 of what a network sees: pixels, labels and usage, not the names.

    It is taken over three blocks of bytes: the pixels of all images in the canonical order, row by row (2,304 n bytes);
    the labels (n bytes); each usage's index in ``USAGES`` (n bytes).
    """
    digest = hashlib.sha256(np.ascontiguousarray(images, dtype=np.uint8))
    digest.update(np.asarray(labels).astype(np.uint8).tobytes())
    digest.update(np.array([USAGES.index(part) for part in usage], dtype=np.uint8).tobytes())
    return digest.hexdigest()


def counts(labels: np.ndarray, usage: np.ndarray) -> dict[str, dict[str, int]]:
    """Return the number of images per usage and class, zeros included."""
    return {
        part: {name: int(((usage == part) & (labels == i)).sum()) for i, name in enumerate(CLASSES)} for part in USAGES
    }


# --- the cache of decoded images ----------------------------------------------------------------------------------


def _read_cached(path, folder, on_message):
    """Take the decoded images from the cache, or read the source and leave them there."""
    entry = folder / _key(path)
    stored = _open_entry(entry)
    if stored is not None:
        return stored
    on_message(f"Reading {path} ...")
    arrays, meta = _read(path)
    try:
        # Two processes at once write the same, and each file is whole or not there.
        for name, array in arrays.items():
            with replacing(entry / f"{name}.npy", durable=False) as file:
                np.save(file, array)
        write_json(entry / "meta.json", meta | {"check": _check(arrays)}, durable=False)
        entries = sorted((p for p in folder.iterdir() if p != entry), key=lambda p: p.stat().st_mtime)
        for old in entries[: -CACHE_ENTRIES + 1]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        on_message(f"Decoded images cannot be kept in {folder} ({error.strerror}); going on without a cache")
    return _open_entry(entry) or (arrays, meta)


def _key(path):
    """Name a cache entry by all that decides what it holds: this room's files, the decoder, the source's state."""
    room = sorted(file for file in Path(__file__).parent.iterdir() if file.suffix == ".py")
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (*room, identity.REFERENCE)]
    state = [sums, decoding.decoder(), str(path.resolve()), readers.stamp(path)]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:20]


def _open_entry(entry):
    """Map a cache entry into memory; None if there is none or it is damaged in any way."""
    try:
        meta = read_json(entry / "meta.json")
        arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in ("images", "labels", "usage", "ids")}
        if meta.pop("check") != _check(arrays):
            return None
        os.utime(entry)  # the time of last use
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
    return arrays, meta


def _check(arrays):
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array).view(np.uint8))
    return digest.hexdigest()
