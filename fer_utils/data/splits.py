"""Which images train, validate and test: two protocols, and subsets of them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_utils.constants import USAGES
from fer_utils.data.dataset import Dataset
from fer_utils.errors import ConfigError

#: ``sound``: PublicTest validates, PrivateTest gives the final figure. ``thesis``: the 20% is both (chapter 5).
PROTOCOLS = ("sound", "thesis")


@dataclass(frozen=True)
class Split:
    """Positions in a dataset, each ascending.

    Attributes
    ----------
    protocol : {"sound", "thesis"}
    train : ndarray of int64
        Training images.
    validation : ndarray of int64
        What the best epoch and the learning rate are chosen by: `public` ("sound") or `test` ("thesis").
    public, private : ndarray of int64
        PublicTest and PrivateTest images.
    test : ndarray of int64
        Both together; with all images, the thesis's test set.
    """

    protocol: str
    train: np.ndarray
    validation: np.ndarray
    public: np.ndarray
    private: np.ndarray
    test: np.ndarray


def split(
    dataset: Dataset, protocol: str = "sound", images_per_class: int = 0, test_images_per_class: int = 0
) -> Split:
    """Split a dataset, or a subset of it.

    Parameters
    ----------
    dataset : Dataset
    protocol : {"sound", "thesis"}
    images_per_class : int
        Training images of each class; 0 takes all. See :func:`first_per_class`.
    test_images_per_class : int
        The same for PublicTest and for PrivateTest, for each of them.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        If the protocol is unknown or a number is negative.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}")
    train, public, private = (
        first_per_class(dataset, np.flatnonzero(dataset.usage == usage), n)
        for usage, n in zip(USAGES, (images_per_class, test_images_per_class, test_images_per_class), strict=True)
    )
    test = np.sort(np.concatenate([public, private]))
    sound = protocol == "sound"
    return Split(
        protocol=protocol,
        train=train,
        validation=public if sound else test,
        public=public,
        private=private,
        test=test,
    )


def first_per_class(dataset: Dataset, positions: np.ndarray, n: int) -> np.ndarray:
    """Take a subset: the first images of each class in each usage.

    Within a class the dataset is sorted by a hash of the pixels, so the first images are as good as drawn at
    random. They are the same in every run, for every seed and whatever form the data came in, and a smaller subset
    is part of a larger one.

    `n` is the number of images per class and usage; a class that has fewer gives all it has, and 0 takes all.
    """
    if int(n) != n or n < 0:
        raise ConfigError(f"images per class is {n!r}; expected a whole number, 0 for all")
    positions = np.sort(positions)
    if n == 0:
        return positions
    cells = pd.DataFrame({"usage": dataset.usage[positions], "label": dataset.labels[positions]})
    return positions[cells.groupby(["usage", "label"]).cumcount().to_numpy() < n]
