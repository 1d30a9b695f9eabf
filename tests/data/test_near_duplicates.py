"""Near-duplicates are found whatever was done to them, and different faces are not."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import shift

from fer_utils.data import near_duplicates


def face(seed):
    """A picture of its own: smooth random shapes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC))


def scaled(image):
    return np.asarray(Image.fromarray(image).resize((44, 44)).resize((48, 48)))


@pytest.mark.parametrize(
    ("change", "near"),
    [
        (lambda image: np.clip(image * 0.7 + 20, 0, 255), True),
        (lambda image: shift(image, (0, 0.5), mode="nearest"), True),
        (scaled, True),
        (lambda image: image, False),  # equal, which is another count
        (lambda image: image[::-1], False),
        (lambda image: face(99), False),
    ],
)
def test_a_changed_picture_is_found(change, near):
    images = np.stack([face(seed) for seed in range(20)] + [change(face(3)).astype(np.uint8)])
    usage = np.array(["Training"] * 20 + ["PublicTest"])
    assert near_duplicates.count(images, usage) == {"n_near_test_in_train": int(near)}


def test_images_without_contrast_are_no_pair():
    images = np.stack([np.full((48, 48), value, np.uint8) for value in (10, 200)])
    assert near_duplicates.count(images, np.array(["Training", "PrivateTest"])) == {"n_near_test_in_train": 0}
