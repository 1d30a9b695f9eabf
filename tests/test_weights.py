"""Initial weights: what was asked for, what was used, and why."""

import keras
import numpy as np
import pytest

from fer_utils import weights
from fer_utils.errors import ConfigError


def tiny(include_top, weights, input_shape):
    """Stand in for a builder of keras.applications."""
    network = keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(2, 3, name="only")])
    if weights == "imagenet":
        raise Exception("URL fetch failure on https://example.org/weights.h5")
    if weights:
        network.load_weights(weights)
    return network


def test_none_is_random_and_repeats_with_the_seed():
    values = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        network, record = weights.backbone(tiny, "none", input_shape=(8, 8, 3))
        values.append(network.get_weights()[0])
    np.testing.assert_array_equal(*values)
    assert record == {"requested": "none", "used": "none", "sha256": None, "reason": None}


def test_weights_that_cannot_be_had_fall_back_to_what_none_gives_and_say_why():
    keras.utils.set_random_seed(5)
    expected, _ = weights.backbone(tiny, "none", input_shape=(8, 8, 3))
    keras.utils.set_random_seed(5)
    network, record = weights.backbone(tiny, "imagenet", input_shape=(8, 8, 3))
    assert record["requested"] == "imagenet" and record["used"] == "none"
    assert "URL fetch failure" in record["reason"]
    np.testing.assert_array_equal(network.get_weights()[0], expected.get_weights()[0])


def test_a_file_is_loaded_and_its_values_hashed(tmp_path):
    source, _ = weights.backbone(tiny, "none", input_shape=(8, 8, 3))
    source.save_weights(tmp_path / "mine.weights.h5")
    network, record = weights.backbone(tiny, str(tmp_path / "mine.weights.h5"), input_shape=(8, 8, 3))
    np.testing.assert_array_equal(network.get_weights()[0], source.get_weights()[0])
    assert record["used"] == "path" and record["requested"] == "mine.weights.h5"
    assert record["sha256"] == weights.digest(source)


def test_a_file_that_is_not_there_or_does_not_fit_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.h5"):
        weights.backbone(tiny, str(tmp_path / "nowhere.h5"), input_shape=(8, 8, 3))
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ConfigError, match="other.weights.h5"):
        weights.backbone(tiny, str(tmp_path / "other.weights.h5"), input_shape=(8, 8, 3))


def test_the_servers_timeout_is_set_back():
    import socket

    before = socket.getdefaulttimeout()
    with weights.patience(3):
        assert socket.getdefaulttimeout() == 3
    assert socket.getdefaulttimeout() == before
