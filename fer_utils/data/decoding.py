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
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from fer_utils.constants import CLASSES, IMAGE_SIZE, USAGES
from fer_utils.data import identity
from fer_utils.errors import DataError

IMAGE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}

#: The competition's emotion codes: a code is an index into this tuple; ``CLASSES`` has another order.
CSV_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

#: Names of the classes in other copies.
CLASS_NAMES = {name: name for name in CLASSES} | {
    "anger": "angry", "disgusted": "disgust", "fearful": "fear", "happiness": "happy", "sadness": "sad",
    "surprised": "surprise",
}  # fmt: skip
LABEL_OF = {str(code): CLASSES.index(name) for code, name in enumerate(CSV_EMOTIONS)}
LABEL_OF |= {name: CLASSES.index(known) for name, known in CLASS_NAMES.items()}

#: More than any copy holds: FER2013 has 35,887 images of at most 3 kB; a row of its CSV has at most 9,300 characters.
MOST_IMAGES, LARGEST_IMAGE, LONGEST_LINE = 500_000, 2**24, 2**20
#: Larger images of another size or mode are not decoded to be compared.
LARGEST_COMPARED = 512 * 512
COMPARED = 200

#: What Pillow and the readers of archives raise for damaged files.
UNREADABLE = (
    OSError,
    SyntaxError,  # Pillow raises it for broken PNG chunks
    ValueError,
    EOFError,
    RuntimeError,  # an encrypted file in a zip
    NotImplementedError,  # a compression that zipfile does not know
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)


class TooShort(ValueError):
    """A row of a CSV that lacks its end, as the last one of a truncated file does."""


class Flaw(NamedTuple):
    """Why an image cannot be used: it is unreadable, or of another size or mode."""

    path: str
    reason: str | None
    size: tuple[int, int] | None = None
    mode: str | None = None


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


def stand_in(head: bytes) -> str:
    """Say what lies in the place of a file, by its first kilobyte, and what to do; an empty string for the rest."""
    start = head.lstrip().lower()
    if not head:
        return "an empty file; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; run `git lfs pull`"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the file itself; download it again, signed in where the site asks for it"
    for signature, name in ((b"Rar!", "RAR"), (b"7z\xbc\xaf", "7z"), (b"\x28\xb5\x2f\xfd", "zstd")):
        if head.startswith(signature):
            return f"a {name} archive; unpack it and give the folder"
    if re.fullmatch(rb"[\w./ ()-]*(/|\.(zip|csv|gz|tar|jpe?g|png))[\w./ ()-]*\s*", head) and len(head) < 1000:
        return f"the text of a link to {head.decode().strip()}; give that file"
    return ""


# --- image files --------------------------------------------------------------------------------------------------


