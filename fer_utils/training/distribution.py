"""Several devices of one machine that train one network, through TensorFlow's ``MirroredStrategy``.

Each device holds the whole network and takes its share of every batch; the gradients are summed, so that a step is
one of the whole batch, as on one device. Left alone, Keras keeps that promise only where the shares are equal: it
counts a replica as a replica however many images it has, normalises each share by itself, draws the same dropout mask
for all, and stops at a first batch that cannot be split evenly. What is here mends that. A share without an image
there must not be: TensorFlow's convolution on a CPU gives it as many channels as came in.
"""

import functools
import math
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from fer_utils.errors import ConfigError
from fer_utils.training import fast_layers

#: What run.json and the report call it.
NAME = "MirroredStrategy, synchronised batch normalisation"

#: Images that are predicted at a time.
PREDICTED = 256


def choose(asked, resolved):
    """Return on how many devices to train: as asked, else as when the training began, else on all GPUs or the CPU.

    Parameters
    ----------
    asked : int
        0 for no wish.
    resolved : fer_utils.training.resolved.Resolved
        The number is noted there.

    Raises
    ------
    ConfigError
        If there are not as many GPUs. Where there is none, the processor can stand for any number.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    before = resolved.get("devices")
    devices = asked or before or max(gpus, 1)
    if asked < 0 or gpus and devices > gpus:
        raise ConfigError(
            f"devices is {asked}{f', and the training began on {before}' if before and not asked else ''}; TensorFlow "
            f"sees {gpus} GPU(s) here: expected 0 (all) to {gpus or 'any number, for which the processor stands'}"
        )
    resolved.keep("devices", devices)
    return devices


def prepare(devices):
    """Show TensorFlow as many GPUs, or split the processor into as many logical devices, before it computes anything.

    Raises
    ------
    ConfigError
        If TensorFlow runs in this process with another number.
    """
    gpus = tf.config.list_physical_devices("GPU")
    try:
        if gpus:
            tf.config.set_visible_devices(gpus[:devices], "GPU")
            return
        processor = tf.config.list_physical_devices("CPU")[0]
        if len(tf.config.get_logical_device_configuration(processor) or [None]) != devices:
            parts = [tf.config.LogicalDeviceConfiguration()] * devices
            tf.config.set_logical_device_configuration(processor, parts)
    except RuntimeError:
        raise ConfigError(
            f"devices is {devices}, and TensorFlow runs in this kernel with another number; restart the kernel"
        ) from None


@functools.cache
def mirrored(kind, devices):
    """Return the strategy for so many devices; one object in a process, since a network belongs to its own.

    Parameters
    ----------
    kind : {"CPU", "GPU"}
    devices : int
        2 or more, after `prepare`.
    """
    return tf.distribute.MirroredStrategy([f"{kind}:{n}" for n in range(devices)])


def share(batches, strategy):
    """Split each batch among the replicas, as evenly as it goes.

    Left to TensorFlow, 9 images on 8 devices become 2, 2, 2, 2, 1, 0, 0 and 0, and where it finds out the batch size
    it joins the last batch of an epoch and the first of the next.

    Parameters
    ----------
    batches : tf.data.Dataset
        Of images (b, 48, 48, 1) and one-hot labels (b, 7).
    strategy : tf.distribute.Strategy or None
        None leaves the batches whole.

    Returns
    -------
    tf.data.Dataset or tf.distribute.DistributedDataset
        For ``Model.fit``.
    """
    if strategy is None:
        return batches
    replicas = strategy.num_replicas_in_sync

    def split(images, labels):
        edges = tf.range(replicas + 1) * tf.shape(images)[0] // replicas
        shares = tf.data.Dataset.range(replicas)
        return shares.map(lambda n: tuple(part[edges[n] : edges[n + 1]] for part in (images, labels)))

    return strategy.distribute_datasets_from_function(lambda context: batches.flat_map(split).prefetch(2 * replicas))


def check_batches(images, batch_size, replicas):
    """Refuse batches of which a replica would get no image.

    Raises
    ------
    ConfigError
    """
    smallest = min(images, batch_size, images % batch_size or batch_size)
    if smallest < replicas:
        raise ConfigError(
            f"batch_size is {batch_size}, so that a batch of the {images:,} images has {smallest}, and each of "
            f"{replicas} devices needs one; expected another batch_size, or fewer devices"
        )


def predict(network, images):
    """Return a network's probabilities, as its ``predict`` does.

    Parameters
    ----------
    network : keras.Model
        Built in a strategy's scope or not.
    images : ndarray, shape (n, 48, 48, 1)

    Returns
    -------
    ndarray of float32, shape (n, 7)
    """
    n = len(images)
    if network.distribute_strategy.num_replicas_in_sync > 1:
        # Full batches only, so that each replica has a share.
        images = np.resize(images, (math.ceil(n / PREDICTED) * PREDICTED, *images.shape[1:]))
    return network.predict(images, batch_size=PREDICTED, verbose=0)[:n]


@tf.custom_gradient
def with_gradient_times(loss, factor):
    """Leave a loss as it is and multiply its gradient."""
    return loss, lambda upstream: (upstream * factor, None)


class SharedCrossentropy(keras.losses.CategoricalCrossentropy):
    """Categorical cross-entropy, averaged over a replica's share of a batch; its gradient counts by images.

    Keras adds the replicas' gradients and divides by the number of replicas. A share of 5 images beside one of 6 would
    weigh as much as it, and each of its images more.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Return the mean over the share."""
        loss = super().__call__(y_true, y_pred, sample_weight)
        replica = tf.distribute.get_replica_context()
        # Keras also calls it once outside the replicas, to see what it returns.
        if replica is None:
            return loss
        images = tf.cast(tf.shape(y_pred)[0], loss.dtype)
        together = replica.all_reduce(tf.distribute.ReduceOp.SUM, images)
        return with_gradient_times(loss, images * replica.num_replicas_in_sync / together)


def next_seed(generator, ordered=True):
    """Draw from a generator of Keras, of which each replica has a copy, another seed on each."""
    seed = type(generator).next(generator, ordered)
    replica = tf.distribute.get_replica_context()
    if replica is None:
        return seed
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(replica.replica_id_in_sync_group, seed.dtype))


def build(network, iterator=None, data_batch=None):
    """Let Keras make its metrics' variables; by itself it averages the shares of a batch, which must be equal for that.

    A batch of one image does as well: only shapes matter.
    """
    batch = [tf.zeros((1, *shape[1:])) for shape in (network.input_shape, network.output_shape)]
    with network.distribute_strategy.scope():
        network._symbolic_build(data_batch=tuple(batch))


@contextmanager
def training(network):
    """Let a network be trained by replicas as by one device, for the length of a ``with``.

    Afterwards it is as Keras made it, so that what is saved loads anywhere; on one device nothing is changed.

    Parameters
    ----------
    network : keras.Model
        Built and compiled in the strategy's scope, with a `SharedCrossentropy`.
    """
    if network.distribute_strategy.num_replicas_in_sync == 1:
        yield
        return
    layers = list(fast_layers.walk(network))
    normalizations = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    generators = [layer.seed_generator for layer in layers if getattr(layer, "seed_generator", None)]
    for layer in normalizations:
        layer.synchronized = True
    for generator in generators:
        generator.next = functools.partial(next_seed, generator)
    network._maybe_symbolic_build = functools.partial(build, network)
    try:
        yield
    finally:
        for layer in normalizations:
            layer.synchronized = False
        for generator in generators:
            del generator.next
        del network._maybe_symbolic_build
