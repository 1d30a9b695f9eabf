"""The known FER2013, image by image, as hashes and statistics from which no image can be rebuilt.

``python -m fer_utils.data.reference fer2013.zip recovered.txt`` makes ``fer2013_reference.csv.gz`` anew.
``recovered.txt`` names, one path a line, the images whose exact pixels are not known (they were recovered
from a resized copy); a comparison must not expect those to match to the last bit.
"""

import argparse
import gzip
import io
import sys
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from fer_utils.constants import CLASSES, USAGES
from fer_utils.errors import DataError
from fer_utils.data.pixels import pixel_hash, statistics

PATH = Path(__file__).with_name("fer2013_reference.csv.gz")

#: Rounded so that the file stays small, and fine enough to tell what was done to a copy.
DECIMALS = {"mean": 1, "std": 1, "sharpness": 0, "left_right": 0}


def split_ids(ids: np.ndarray) -> np.ndarray:
    """Return each id's base name without ending: ``Training/angry/Training_12.jpg`` -> ``Training_12``."""
    return np.array([PurePosixPath(name).stem for name in ids], dtype=object)


def build(
    images: np.ndarray,
    labels: np.ndarray,
    usage: np.ndarray,
    ids: np.ndarray,
    recovered: set[str] = frozenset(),
) -> pd.DataFrame:
    """Return the reference of a set of images.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    labels : ndarray of int, shape (n,)
    usage, ids : ndarray of str, shape (n,)
    recovered : set of str
        ``<class>/<name>`` of the images that need not match exactly.

    Returns
    -------
    DataFrame
        One row an image, sorted by usage, label and name: ``usage`` (str), ``label`` (int8), ``name`` (base
        name without ending), ``pixel_hash``, ``mean``, ``std``, ``sharpness``, ``left_right`` (float32,
        rounded), ``recovered`` (bool).
    """
    table = pd.DataFrame(
        {
            "usage": np.asarray(usage).astype(str),
            "label": np.asarray(labels).astype(np.int8),
            "name": split_ids(ids).astype(str),
            "pixel_hash": pixel_hash(images),
        }
    ).join(statistics(images).round(DECIMALS))
    table["recovered"] = ["/".join(PurePosixPath(name).parts[-2:]) in recovered for name in ids]
    order = table["usage"].map(USAGES.index)
    return table.assign(order=order).sort_values(["order", "label", "name"], ignore_index=True).drop(columns="order")


def save(reference: pd.DataFrame, path: str | Path = PATH) -> None:
    """Write a reference as gzipped CSV; the same reference gives the same bytes."""
    table = reference.copy()
    table["class"] = [CLASSES[label] for label in table["label"]]
    table["recovered"] = table["recovered"].astype(int)
    for column, digits in DECIMALS.items():
        table[column] = [f"{value:.{digits}f}" for value in table[column]]
    columns = ["usage", "class", "name", "pixel_hash", *DECIMALS, "recovered"]
    text = table[columns].to_csv(index=False, lineterminator="\n")
    buffer = io.BytesIO()
    # gzip's header holds a time and a file name: without them the bytes depend on the content alone.
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(text.encode("ascii"))
    Path(path).write_bytes(buffer.getvalue())


@lru_cache(maxsize=2)
def load(path: str | Path = PATH) -> pd.DataFrame:
    """Return the reference (see :func:`build` for its columns).

    Raises
    ------
    DataError
        Where the file is missing or is not a reference.
    """
    statistic_types = dict.fromkeys(DECIMALS, "float32")
    try:
        table = pd.read_csv(path, dtype={"recovered": bool, **statistic_types})
        table["label"] = table["class"].map({name: i for i, name in enumerate(CLASSES)}).astype("int8")
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise DataError(
            f"{Path(path).name}: cannot be read as the reference of the known FER2013 ({error}); install "
            "the package anew, or make the file with `python -m fer_utils.data.reference ZIP RECOVERED`"
        ) from error
    return table.drop(columns="class")


def main(argv: list[str] | None = None) -> int:
    """Make the reference from Kaggle's zip; see the module's docstring."""
    from fer_utils.data import readers  # only this command reads images

    parser = argparse.ArgumentParser(prog="python -m fer_utils.data.reference", description=main.__doc__)
    parser.add_argument("zip", help="the archive that Kaggle serves as msambare/fer2013")
    parser.add_argument("recovered", help="text file: one path a line, the images that need not match exactly")
    parser.add_argument("--out", default=PATH, help="file to write (default: the package's own)")
    arguments = parser.parse_args(argv)
    lines = Path(arguments.recovered).read_text(encoding="utf-8").split()
    recovered = {"/".join(PurePosixPath(line).parts[-2:]) for line in lines}
    reading = readers.read(Path(arguments.zip))
    classes = np.array(CLASSES)[reading.labels]
    ids = [f"{usage}/{name}/{file}" for usage, name, file in zip(reading.usage, classes, reading.names, strict=True)]
    reference = build(reading.images, reading.labels, reading.usage, ids, recovered)
    found = int(reference["recovered"].sum())
    if found != len(recovered):
        raise DataError(
            f"{Path(arguments.recovered).name}: {found} of its {len(recovered)} names are in "
            f"{Path(arguments.zip).name}; they must all be, as <class>/<name>"
        )
    save(reference, arguments.out)
    print(f"{arguments.out}: {len(reference)} images, {found} of them recovered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
