"""From arrays to shuffled, augmented batches, the same ones whether or not a training was interrupted.

The thesis augments with ``ImageDataGenerator`` (section 3.2.5), which draws from global random state: an interrupted
training could not go on where it stopped, and parallel reading would change the result. Here the same transformations,
under the same names and with the same fill (the nearest edge pixel), are stateless: what happens to an image depends
on seed and epoch alone. Keras's augmentation layers keep a seed generator each, so they cannot resume exactly either.
"""

import tensorflow as tf

from fer_utils.constants import CLASSES

#: The settings of the augmentation, as ``ImageDataGenerator`` names them; 0 or False is off.
DEFAULTS = {
    "rotation_range": 0.0,
    "width_shift_range": 0.0,
    "height_shift_range": 0.0,
    "zoom_range": 0.0,
    "horizontal_flip": False,
}


def batches(run, augmentation, batch_size, first_epoch=0):
    """Batches for ``Model.fit`` from one epoch to the last, and a note of the augmentation in the run's record.

    Parameters
    ----------
    run : TrainingRun
        What `begin` returned.
    augmentation : dict
        Any of ``rotation_range`` (degrees), ``width_shift_range``, ``height_shift_range`` (parts of the image's size),
        ``zoom_range`` (0.1 means 0.9 to 1.1) and ``horizontal_flip`` (bool).
    batch_size : int
        Images in a batch; the last of an epoch may be smaller.
    first_epoch : int
        The first epoch to give, from 0.

    Returns
    -------
    tf.data.Dataset
        Of float32 images (b, 48, 48, 1) in 0..255 and float32 one-hot labels (b, 7).

    Raises
    ------
    ValueError
        If a setting is unknown or a range is negative.
    """
    run.augmentation = check(augmentation)
    return make_batches(
        run.dataset.images[run.split.train],
        run.dataset.labels[run.split.train],
        batch_size=batch_size,
        seed=run.parameters["seed"],
        settings=run.augmentation,
        epochs=range(first_epoch, run.parameters["epochs"]),
        # Making batches while the network trains pays with a GPU. The threads of a CPU disturb each other more than
        # that gains.
        ahead=run.device["kind"] == "GPU",
    )


def make_batches(images, labels, *, batch_size, seed, settings, epochs, ahead=False):
    """Shuffle and augment arrays: order and transformations depend on seed and epoch alone.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    labels : ndarray of int, shape (n,)
    batch_size, seed : int
    settings : dict
        As `check` returns it.
    epochs : range
        Which epochs to give.
    ahead : bool
        Make batches while the network trains.

    Returns
    -------
    tf.data.Dataset
        As of `batches`.
    """
    with tf.device("CPU"):
        pixels = tf.constant(images)[..., tf.newaxis]
        targets = tf.one_hot(labels, len(CLASSES))
    n, size = images.shape[:2]

    def one_epoch(epoch):
        epoch_seed = tf.random.experimental.stateless_fold_in(tf.constant([seed, 2013]), tf.cast(epoch, tf.int32))
        order = tf.random.experimental.stateless_shuffle(tf.range(n), epoch_seed)
        # Drawn all at once: batch by batch the draws take half as long as the augmentation itself.
        rows = transforms(n, size, tf.random.experimental.stateless_fold_in(epoch_seed, 1), settings)

        def batch(first):
            index = order[first : first + batch_size]
            return augment(tf.gather(pixels, index), tf.gather(rows, index)), tf.gather(targets, index)

        return tf.data.Dataset.range(0, n, batch_size).map(
            batch, num_parallel_calls=tf.data.AUTOTUNE if ahead else None
        )

    made = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(one_epoch)
    return made.prefetch(tf.data.AUTOTUNE) if ahead else made


def check(settings):
    """Return augmentation settings with the defaults filled in; a ValueError names a wrong one."""
    unknown = sorted(set(settings) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"unknown augmentation {', '.join(unknown)}; known are {', '.join(DEFAULTS)}")
    negative = [name for name, value in settings.items() if value < 0]
    if negative:
        raise ValueError(f"augmentation {', '.join(negative)} is negative; give the range's half width, 0 for none")
    return DEFAULTS | settings


def transforms(n, size, seed, settings):
    """Draw projective transforms for n images of a size, one row each as ``ImageProjectiveTransformV3`` takes them.

    A row (8 float32) maps output to input coordinates; without settings it leaves an image exactly as it is.
    """
    draws = tf.random.stateless_uniform((n, 6), seed, -1.0, 1.0)
    angle = draws[:, 0] * (settings["rotation_range"] * 3.141592653589793 / 180.0)
    shift_x = draws[:, 1] * (settings["width_shift_range"] * size)
    shift_y = draws[:, 2] * (settings["height_shift_range"] * size)
    scale_x = 1.0 + draws[:, 3] * settings["zoom_range"]
    scale_y = 1.0 + draws[:, 4] * settings["zoom_range"]
    mirror = tf.where(draws[:, 5] < 0.0, -1.0, 1.0) if settings["horizontal_flip"] else tf.ones_like(angle)

    a0 = mirror * scale_x * tf.cos(angle)
    a1 = -scale_y * tf.sin(angle)
    b0 = mirror * scale_x * tf.sin(angle)
    b1 = scale_y * tf.cos(angle)
    # Rotation, zoom and mirror keep the centre of the image where it is.
    centre = (size - 1) / 2.0
    a2 = centre - (a0 + a1) * centre + shift_x
    b2 = centre - (b0 + b1) * centre + shift_y
    zero = tf.zeros_like(angle)
    return tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


@tf.function(jit_compile=True)
def augment(images, rows):
    """Transform images (n, size, size, channels) by rows (n, 8); float32, in the range of the input.

    It is ``ImageProjectiveTransformV3`` with ``BILINEAR`` and ``NEAREST``: what comes in from outside is the nearest
    edge pixel. XLA makes it faster than that operation, which counts where a step is short.
    """
    size, channels = images.shape[2:]
    a0, a1, a2, b0, b1, b2 = (rows[:, i, tf.newaxis, tf.newaxis] for i in range(6))
    line = tf.range(size, dtype=tf.float32)
    x, y = line[tf.newaxis, tf.newaxis, :], line[tf.newaxis, :, tf.newaxis]
    last = size - 1
    x, y = (tf.clip_by_value(place, 0.0, last) for place in (a0 * x + a1 * y + a2, b0 * x + b1 * y + b2))
    left, top = tf.floor(x), tf.floor(y)
    right_part, lower_part = (x - left)[..., tf.newaxis], (y - top)[..., tf.newaxis]
    left, top = tf.cast(left, tf.int32), tf.cast(top, tf.int32)
    right, lower = tf.minimum(left + 1, last), tf.minimum(top + 1, last)
    first = tf.range(tf.shape(images)[0])[:, tf.newaxis, tf.newaxis] * size**2
    pixels = tf.reshape(images, (-1, channels))

    def at(row, column):
        return tf.cast(tf.gather(pixels, first + row * size + column), tf.float32)

    above = at(top, left) * (1.0 - right_part) + at(top, right) * right_part
    below = at(lower, left) * (1.0 - right_part) + at(lower, right) * right_part
    return above * (1.0 - lower_part) + below * lower_part
