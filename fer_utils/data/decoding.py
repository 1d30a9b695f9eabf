"""Bytes to pixels: image files with one named decoder, Pillow, and the rows of the competition's CSV.

JPEG decoders differ by a grey level here and there, so the decoder is part of a run's record.
"""

import csv
import io
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from fer_utils.constants import CLASSES, IMAGE_SIZE, USAGES
from fer_utils.data import identity
from fer_utils.errors import DataError

IMAGE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}

#: The competition's emotion codes: a code is an index into this tuple; ``CLASSES`` has another order.
CSV_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

MOST_IMAGES = 500_000
LONGEST_LINE = 2**20  # a row of the CSV has at most 9,300 characters
#: Larger images of another size or mode are not decoded to be compared.
LARGEST_COMPARED = 512 * 512
COMPARED = 200

UNREADABLE = (
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


class Flaw(NamedTuple):
    """Why an image cannot be used: it is unreadable, or of another size or mode."""

    path: str
    reason: str | None = None
    size: tuple[int, int] | None = None
    mode: str | None = None
    equal_channels: bool = False
    grey: np.ndarray | None = None  # made 48x48 and grey, to be compared


def decoder() -> str:
    """Name the decoder, e.g. ``"Pillow 12.0.0 (libjpeg-turbo 3.1)"``."""
    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__} ({library})"


def check_number(n: int, where: str) -> None:
    """Refuse more images than any copy has."""
    if n > MOST_IMAGES:
        raise DataError(f"{where}: holds more than {MOST_IMAGES:,} images; FER2013 has 35,887. Do not use this file")


def shorten(items: list[str], most: int = 5) -> str:
    """Join up to `most` items, and say how many more there are."""
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")


# --- image files --------------------------------------------------------------------------------------------------


