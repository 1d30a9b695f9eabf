"""The CSV files of the original competition, ``fer2013.csv`` and ``icml_face_data.csv``, bare or in a tar archive."""

import csv
import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fer_utils.constants import CLASSES, IMAGE_SIZE, USAGES
from fer_utils.errors import DataError
from fer_utils.data.reading import (
    LARGEST_TABLE,
    LONGEST_LINE,
    Reading,
    check_complete,
    check_number,
    check_size,
    is_litter,
    shorten,
)

#: The competition's emotion codes: a code is an index into this tuple; ``CLASSES`` has another order.
CSV_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


#: Files of the competition that hold images, labels and usage, in the order in which they are preferred.
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")


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
        See :func:`fer_utils.data.readers.read`.
    """
    try:
        with _Stream(path) as stream, tarfile.open(fileobj=stream) as archive:
            files = []
            for member in archive:
                check_size(member.size, LARGEST_TABLE, f"{path}: {member.name}")
                check_number(len(archive.members), str(path))
                if member.isfile() and not is_litter(member.name):
                    files.append(member.name)
            name = choose_csv(files)
            if name is None:
                raise DataError(f"{path}: holds neither {' nor '.join(CSV_NAMES)}, but {shorten(files)}")
            reading = read_csv(archive.extractfile(name), f"{path}: {name}")
            while stream.read(2**20):  # gzip compares its checksum only at the end
                check_size(stream.tell(), 2 * LARGEST_TABLE, str(path))
            return reading
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}); download it again") from error


class _Stream(gzip.GzipFile):
    """What a ``.gz`` holds; a tar header can ask for any number of bytes at once, and does not get them."""

    def read(self, size=-1):
        if not 0 <= size <= 2**24:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return super().read(size)


def choose_csv(files: Iterable[str]) -> str | None:
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
    rows = csv.reader(_lines(text, where))
    try:
        header = [column.strip().casefold() for column in next(rows, [])]
        _check_header(header, where)
        at = [header.index(column) for column in ("emotion", "usage", "pixels")]
        labels, usage, images = [], [], []
        for row in rows:
            if not row:  # a blank line, as at the end of many files
                continue
            line = f"{where}, line {rows.line_num}"
            check_number(len(labels), where)
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
    check_complete(usage, labels, where)
    others = sorted(set(header) - {"emotion", "usage", "pixels"})
    return Reading(
        images=np.stack(images).reshape(-1, IMAGE_SIZE, IMAGE_SIZE),
        labels=labels,
        usage=usage,
        names=np.array([f"row-{i:06d}" for i in range(len(labels))]),
        form="csv",
        decoder="none (pixels are stored as numbers)",
        jpeg=False,
        notes=(f"columns not read: {shorten(others)}",) if others else (),
    )


def _lines(text: io.TextIOBase, where: str) -> Iterator[str]:
    """Yield the lines of a text, none longer than a row can be: one without end would fill the memory."""
    number = 0
    while line := text.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise DataError(
                f"{where}, line {number}: longer than {LONGEST_LINE:,} characters; this is no table of images"
            )
        yield line


def _check_header(header: list[str], where: str) -> None:
    missing = [column for column in ("emotion", "pixels", "usage") if column not in header]
    if missing:
        hint = ""
        if header in (["emotion", "pixels"], ["pixels"]):
            hint = "; this is the competition's train.csv or test.csv, which does not tell the splits"
        found = shorten([column[:40] for column in header]) or "none"
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
