"""Make the reference of the known FER2013: ``python -m fer_utils.data.reference fer2013.zip recovered.txt``.

``recovered.txt`` names, one path a line, the images whose exact pixels are not known (they were recovered from a
resized copy); a comparison must not expect those to match to the last bit.
"""

import argparse
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import identity
from fer_utils.errors import DataError


def build(images: np.ndarray, labels: np.ndarray, usage: np.ndarray, names: np.ndarray, recovered=()) -> pd.DataFrame:
    """Return the table that the reference's file holds: one row per image, sorted by usage, label and number.

    File names are ``<usage>_<number>.jpg``, as Kaggle's are; `recovered` names images that need not match exactly, as
    ``<class>/<file name>``. Statistics (of the sharpness its root) and products are in whole steps.
    """
    table = identity.statistics(images).assign(sharpness=lambda t: np.sqrt(t["sharpness"]))
    table = (table / identity.STATISTIC_STEP).round().astype(np.int16)
    rounded = np.rint(identity.products(images) / identity.PRODUCT_STEP).astype(np.int16)
    numbers = [PurePosixPath(name).stem.removeprefix(f"{part}_") for name, part in zip(names, usage, strict=True)]
    table = table.join(pd.DataFrame(rounded, columns=identity.PRODUCTS)).assign(
        usage=pd.Categorical(usage, USAGES, ordered=True),
        label=np.asarray(labels).astype(np.int8),
        number=np.array(numbers).astype(np.int32),
        pixel_hash=[bytes.fromhex(text[: identity.HASH_DIGITS]) for text in identity.pixel_hash(images)],
        recovered=[f"{CLASSES[k]}/{name}" in recovered for k, name in zip(labels, names, strict=True)],
    )
    return table.sort_values(["usage", "label", "number"], ignore_index=True)


def save(table: pd.DataFrame, path: Path) -> None:
    """Write a table of `build`; :func:`fer_utils.data.identity.load_reference` reads it."""
    packed = pa.Table.from_pandas(table, preserve_index=False)
    at = packed.column_names.index("pixel_hash")
    packed = packed.set_column(at, "pixel_hash", packed["pixel_hash"].cast(pa.binary(identity.HASH_DIGITS // 2)))
    repeated = [name for name in packed.column_names if name not in ("number", "pixel_hash")]
    options = {"compression": "brotli", "compression_level": 11, "column_encoding": {"number": "DELTA_BINARY_PACKED"}}
    pq.write_table(packed, path, use_dictionary=repeated, **options)


def main(argv=None) -> int:
    """Make the reference from Kaggle's zip."""
    from fer_utils.data import readers  # only this command reads images

    parser = argparse.ArgumentParser(prog="python -m fer_utils.data.reference", description=main.__doc__)
    parser.add_argument("zip", type=Path, help="the archive that Kaggle serves as msambare/fer2013")
    parser.add_argument("recovered", type=Path, help="text file: the images that need not match exactly, a path a line")
    parser.add_argument("--out", type=Path, default=identity.REFERENCE, help="file to write")
    options = parser.parse_args(argv)
    lines = options.recovered.read_text(encoding="utf-8").split()
    recovered = {"/".join(PurePosixPath(line).parts[-2:]) for line in lines}
    reading = readers.read(options.zip)
    usage = [name.split("_")[0] for name in reading.names]
    table = build(reading.images, reading.labels, usage, reading.names, recovered)
    marked = int(table["recovered"].sum())
    if marked != len(recovered):
        raise DataError(
            f"{options.recovered.name}: {marked} of its {len(recovered)} names are in {options.zip.name}; "
            "they must all be, as <class>/<name>"
        )
    save(table, options.out)
    print(f"{options.out}: {len(table)} images, {marked} of them recovered, {options.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