def decode_all(paths: list[str], opened: list[Callable[[], BinaryIO]], where: str) -> tuple[np.ndarray, Counter]:
    """Return images of shape (n, 48, 48), and the number of files of each format; `opened` opens one file each.

    They are decoded in threads, since Pillow releases the GIL while it decodes.
    """
    images = np.empty((len(paths), IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)

    def decode_range(start):
        kinds, flaws = Counter(), []
        for i in range(start, min(start + 512, len(paths))):
            result = _decode(paths[i], opened[i])
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
        raise DataError(f"{where}: {_describe(flaws, opened)}")
    return images, sum((kinds for kinds, _ in results), Counter())


def _open_image(opened):
    with opened() as file:
        # Up to a limit: a small file in a zip, or a sparse one, may unpack to any size.
        content = file.read(LARGEST_IMAGE + 1)
    if len(content) > LARGEST_IMAGE:
        raise OSError(f"has more than {LARGEST_IMAGE:,} bytes")
    instead = stand_in(content[:1000])
    if instead:
        raise OSError(instead)
    return Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP"))


def _decode(path, opened):
    try:
        with _open_image(opened) as image:
            if image.size == (IMAGE_SIZE, IMAGE_SIZE) and image.mode == "L":
                return np.asarray(image), image.format
            return Flaw(path, None, image.size, image.mode)
    except UnidentifiedImageError:
        return Flaw(path, "not a JPEG, PNG or BMP image")
    except UNREADABLE as error:
        return Flaw(path, str(error) or type(error).__name__)


def _describe(flaws, opened):
    """Say in one sentence what is wrong with the images of a copy, the gravest first."""
    n = len(opened)
    unreadable = [f for f in flaws if f.reason]
    if unreadable:
        first = unreadable[0]
        return f"{len(unreadable)} of {n} images cannot be read; {first.path}: {first.reason}; replace the copy"
    sizes = Counter("{}x{}".format(*f.size) for f in flaws if f.size != (IMAGE_SIZE, IMAGE_SIZE))
    modes = Counter(f.mode for f in flaws if f.mode != "L")
    found = [_tally(kinds, n) for kinds in (sizes, modes) if kinds]
    grey, equal = _compared(opened) if n in (sizes.total(), modes.total()) else ([], [])
    if equal and all(equal):
        found.append("with equal channels (grey stored as colour)")
    if len(grey):
        known = int((identity.known_labels(np.stack(grey)) >= 0).sum())
        stored = "grey-as-colour" if equal and all(equal) else "colour"
        kind = " and ".join(["resized"] * (sizes.total() == n) + [stored] * (modes.total() == n))
        found[-1] += (
            f"; {known} of {len(grey)} compared are images of FER2013, once made grey and {IMAGE_SIZE}x{IMAGE_SIZE}: "
            + (f"a {kind} copy of it" if known > len(grey) / 2 else "this is another set of images")
        )
    else:
        found[-1] += f"; the first is {flaws[0].path}"
    return (
        f"{', '.join(found)}; FER2013's images are {IMAGE_SIZE}x{IMAGE_SIZE} 8-bit greyscale (L): "
        "use the original, since what a conversion did to the pixels cannot be undone"
    )


def _compared(opened):
    """Return some images made 48x48 and grey, and of those in colour whether their channels are equal."""
    grey, equal = [], []
    for one in opened[:: len(opened) // COMPARED + 1]:
        with _open_image(one) as image:
            if image.width * image.height <= LARGEST_COMPARED:
                if image.mode not in ("1", "L", "I", "I;16", "F"):
                    pixels = np.asarray(image.convert("RGB"))
                    equal.append(bool((pixels == pixels[..., :1]).all()))
                # A box filter as wide as a pixel of the target, whatever the size.
                grey.append(np.asarray(image.convert("L").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)))
    return grey, equal


def _tally(kinds, n):
    """Return e.g. ``"every image is 75x75"`` or ``"3 of 40 images are 75x75 (2), 96x96 (1)"``."""
    listed = ", ".join(f"{kind} ({k})" for kind, k in kinds.most_common(5)) if len(kinds) > 1 else next(iter(kinds))
    return f"every image is {listed}" if kinds.total() == n else f"{kinds.total()} of {n} images are {listed}"


# --- the competition's CSV ----------------------------------------------------------------------------------------


def read_csv(file: BinaryIO, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read ``fer2013.csv`` (emotion,pixels,Usage) or ``icml_face_data.csv``: images, labels, usage and notes.

    Labels are indices into ``CLASSES``. The columns are found by name. (Not by ``pandas.read_csv``: it takes a row that
    is too short for one of missing values, does not say in which line, and has no limit for a line's length.) A
    malformed row raises a DataError that names its line; the header is line 1.
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = csv.reader(iter(lambda: text.readline(LONGEST_LINE), ""))  # a line without end would fill the memory
    labels, usage, images = [], [], []
    try:
        header = [column.strip().casefold() for column in next(rows, [])]
        _check_header(header, where)
        at = [header.index(column) for column in ("emotion", "usage", "pixels")]
        for row in rows:
            if not row:  # a blank line, as at the end of many files
                continue
            check_number(len(labels), where)
            if len(row) != len(header):
                kind = TooShort if len(row) < len(header) else ValueError
                raise kind(f"{len(row)} fields, expected {len(header)} ({','.join(header)})")
            emotion, part, pixels = (row[i].strip() for i in at)
            images.append(_parse_pixels(pixels))
            if emotion.casefold() not in LABEL_OF:
                codes = ", ".join(f"{code} {name}" for code, name in enumerate(CSV_EMOTIONS))
                hint = "; CK+ and FER+ have an eighth class, contempt" if emotion == "7" else ""
                raise ValueError(f"emotion is {emotion[:40]!r}, expected a code from 0 to 6 ({codes}){hint}")
            labels.append(LABEL_OF[emotion.casefold()])
            if part not in USAGES:
                kind = TooShort if any(name.startswith(part) for name in USAGES) else ValueError
                raise kind(f"Usage is {part[:40]!r}, expected one of {', '.join(USAGES)}")
            usage.append(part)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}, after line {rows.line_num}: not a text file ({error.reason})") from error
    except (ValueError, csv.Error) as error:
        last = isinstance(error, TooShort) and rows.line_num > 1 and not text.read(1)
        rest = f"; it ends here, after {len(usage):,} whole rows (FER2013 has 35,887): truncated? Download it again"
        raise DataError(f"{where}, line {rows.line_num}: {error}{rest if last else ''}") from error
    if not images:
        raise DataError(f"{where}: holds a header but no rows")
    others = sorted(set(header) - {"emotion", "usage", "pixels"})
    notes = (f"columns not read: {shorten(others)}",) if others else ()
    return np.stack(images).reshape(-1, IMAGE_SIZE, IMAGE_SIZE), np.array(labels, np.int64), np.array(usage), notes


def _check_header(header, where):
    missing = [column for column in ("emotion", "pixels", "usage") if column not in header]
    if missing:
        hint = ""
        if header in (["emotion", "pixels"], ["pixels"]):
            hint = "; this is the competition's train.csv or test.csv, which does not tell the splits"
        if {"image name", "neutral", "contempt"} <= set(header):
            hint = "; these are FER+'s labels, which come without images"
        found = shorten([column[:40] for column in header]) or "none"
        raise DataError(
            f"{where}: no column {', '.join(missing)}, found {found}{hint}; "
            "expected emotion, pixels and Usage as in fer2013.csv or icml_face_data.csv"
        )
    if len(set(header)) != len(header):
        raise DataError(f"{where}: a column name is twice in the header: {','.join(header)}")


def _parse_pixels(text):
    try:
        # Ten times faster than int() on each, and 35,887 rows hold 83 million numbers.
        values = np.fromstring(text, dtype=np.int64, sep=" ")
    except ValueError:
        wrong = next((v for v in text.split() if not re.fullmatch(r"\d+", v)), "")
        raise ValueError(f"pixel {wrong[:40]!r} is not a whole number from 0 to 255") from None
    if len(values) != IMAGE_SIZE**2:
        side = round(len(values) ** 0.5)
        hint = f" (a {side}x{side} image: resized)" if side > 1 and side**2 == len(values) else ""
        kind = TooShort if len(values) < IMAGE_SIZE**2 else ValueError
        raise kind(f"{len(values)} pixels{hint}, expected {IMAGE_SIZE**2} ({IMAGE_SIZE}x{IMAGE_SIZE})")
    if values.min() < 0 or values.max() > 255:
        wrong = values[(values < 0) | (values > 255)][0]
        raise ValueError(f"pixel value {wrong} is outside 0 to 255")
    return values.astype(np.uint8)
