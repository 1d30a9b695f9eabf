"""The dataset as arrays: ``load()`` finds it, reads it once and maps it into memory ever after."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_utils.data import readers, reference, sources
from fer_utils.constants import CLASSES, IMAGE_SIZE, USAGES
from fer_utils.data.fingerprint import fingerprint
from fer_utils.data.synthetic import make_faces

#: Changes when decoded images are stored otherwise, or come out otherwise.
CACHE_FORMAT = 1

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
        What this copy is and how it differs from the known ones; see :mod:`fer_utils.data.fingerprint`.
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
    timeout: float = 20,
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
    timeout : float
        Seconds without a new byte after which a download from Kaggle is given up.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the data is missing, or broken in any way; the message names the file and the reason.
    """
    folder = sources.cache_folder(cache)
    found = sources.find(source, folder, on_message, allow_fallback, timeout)
    if found.path is None:
        arrays, meta = _draw_synthetic()
    else:
        arrays, meta = _read_cached(found.path, folder / "decoded", on_message)
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


def _draw_synthetic() -> tuple[dict, dict]:
    images, labels, usage = make_faces()
    reading = readers.Reading(
        images=images,
        labels=np.asarray(labels, dtype=np.int64),
        usage=np.asarray(usage),
        names=np.array([f"drawn-{i:06d}" for i in range(len(labels))]),
        form="synthetic",
        decoder=f"drawn with {readers.decoder()}",
        jpeg=False,
        notes=(),
    )
    arrays = sort(reading)
    meta = _describe(reading)
    meta["fingerprint"] = _fingerprint(arrays, meta)
    return arrays, meta


def sort(reading: readers.Reading) -> dict[str, np.ndarray]:
    """Bring images into the canonical order: usage, label, sha256 of the pixels, name.

    Parameters
    ----------
    reading : Reading

    Returns
    -------
    dict of ndarray
        ``images``, ``labels``, ``usage`` and ``ids`` as :class:`Dataset` has them.
    """
    keys = [
        (USAGES.index(part), label, readers.pixel_sha256(image), name)
        for part, label, image, name in zip(reading.usage, reading.labels, reading.images, reading.names, strict=True)
    ]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    ids = [f"{reading.usage[i]}/{CLASSES[reading.labels[i]]}/{reading.names[i]}" for i in order]
    return {
        "images": reading.images[order],
        "labels": reading.labels[order],
        "usage": reading.usage[order],
        "ids": np.array(ids),
    }


def _describe(reading: readers.Reading) -> dict:
    return {
        "form": reading.form,
        "decoder": reading.decoder,
        "jpeg": reading.jpeg,
        "notes": list(reading.notes),
    }


def _fingerprint(arrays: dict, meta: dict) -> dict:
    return fingerprint(**arrays, form=meta["form"], decoder=meta["decoder"], jpeg=meta["jpeg"], notes=meta["notes"])


# --- the cache of decoded images ----------------------------------------------------------------------------


def _read_cached(path: Path, folder: Path, on_message: Callable[[str], None]) -> tuple[dict, dict]:
    """Take the decoded images from the cache, or read the source and leave them there."""
    entry = folder / _key(path)
    stored = _open_entry(entry)
    if stored is None:
        on_message(f"Reading {path} ...")
        reading = readers.read(path)
        arrays, meta = sort(reading), _describe(reading)
    else:
        arrays, meta = stored
        if meta["fingerprint_code"] == _fingerprint_code():
            return stored
    meta["fingerprint"] = _fingerprint(arrays, meta)
    meta["fingerprint_code"] = _fingerprint_code()
    try:
        _write_entry(entry, arrays, meta)
        _prune(folder, keep=entry)
    except OSError as error:
        on_message(f"Decoded images cannot be kept in {folder} ({error.strerror}); going on without a cache")
    return _open_entry(entry) or (arrays, meta)


def _key(path: Path) -> str:
    """Name a cache entry by all that decides what it holds; any change to the source gives another name."""
    state = [CACHE_FORMAT, readers.decoder(), str(path.resolve()), readers.stamp(path)]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:20]


def _fingerprint_code() -> str:
    """Hash the code and the reference that make a fingerprint, which a stored one must not outlive."""
    package = Path(__file__).parent
    files = [package / f"{module}.py" for module in ("comparison", "fingerprint", "pixels", "reference")]
    contents = [file.read_bytes() for file in (*files, reference.PATH)]
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _open_entry(entry: Path) -> tuple[dict, dict] | None:
    """Map a cache entry into memory; None if there is none or it is damaged in any way."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        if any(_hash_file(entry / name) != digest for name, digest in meta["sha256"].items()):
            return None
        images = np.load(entry / "images.npy", mmap_mode="r")
        with np.load(entry / "table.npz") as table:
            arrays = {"images": images, **{name: table[name] for name in ("labels", "usage", "ids")}}
        if images.shape != (len(arrays["labels"]), IMAGE_SIZE, IMAGE_SIZE) or "fingerprint" not in meta:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        return None
    with contextlib.suppress(OSError):
        os.utime(entry)  # the time of last use, for _prune
    return arrays, meta


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_entry(entry: Path, arrays: dict, meta: dict) -> None:
    """Write a cache entry under another name and rename it, so that no one ever meets half of one."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=entry.parent))
    old = part.with_name(f"{part.name}-old")
    try:
        np.save(part / "images.npy", arrays["images"])
        np.savez(part / "table.npz", **{name: arrays[name] for name in ("labels", "usage", "ids")})
        meta["sha256"] = {name: _hash_file(part / name) for name in ("images.npy", "table.npz")}
        (part / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        if entry.exists():  # damaged or outdated; a rename, since another process may be reading it
            os.rename(entry, old)
        try:
            os.rename(part, entry)
        except OSError:
            if not entry.is_dir():  # else another process was quicker, with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _prune(folder: Path, keep: Path) -> None:
    """Remove the entries not used for longest, and what a killed process left half written a day ago."""
    entries = sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    whole = [p for p in entries if not p.name.startswith(".") and p != keep]
    parts = [p for p in entries if p.name.startswith(".") and time.time() - p.stat().st_mtime > 86400]
    for path in whole[: max(0, len(whole) - CACHE_ENTRIES + 1)] + parts:
        shutil.rmtree(path, ignore_errors=True)
