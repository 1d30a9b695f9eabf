"""Test images that nearly repeat a training image: the same picture cropped, scaled or stamped a little differently.

A perceptual hash proposes pairs, the pixels decide. Equal pixels are `fer_utils.data.audit`'s subject.
"""

import numpy as np
import pandas as pd
from scipy.fft import dctn

#: Bits of 64 in which two hashes may differ for the pixels to be compared at all.
MOST_BITS = 10

#: Correlation of the pixels from which on two images count as one picture: pairs of FER2013 looked at above it all were
#: one, a little below it not all.
LEAST_CORRELATION = 0.92

CHUNK = 256


def perceptual_hash(images):
    """Hash images by the signs of their low frequencies (pHash): uint64, shape (n,).

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    """
    low = dctn(images.astype(np.float32), axes=(1, 2), norm="ortho")[:, :9, :9].reshape(len(images), -1)[:, 1:65]
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def standardised(images):
    """Images with mean 0 and standard deviation 1, or 0 throughout where there is hardly any contrast."""
    images = images.astype(np.float32) - images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return images / np.maximum(images.std(axis=(1, 2), keepdims=True), 1)


def near_duplicates(images, usage):
    """Find test images that nearly repeat a training image.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    usage : ndarray of str, shape (n,)

    Returns
    -------
    DataFrame
        One row per pair: ``test``, ``training`` (positions), ``bits`` (in which their hashes differ), ``correlation``
        (of their pixels) and ``equal`` (pixel by pixel).
    """
    hashes = perceptual_hash(images)
    training, test = np.flatnonzero(usage == "Training"), np.flatnonzero(usage != "Training")
    pairs = [np.empty((0, 3), dtype=np.int64)]
    for begin in range(0, len(test), CHUNK):
        mine = test[begin : begin + CHUNK]
        bits = np.bitwise_count(hashes[mine, None] ^ hashes[None, training])
        i, j = np.nonzero(bits <= MOST_BITS)
        pairs.append(np.column_stack([mine[i], training[j], bits[i, j]]))
    table = pd.DataFrame(np.concatenate(pairs), columns=["test", "training", "bits"])
    first, second = images[table["test"]], images[table["training"]]
    table["correlation"] = (standardised(first) * standardised(second)).mean(axis=(1, 2))
    table["equal"] = (first == second).all(axis=(1, 2))
    return table[(table["correlation"] >= LEAST_CORRELATION) | table["equal"]].reset_index(drop=True)


def count(images, usage):
    """Count test images that nearly, and not exactly, repeat a training image.

    Returns
    -------
    dict
        ``n_near_test_in_train``.
    """
    table = near_duplicates(images, usage)
    exact = table.loc[table["equal"], "test"]
    return {"n_near_test_in_train": int(table.loc[~table["test"].isin(exact), "test"].nunique())}