def decode_all(paths: list[str], read_bytes: Callable[[str], bytes], where: str) -> tuple[np.ndarray, Counter]:
    """Return images of shape (n, 48, 48), and the number of files of each format.

    They are decoded in threads, since Pillow releases the GIL while it decodes.
    """
    images = np.empty((len(paths), IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    compared = set(range(0, len(paths), max(1, len(paths) // COMPARED)))

    def decode_range(start):
        kinds, flaws = Counter(), []
        for i in range(start, min(start + 512, len(paths))):
            result = _decode(paths[i], read_bytes, i in compared)
            if isinstance(result, Flaw):
                flaws.append(result)
            else:
                images[i], kind = result
                kinds[kind] += 1
        return kinds, flaws

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        results = list(pool.map(decode_range, range(0, len(paths), 512)))
    flaws = [flaw for _, part in results for flaw in part]
    if flaws:
        raise DataError(f"{where}: {_describe(flaws, len(paths))}")
    return images, sum((kinds for kinds, _ in results), Counter())


def _decode(path, read_bytes, compare):
    try:
        with Image.open(io.BytesIO(read_bytes(path)), formats=tuple(set(IMAGE_FORMATS.values()))) as image:
            if image.size == (IMAGE_SIZE, IMAGE_SIZE) and image.mode == "L":
                return np.asarray(image), image.format
            equal, grey = False, None
            if image.width * image.height <= LARGEST_COMPARED:
                if image.mode in ("RGB", "RGBA"):
                    pixels = np.asarray(image)[..., :3]
                    equal = bool((pixels == pixels[..., :1]).all())
                if compare:
                    # A box filter as wide as a pixel of the target, whatever the size.
                    grey = np.asarray(image.convert("L").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))
            return Flaw(path, None, image.size, image.mode, equal, grey)
    except UnidentifiedImageError:
        return Flaw(path, reason="not a JPEG, PNG or BMP image")
    except UNREADABLE as error:
        return Flaw(path, reason=str(error) or type(error).__name__)


def _describe(flaws, n):
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
    grey = [f.grey for f in flaws if f.grey is not None]
    if n in (sizes.total(), modes.total()) and grey:
        known = int((identity.known_labels(np.stack(grey)) >= 0).sum())
        kind = " and ".join(["resized"] * (sizes.total() == n) + ["colour"] * (modes.total() == n))
        verdict = (
            f"{known} of {len(grey)} compared are images of FER2013, once made grey and {IMAGE_SIZE}x{IMAGE_SIZE}: "
        )
        verdict += f"a {kind} copy of it" if known > len(grey) / 2 else "this is another set of images"
    else:
        verdict = f"the first is {flaws[0].path}"
    return (
        f"{', '.join(found)}; {verdict}; FER2013's images are {IMAGE_SIZE}x{IMAGE_SIZE} 8-bit greyscale (L): "
        "use the original, since what a conversion did to the pixels cannot be undone"
    )


def _tally(kinds, n):
    """Return e.g. ``"every image is 75x75"`` or ``"3 of 40 images are 75x75 (2), 96x96 (1)"``."""
    listed = ", ".join(f"{kind} ({k})" for kind, k in kinds.most_common(5)) if len(kinds) > 1 else next(iter(kinds))
    return f"every image is {listed}" if kinds.total() == n else f"{kinds.total()} of {n} images are {listed}"


# --- the competition's CSV ----------------------------------------------------------------------------------------


def read_csv(file: io.BufferedIOBase, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read ``fer2013.csv`` (emotion,pixels,Usage) or ``icml_face_data.csv`` (emotion, Usage, pixels).

    The columns are found by name; blanks around names and values do not count. (Not by ``pandas.read_csv``: it takes a
    row that is too short for one of missing values, does not say in which line, and has no limit for a line's length.)
    A malformed row raises a DataError that names its line; the header is line 1.

    Returns
    -------
    images, labels, usage, notes
        Labels are indices into ``CLASSES``, not the competition's codes.
    """
    lines = _Lines(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), where)
    rows = csv.reader(lines)
    labels, usage, images = [], [], []
    try:
        header = [column.strip().casefold() for column in next(rows, [])]
        _check_header(header, where)
        at = [header.index(column) for column in ("emotion", "usage", "pixels")]
        for row in rows:
            if not row:  # a blank line, as at the end of many files
                continue
            line = f"{where}, line {rows.line_num}"
            check_number(len(labels), where)
            try:
                if len(row) != len(header):
                    raise DataError(f"{line}: {len(row)} fields, expected {len(header)} ({','.join(header)})")
                emotion, part, pixels = (row[i].strip() for i in at)
                images.append(_parse_pixels(pixels, line))
                labels.append(_parse_emotion(emotion, line))
                usage.append(_parse_usage(part, line))
            except DataError as error:
                if not lines.cut_off:
                    raise
                rest = f"it ends within line {rows.line_num:,}, after {len(usage):,} whole rows (FER2013 has 35,887)"
                raise DataError(f"{where}: truncated: {rest}; download it again. {error}") from None
    except csv.Error as error:
        raise DataError(f"{where}, line {rows.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where}, after line {rows.line_num}: not a text file ({error.reason})") from error
    if not images:
        raise DataError(f"{where}: holds a header but no rows")
    others = sorted(set(header) - {"emotion", "usage", "pixels"})
    notes = (f"columns not read: {shorten(others)}",) if others else ()
    return np.stack(images).reshape(-1, IMAGE_SIZE, IMAGE_SIZE), np.array(labels, np.int64), np.array(usage), notes


class _Lines:
    """The lines of a text, none longer than a row can be: one without end would fill the memory."""

    def __init__(self, text, where):
        self.text, self.where, self.number, self.cut_off = text, where, 0, False

    def __iter__(self):
        while line := self.text.readline(LONGEST_LINE + 1):
            self.number += 1
            self.cut_off = not line.endswith(("\n", "\r"))  # so only the last can be
            if len(line) > LONGEST_LINE:
                what = f"longer than {LONGEST_LINE:,} characters; this is no table of images"
                raise DataError(f"{self.where}, line {self.number}: {what}")
            yield line


def _check_header(header, where):
    missing = [column for column in ("emotion", "pixels", "usage") if column not in header]
    if missing:
        hint = ""
        if header in (["emotion", "pixels"], ["pixels"]):
            hint = "; this is the competition's train.csv or test.csv, which does not tell the splits"
        found = shorten([column[:40] for column in header]) or "none"
        raise DataError(
            f"{where}: no column {', '.join(missing)}, found {found}{hint}; "
            "expected emotion, pixels and Usage as in fer2013.csv or icml_face_data.csv"
        )
    if len(set(header)) != len(header):
        raise DataError(f"{where}: a column name is twice in the header: {','.join(header)}")


_LABEL_OF_CODE = {str(code): CLASSES.index(name) for code, name in enumerate(CSV_EMOTIONS)}


def _parse_emotion(text, line):
    if text not in _LABEL_OF_CODE:
        codes = ", ".join(f"{code} {name}" for code, name in enumerate(CSV_EMOTIONS))
        raise DataError(f"{line}: emotion is {text[:40]!r}, expected a code from 0 to 6 ({codes})")
    return _LABEL_OF_CODE[text]


def _parse_usage(text, line):
    if text not in USAGES:
        raise DataError(f"{line}: Usage is {text[:40]!r}, expected one of {', '.join(USAGES)}")
    return text


def _parse_pixels(text, line):
    try:
        # Ten times faster than int() on each, and 35,887 rows hold 83 million numbers.
        values = np.fromstring(text, dtype=np.int64, sep=" ")
    except ValueError:
        wrong = next((v for v in text.split() if not re.fullmatch(r"\d+", v)), "")
        raise DataError(f"{line}: pixel {wrong[:40]!r} is not a whole number from 0 to 255") from None
    if len(values) != IMAGE_SIZE**2:
        side = round(len(values) ** 0.5)
        hint = f" (a {side}x{side} image: resized)" if side > 1 and side**2 == len(values) else ""
        raise DataError(f"{line}: {len(values)} pixels{hint}, expected {IMAGE_SIZE**2} ({IMAGE_SIZE}x{IMAGE_SIZE})")
    if values.min() < 0 or values.max() > 255:
        wrong = values[(values < 0) | (values > 255)][0]
        raise DataError(f"{line}: pixel value {wrong} is outside 0 to 255")
    return values.astype(np.uint8)
