"""What every reader of FER2013 returns, and what all of them insist on."""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from fer_utils.constants import CLASSES, USAGES
from fer_utils.errors import DataError

#: Beyond these something is no copy of FER2013, and may be made to fill memory or disk: FER2013 has 35,887 images of
#: at most 3 kB, and its CSV has 300 MB in lines of at most 9,300 characters.
MOST_IMAGES = 500_000
LARGEST_IMAGE = 2**24
LARGEST_TABLE = 2**32
LONGEST_LINE = 2**20


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


#: Files that operating systems leave behind; they hold no data, so they may be passed over.
LITTER = {"__macosx", "thumbs.db", "desktop.ini"}


def check_complete(usage: np.ndarray, labels: np.ndarray, where: str) -> None:
    """Refuse a copy that lacks a usage, or a class in one of them."""
    for part in USAGES:
        in_part = labels[usage == part]
        if not len(in_part):
            raise DataError(f"{where}: no {part} images; FER2013 has {', '.join(USAGES)}")
        missing = [name for label, name in enumerate(CLASSES) if label not in in_part]
        if missing:
            raise DataError(f"{where}: no images of class {', '.join(missing)} in {part}; this copy is incomplete")


def check_number(n: int, where: str) -> None:
    """Refuse more images than any copy has."""
    if n > MOST_IMAGES:
        raise DataError(f"{where}: holds more than {MOST_IMAGES:,} images; FER2013 has 35,887. Do not use this file")


def check_size(size: int, largest: int, what: str) -> None:
    """Refuse a file that is larger than any of its kind, before it is read."""
    if size > largest:
        raise DataError(f"{what} has {size:,} bytes unpacked, more than {largest:,}; do not use this file")


def is_litter(path: str) -> bool:
    """Whether an operating system left a file behind; hidden files count too."""
    return any(part.startswith(".") or part.casefold() in LITTER for part in path.split("/"))


def shorten(items: list[str], most: int = 5) -> str:
    """Join up to `most` items, and say how many more there are."""
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")


def pixel_sha256(image: np.ndarray) -> str:
    """Return the sha256 of an image's pixels, rows from top to bottom, as 64 hex digits."""
    return sha256(np.ascontiguousarray(image)).hexdigest()
