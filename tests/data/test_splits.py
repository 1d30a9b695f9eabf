import numpy as np
import pytest

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data.dataset import Dataset
from fer_utils.data.splits import first_per_class, split
from fer_utils.errors import ConfigError


@pytest.fixture(scope="module")
def dataset():
    """5 training images of each class, 3 and 2 test images; disgust has 1 in each part."""
    cells = [
        (usage, label)
        for usage, n in zip(USAGES, (5, 3, 2), strict=True)
        for label, name in enumerate(CLASSES)
        for _ in range(1 if name == "disgust" else n)
    ]
    usage, labels = np.array([u for u, _ in cells]), np.array([k for _, k in cells])
    images = np.zeros((len(cells), 48, 48), np.uint8)
    return Dataset(images, labels, usage, np.arange(len(cells)).astype(str), "synthetic", {})


def test_sound_protocol(dataset):
    s = split(dataset)
    assert s.protocol == "sound"
    assert list(s.train) == list(range(31))  # 6 classes of 5, and 1
    assert list(s.public) == list(range(31, 50))
    assert list(s.private) == list(range(50, 63))
    assert list(s.validation) == list(s.public)
    assert list(s.test) == list(range(31, 63))


def test_thesis_protocol_validates_on_what_it_tests(dataset):
    s = split(dataset, "thesis")
    assert list(s.validation) == list(s.test) == list(range(31, 63))
    assert list(s.train) == list(split(dataset).train)
    assert list(s.public) == list(split(dataset).public)


def test_subset_takes_the_first_of_each_class(dataset):
    s = split(dataset, images_per_class=2, test_images_per_class=1)
    # Training: classes start at 0, 5 (disgust, one image), 6, 11, 16, 21, 26.
    assert list(s.train) == [0, 1, 5, 6, 7, 11, 12, 16, 17, 21, 22, 26, 27]
    assert list(s.public) == [31, 34, 35, 38, 41, 44, 47]
    assert list(s.private) == [50, 52, 53, 55, 57, 59, 61]
    assert list(s.test) == sorted([*s.public, *s.private])
    assert list(split(dataset, images_per_class=2).test) == list(split(dataset).test)


def test_more_than_there_are_takes_all(dataset):
    s = split(dataset, images_per_class=1000, test_images_per_class=1000)
    assert len(s.train) == 31 and len(s.test) == 32


def test_smaller_subsets_lie_in_larger_ones(dataset):
    sizes = [set(split(dataset, images_per_class=n).train) for n in (1, 2, 4, 0)]
    assert all(small < large for small, large in zip(sizes, sizes[1:], strict=False))


def test_first_per_class_of_a_selection(dataset):
    assert list(first_per_class(dataset, np.array([49, 3, 62, 4, 2]), 1)) == [2, 49, 62]
    assert list(first_per_class(dataset, np.array([4, 3]), 0)) == [3, 4]


@pytest.mark.parametrize("protocol", ["", "Sound", "80/20", None])
def test_unknown_protocol(dataset, protocol):
    with pytest.raises(ConfigError, match="sound, thesis"):
        split(dataset, protocol)


@pytest.mark.parametrize("number", [-1, 1.5])
def test_numbers_that_are_none(dataset, number):
    with pytest.raises(ConfigError, match="whole number"):
        split(dataset, images_per_class=number)
    with pytest.raises(ConfigError, match="whole number"):
        split(dataset, test_images_per_class=number)
