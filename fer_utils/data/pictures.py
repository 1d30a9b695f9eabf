"""Numbers that describe an image, and the reference of the known FER2013 in these numbers.

The reference (``fer2013_reference.parquet``, made by :mod:`fer_utils.data.reference`) holds for each image a hash of
the pixels, mean, standard deviation, sharpness and its products with 16 fixed random patterns. A difference of two
images changes those products by about its RMS, wherever in the image it lies, and no image can be rebuilt from
16 numbers (Johnson and Lindenstrauss, 1984).
"""

import hashlib
import io
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_utils.constants import IMAGE_SIZE
from fer_utils.errors import DataError

REFERENCE = Path(__file__).with_name("fer2013_reference.parquet")

#: Steps in which the reference stores means and standard deviations, and products with the patterns.
STATISTIC_STEP, PRODUCT_STEP = 0.5, 2.0
#: So many hexadecimal digits of a hash the reference stores: of Kaggle's pixels, and of those that TensorFlow's
#: default decoder (libjpeg's fast transform) makes of the same files, which differ by up to 4 grey levels.
HASH_DIGITS, OTHER_DIGITS = 12, 4

JPEG_QUALITY = 95  # OpenCV's default, with which Kaggle's files were made from the competition's pixels
_SIZE = IMAGE_SIZE**2
_BITS = np.frombuffer(hashlib.shake_256(b"fer2013").digest(16 * _SIZE // 8), np.uint8)
_SIGNS = np.unpackbits(_BITS).reshape(16, _SIZE).astype(np.float32) * 2 - 1
#: 16 patterns of sum 0 (so that brightness does not count) and length 1.
PATTERNS = (_SIGNS - _SIGNS.mean(axis=1, keepdims=True)) / IMAGE_SIZE
PRODUCTS = [f"product{i}" for i in range(len(PATTERNS))]

#: What turns a copy's images back, by what had been done to them.
ORIENTATIONS = {
    "": lambda x: x,
    "mirrored": lambda x: x[:, :, ::-1],
    "upside down": lambda x: x[:, ::-1],
    "rotated by 180 degrees": lambda x: x[:, ::-1, ::-1],
    "rotated by 90 degrees clockwise": lambda x: np.rot90(x, 1, (1, 2)),
    "rotated by 90 degrees counter-clockwise": lambda x: np.rot90(x, 3, (1, 2)),
    "transposed": lambda x: x.transpose(0, 2, 1),
    "transposed along the other diagonal": lambda x: x[:, ::-1, ::-1].transpose(0, 2, 1),
}


def pixel_hash(images: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each image's pixels, as 16 hexadecimal digits: BLAKE2b over the rows.

    Among 36,000 different images the chance that any two share a hash is below 1 in 10 billion.
    """
    digests = [hashlib.blake2b(np.ascontiguousarray(image), digest_size=8).hexdigest() for image in images]
    return np.array(digests, dtype="U16")


def statistics(images: np.ndarray) -> pd.DataFrame:
    """Return ``mean`` and ``std`` of each image in grey levels, and ``sharpness``.

    That is the variance of the 4-neighbour Laplacian on the inner pixels: 0 for a flat image, about 2,000 for a sharp
    face of 48x48 pixels (Pech-Pacheco et al., 2000, Diatom autofocusing in brightfield microscopy).
    """

    def of_chunk(x):
        inner = x[:, 1:-1, 1:-1]
        laplacian = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:] - 4 * inner
        return np.column_stack([x.mean(axis=(1, 2)), x.std(axis=(1, 2)), laplacian.var(axis=(1, 2))])

    return pd.DataFrame(_in_chunks(of_chunk, images, 3), columns=["mean", "std", "sharpness"])


def products(images: np.ndarray) -> np.ndarray:
    """Return the products of 48x48 images with ``PATTERNS``: ndarray of float32, shape (n, 16)."""
    return _in_chunks(lambda x: x.reshape(-1, _SIZE) @ PATTERNS.T, images, len(PATTERNS))


def _in_chunks(function, images, columns, size=2048):
    """Apply a function to images as float32, some at a time, since all of them take 330 MB."""
    chunks = [function(np.asarray(images[i : i + size], np.float32)) for i in range(0, len(images), size)]
    return np.concatenate(chunks).astype(np.float32) if chunks else np.empty((0, columns), np.float32)


def to_jpeg(images: np.ndarray, quality: int = JPEG_QUALITY) -> np.ndarray:
    """Return images as they come back from a JPEG.

    At quality 95 this turns the competition's pixels into those of Kaggle's files, since Pillow's encoder and
    OpenCV's both are libjpeg.
    """
    decoded = np.empty_like(images)
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as file:
            decoded[i] = np.asarray(file)
    return decoded


@cache
def load_reference(path: Path) -> pd.DataFrame:
    """Return the reference; its columns are those of :func:`fer_utils.data.reference.build`, as numbers."""
    try:
        table = pd.read_parquet(path)
        for name in ("pixel_hash", "other_decoder"):
            table[name] = [digest.hex() for digest in table[name]]
        table["name"] = table["usage"].astype(str) + "_" + table.pop("number").astype(str)
        for columns, step in ((["mean", "std"], STATISTIC_STEP), (PRODUCTS, PRODUCT_STEP)):
            table[columns] = table[columns].astype(np.float32) * step
        table["sharpness"] = (table["sharpness"].astype(np.float32) * STATISTIC_STEP) ** 2
        return table.astype({"usage": str})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path.name}: cannot be read as the reference of the known FER2013 ({error}); install the package "
            "anew, or make the file with `python -m fer_utils.data.reference ZIP RECOVERED`"
        ) from error


def nearest(rows: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of products the most similar known one, and how they correlate: negative if inverted."""
    rows, known = _normalised(rows), _normalised(known).T
    index, correlation = np.zeros(len(rows), int), np.zeros(len(rows), np.float32)
    for i in range(0, len(rows), 256):
        scores = rows[i : i + 256] @ known
        best = np.abs(scores).argmax(axis=1)
        index[i : i + 256], correlation[i : i + 256] = best, scores[np.arange(len(best)), best]
    return index, correlation


def similarity(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the correlation of each row of products with its partner: ndarray of float, shape (n,)."""
    return (_normalised(rows) * _normalised(known)).sum(axis=1)


def _normalised(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def rms(rows: np.ndarray, means: np.ndarray, known: pd.DataFrame) -> np.ndarray:
    """Estimate the RMS difference, in grey levels, between images and their rows of the reference.

    From 16 products each (and the means), so known to about a fifth: ndarray of float, shape (n,).
    """
    rounding = PRODUCT_STEP**2 / 12
    pattern = ((rows - known[PRODUCTS].to_numpy()) ** 2).mean(axis=1) - rounding
    shift = np.maximum(np.abs(means - known["mean"].to_numpy()) - STATISTIC_STEP / 2, 0)
    return np.sqrt(np.maximum(pattern, 0) + shift**2)
