"""What can be said of an image without looking at it: a hash of its pixels and four statistics."""

import hashlib

import numpy as np
import pandas as pd

#: Images handled at once; 2,048 of them as float32 take 19 MB.
CHUNK = 2048


def pixel_hash(images: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each image's decoded pixels.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)

    Returns
    -------
    ndarray of str, shape (n,)
        16 hexadecimal digits: BLAKE2b with an 8-byte digest over the pixels row by row. Among 36,000
        different images the chance that any two share a hash is below 1 in 10 billion.
    """
    return np.array(
        [hashlib.blake2b(np.ascontiguousarray(image), digest_size=8).hexdigest() for image in images],
        dtype="U16",
    )


def sharpness(images: np.ndarray) -> np.ndarray:
    """Return the variance of each image's Laplacian, the usual measure of focus.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)

    Returns
    -------
    ndarray of float32, shape (n,)
        0 for a flat image; a sharp face of 48x48 pixels has about 2,000. The Laplacian is the 4-neighbour
        one, taken on the inner pixels only, so that no rule for the border is needed.

    References
    ----------
    Pech-Pacheco et al. (2000), Diatom autofocusing in brightfield microscopy.
    """
    return statistics(images)["sharpness"].to_numpy()


def _chunk_statistics(images: np.ndarray) -> np.ndarray:
    x = images.astype(np.float32)
    n, _, width = x.shape
    inner = x[:, 1:-1, 1:-1]
    laplacian = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:] - 4 * inner
    left, right = x[:, :, : width // 2], x[:, :, width - width // 2 :]
    return np.column_stack(
        [
            x.mean(axis=(1, 2)),
            x.reshape(n, -1).std(axis=1),
            laplacian.reshape(n, -1).var(axis=1),
            left.mean(axis=(1, 2)) - right.mean(axis=(1, 2)),
        ]
    )


def statistics(images: np.ndarray) -> pd.DataFrame:
    """Return brightness, contrast, sharpness and left-right balance of each image.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)

    Returns
    -------
    DataFrame of float32, n rows
        ``mean`` and ``std`` in grey levels (0 to 255), ``sharpness`` (see :func:`sharpness`), and
        ``left_right``: the left half's mean less the right half's, which changes sign in a mirrored image
        where the others stay.
    """
    columns = ["mean", "std", "sharpness", "left_right"]
    chunks = [_chunk_statistics(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
    values = np.concatenate(chunks) if chunks else np.empty((0, len(columns)))
    return pd.DataFrame(values.astype(np.float32), columns=columns)


def image_table(images: np.ndarray, labels: np.ndarray, usage: np.ndarray, ids: np.ndarray) -> pd.DataFrame:
    """Return the layout of ``images.parquet``: one row an image.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    labels : ndarray of int, shape (n,)
        Index into :data:`fer_utils.constants.CLASSES`.
    usage, ids : ndarray of str, shape (n,)

    Returns
    -------
    DataFrame
        Columns id, usage (str), label (int8), pixel_hash (16 hexadecimal digits), mean, std, sharpness
        (float32).
    """
    table = pd.DataFrame(
        {
            "id": np.asarray(ids).astype(str),
            "usage": np.asarray(usage).astype(str),
            "label": np.asarray(labels).astype(np.int8),
            "pixel_hash": pixel_hash(images),
        }
    )
    return table.join(statistics(images)[["mean", "std", "sharpness"]])
