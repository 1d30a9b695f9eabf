"""Batches and augmentation: the same whether or not a training was interrupted."""

import io

import numpy as np
import pytest
import tensorflow as tf
from conftest import encode
from PIL import Image

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data.identity import undo_fast_dct
from fer_utils.data.synthetic import make_faces
from fer_utils.training import pipeline

SETTINGS = {
    "rotation_range": 10,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "zoom_range": 0.1,
    "horizontal_flip": True,
}


def batches(first_epoch, epochs, settings=SETTINGS, seed=1, n=50, ahead=False):
    images = np.random.default_rng(0).integers(0, 256, (n, 48, 48), dtype=np.uint8)
    images[:, 0, 0] = np.arange(n)
    options = {"batch_size": 16, "seed": seed, "settings": pipeline.check(settings), "ahead": ahead}
    dataset = pipeline.make_batches(images, np.arange(n) % 7, epochs=range(first_epoch, epochs), **options)
    return [(x.numpy(), y.numpy()) for x, y in dataset]


def augment(images, seed, settings):
    images = tf.convert_to_tensor(images)
    rows = pipeline.transforms(len(images), images.shape[1], seed, pipeline.check(settings))
    return pipeline.augment(images, rows).numpy()


def test_a_later_start_gives_the_same_batches():
    # Made ahead of the training, as for a GPU, they are the same too.
    whole, rest = batches(0, 3), batches(2, 3, ahead=True)
    assert len(whole) == 3 * 4 and len(rest) == 4
    for (x, y), (x_rest, y_rest) in zip(whole[8:], rest, strict=True):
        np.testing.assert_array_equal(x, x_rest)
        np.testing.assert_array_equal(y, y_rest)


def test_each_epoch_holds_each_image_once_in_another_order():
    plain = batches(0, 2, settings={})
    orders = [np.concatenate([x[:, 0, 0, 0] for x, _ in plain[k : k + 4]]) for k in (0, 4)]
    for order in orders:
        assert sorted(order) == list(range(50))
    assert list(orders[0]) != list(orders[1])
    labels = np.concatenate([y.argmax(axis=1) for _, y in plain[:4]])
    np.testing.assert_array_equal(labels, orders[0].astype(int) % 7)
    assert [len(x) for x, _ in plain[:4]] == [16, 16, 16, 2]


def test_another_seed_gives_another_order():
    assert not np.array_equal(batches(0, 1, seed=1)[0][1], batches(0, 1, seed=2)[0][1])


def test_a_flip_alone_mirrors_or_keeps():
    images = tf.random.stateless_uniform((64, 48, 48, 1), (1, 2))
    flipped = augment(images, tf.constant([5, 6]), {"horizontal_flip": True})
    kept = [np.allclose(a, b, atol=1e-5) for a, b in zip(images.numpy(), flipped, strict=True)]
    mirrored = [np.allclose(a[:, ::-1], b, atol=1e-5) for a, b in zip(images.numpy(), flipped, strict=True)]
    assert all(np.logical_xor(kept, mirrored))
    assert 16 < sum(mirrored) < 48


def test_a_rotation_stays_within_its_range_and_keeps_the_centre():
    settings = pipeline.check({"rotation_range": 10})
    rows = pipeline.transforms(2000, 48, tf.constant([1, 1]), settings).numpy()
    angles = np.degrees(np.arctan2(rows[:, 3], rows[:, 0]))
    assert np.abs(angles).max() <= 10.0001 and np.abs(angles).max() > 9.5
    assert abs(angles.mean()) < 0.5
    centre = np.array([23.5, 23.5, 1])
    np.testing.assert_allclose(rows[:, :3] @ centre, 23.5, atol=1e-3)
    np.testing.assert_allclose(rows[:, 3:6] @ centre, 23.5, atol=1e-3)


def test_a_rotation_turns_as_scipy_does():
    from scipy.ndimage import rotate

    ramp = np.add.outer(np.arange(48.0), 3 * np.arange(48.0)).astype("float32")[None, ..., None]
    row = pipeline.transforms(1, 48, tf.constant([7, 7]), pipeline.check({"rotation_range": 20}))
    angle = np.degrees(np.arctan2(row[0, 3], row[0, 0]))
    ours = pipeline.augment(tf.constant(ramp), row).numpy()[0, ..., 0]
    theirs = rotate(ramp[0, ..., 0], angle, reshape=False, order=1, mode="nearest")
    # Inside, away from the corners that come from outside of the image.
    np.testing.assert_allclose(ours[12:36, 12:36], theirs[12:36, 12:36], atol=0.01)


def test_a_shift_moves_by_at_most_its_part_of_the_image():
    settings = pipeline.check({"width_shift_range": 0.1})
    rows = pipeline.transforms(1000, 48, tf.constant([2, 2]), settings).numpy()
    assert np.abs(rows[:, 2]).max() <= 4.8 and np.abs(rows[:, 2]).max() > 4.5
    assert np.abs(rows[:, 5]).max() < 1e-4


def test_values_stay_in_range_and_nothing_is_done_without_settings():
    images = tf.random.stateless_uniform((8, 48, 48, 1), (1, 2), 0, 255)
    out = augment(images, tf.constant([1, 2]), SETTINGS)
    assert out.min() >= 0 and out.max() <= 255
    np.testing.assert_array_equal(augment(images, tf.constant([1, 2]), {}), images)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", [(64, 48, 48, 1), (5, 31, 31, 3)])
def test_an_image_is_transformed_as_tensorflows_own_operation_does(shape, dtype):
    images = tf.cast(tf.random.stateless_uniform(shape, (1, 2), 0, 255), dtype)
    # Far enough that whole parts of an image come from outside.
    settings = pipeline.check(SETTINGS | {"rotation_range": 60, "width_shift_range": 0.6})
    rows = pipeline.transforms(shape[0], shape[1], tf.constant([3, 4]), settings)
    theirs = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, "float32"),
        transforms=rows,
        output_shape=shape[1:3],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
    # Of grey levels up to 255; places differ in float32's last digits.
    np.testing.assert_allclose(pipeline.augment(images, rows), theirs, atol=0.02)


@pytest.mark.parametrize("settings", [{"rotation": 10}, {"zoom_range": -0.1}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        pipeline.check(settings)


def test_what_identity_undoes_is_tensorflows_decoder():
    """A copy that it decoded is a known one."""
    faces = make_faces({usage: dict.fromkeys(CLASSES, 2) for usage in USAGES}, seed=4)[0]
    noise = np.random.default_rng(1).normal(0, 3, faces.shape)
    files = [encode(face, quality=95) for face in np.clip(faces + noise, 0, 255).astype(np.uint8)]
    accurate = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    fast = np.stack([tf.io.decode_jpeg(file).numpy()[..., 0] for file in files])
    assert np.sqrt(((fast - accurate.astype(float)) ** 2).mean()) > 1.2
    assert np.sqrt(((undo_fast_dct(fast) - accurate) ** 2).mean()) < 0.6
