"""From arrays to shuffled, augmented batches, the same ones whether or not a training was interrupted."""

import math

import tensorflow as tf

from fer_utils.constants import CLASSES
from fer_utils.training import augmentation


def steps_per_epoch(n_images, batch_size):
    """Batches in an epoch; the last may be smaller."""
    return math.ceil(n_images / batch_size)


def training_batches(images, labels, *, batch_size, seed, settings, first_epoch, epochs, ahead):
    """Batches for ``Model.fit`` from one epoch to the last.

    Order and augmentation depend on seed and epoch alone, so a training that goes on at epoch 7 sees what it
    would have seen without the interruption.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
        Training images.
    labels : ndarray of int, shape (n,)
        Labels in 0..6.
    batch_size : int
        Images in a batch.
    seed : int
        Random seed.
    settings : dict
        Augmentation, see `fer_utils.training.augmentation.check`.
    first_epoch, epochs : int
        The first epoch to give (from 0) and the number after the last.
    ahead : bool
        Make batches while the network trains. It pays where a GPU trains; a CPU's threads disturb each other more than
        that gains, and half a millisecond between two steps costs less.

    Returns
    -------
    tf.data.Dataset
        Of float32 images (b, 48, 48, 1) in 0..255 and float32 one-hot labels (b, 7).
    """
    settings = augmentation.check(settings)
    with tf.device("CPU"):
        pixels = tf.constant(images)[..., tf.newaxis]
        targets = tf.one_hot(labels, len(CLASSES))

    n, size = images.shape[:2]

    def one_epoch(epoch):
        epoch_seed = tf.random.experimental.stateless_fold_in(tf.constant([seed, 2013]), tf.cast(epoch, tf.int32))
        order = tf.random.experimental.stateless_shuffle(tf.range(n), epoch_seed)
        # All at once: drawn batch by batch they take half as long as the augmentation itself.
        rows = augmentation.transforms(n, size, tf.random.experimental.stateless_fold_in(epoch_seed, 1), settings)

        def batch(first):
            index = order[first : first + batch_size]
            return augmentation.augment(tf.gather(pixels, index), tf.gather(rows, index)), tf.gather(targets, index)

        return tf.data.Dataset.range(0, n, batch_size).map(
            batch, num_parallel_calls=tf.data.AUTOTUNE if ahead else None
        )

    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch)
    return batches.prefetch(tf.data.AUTOTUNE) if ahead else batches
