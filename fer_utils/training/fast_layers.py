"""The same layers, the same Adam and the same training step, in fewer operations on a CPU.

Keras 3 builds batch normalisation and Adam from a dozen operations each; TensorFlow has one fused operation for each.
The gradients that TensorFlow composes go over the images more often than they need to, and more often still where the
size of the batch is unknown. What is computed is the same by definition and differs in the last digits only: the tests
compare each operation with Keras's own.

Only a computation is replaced, on the instance: class, name, weights, configuration and the saved files stay Keras's,
so that a trained network loads without this package.
"""

import collections
import functools

import keras
import tensorflow as tf

from fer_utils.training import fast_convolutions as fast


def accelerate(network):
    """Let a compiled network compute with faster operations, in training and in prediction.

    Parameters
    ----------
    network : keras.Model
        Compiled. Layers and optimizers without a faster form stay as they are, and on a GPU everything does.

    Returns
    -------
    list of str
        What was replaced, for the record, for example ``["Adam, fused", "BatchNormalization, fused (8)"]``.
    """
    if tf.config.get_visible_devices("GPU"):
        return []
    used = [f"{name} ({n})" for name, n in replace_computations(network).items()]
    # By exact type here and below: a subclass may mean something else.
    if type(network.optimizer) is keras.optimizers.Adam and not network.optimizer.amsgrad:
        fuse(network.optimizer)
        used = ["Adam, fused", *used]
    # XLA pays on a GPU and slows training on a CPU.
    network.jit_compile = False
    network.train_function = train_function(network)
    # The metrics make their variables when first used; within the graph they would have it built twice.
    probabilities = tf.zeros((1, *network.output_shape[1:]))
    network.compute_metrics(None, probabilities, probabilities)
    network.reset_metrics()
    return [*used, "one graph per batch size"]


def set_batch_norm_momentum(network, momentum):
    """Set the momentum of all batch normalisation in a network, also in networks inside it.

    Parameters
    ----------
    network : keras.Model
    momentum : float
        Share of a running statistic that a batch leaves as it was; 0 keeps each layer's own.
    """
    for layer in walk(network) if momentum else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def replace_computations(network):
    """Give the layers of a network their faster computations; return how many of each kind."""
    replaced = collections.Counter()
    for layer in walk(network):
        for name, attribute, computation in faster(layer):
            setattr(layer, attribute, computation)
            replaced[name] += 1
    return replaced


def walk(network):
    """Yield the layers of a network and of the networks inside it."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from walk(layer)
        else:
            yield layer


def faster(layer):
    """Yield the faster computations of a layer: name, attribute to replace, computation."""
    kind = type(layer)
    if kind is keras.layers.BatchNormalization:
        if layer.axis in (-1, 3) and not layer.renorm and not layer.synchronized:
            yield "BatchNormalization, fused", "call", functools.partial(batch_normalization, layer)
    elif kind is keras.layers.Conv2D:
        simple = layer.groups == 1 and layer.dilation_rate == (1, 1) and layer.data_format == "channels_last"
        if simple and layer.kernel_size == (1, 1):
            computation = functools.partial(fast.pointwise_convolution, layer)
            yield "1x1 Conv2D, matrix product", "convolution_op", computation
        elif simple and layer.strides == (1, 1) and layer.padding == "same":
            yield "Conv2D, by size of image", "convolution_op", functools.partial(fast.convolution, layer)
    elif kind is keras.layers.DepthwiseConv2D:
        plain = layer.depth_multiplier == 1 and layer.dilation_rate == (1, 1) and layer.data_format == "channels_last"
        linear = not layer.use_bias and layer.activation is keras.activations.linear
        if plain and linear and layer.compute_dtype == "float32":
            computation = functools.partial(fast.small_depthwise_convolution, layer)
            yield "DepthwiseConv2D, by size of image", "call", computation
    elif kind is keras.layers.GlobalAveragePooling2D:
        if layer.compute_dtype == "float32":
            yield "GlobalAveragePooling2D, one sum", "call", functools.partial(average_pooling, layer)
    elif kind is keras.layers.Activation:
        if layer.activation is keras.activations.hard_silu:
            yield "hard_silu, fused", "call", hard_silu
    elif kind is keras.layers.UpSampling2D:
        # The notebooks' way to repeat the one channel of an image; Keras would transpose twice.
        nearest = layer.interpolation == "nearest" and layer.data_format == "channels_first"
        if nearest and layer.size[0] == 1 and layer.input.shape[-1] == 1:
            computation = functools.partial(tf.tile, multiples=(1, 1, 1, layer.size[1]))
            yield "UpSampling2D, tile", "call", computation


def batch_normalization(layer, inputs, training=None, mask=None):
    """Normalise a batch as ``keras.layers.BatchNormalization.call`` does; masks and other ranks are left to Keras."""
    if not (training and layer.trainable) or len(inputs.shape) != 4 or mask is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    inputs = tf.cast(inputs, layer.compute_dtype)
    # The operation keeps the unbiased variance, Keras the biased one, (n - 1) / n of it; one value has no variance.
    biased = tf.maximum(1.0 - inputs.shape[-1] / tf.cast(tf.size(inputs), tf.float32), 0.5)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones_like(layer.moving_mean),
        offset=tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros_like(layer.moving_mean),
        mean=tf.convert_to_tensor(layer.moving_mean),
        variance=tf.convert_to_tensor(layer.moving_variance) / biased,
        epsilon=layer.epsilon,
        exponential_avg_factor=1.0 - layer.momentum,
        is_training=True,
    )
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance * biased)
    return outputs


def average_pooling(layer, inputs):
    """Average each channel over the image, as ``keras.layers.GlobalAveragePooling2D.call`` does.

    The sum is divided, so that its gradient is divided before it is spread over the pixels; that of a mean comes after.
    """
    height, width = inputs.shape[1:3]
    if None in (height, width) or layer.data_format != "channels_last":
        return type(layer).call(layer, inputs)
    return tf.reduce_sum(inputs, axis=(1, 2), keepdims=layer.keepdims) * (1.0 / (height * width))


@tf.custom_gradient
def hard_silu(inputs):
    """Compute ``x * relu6(x + 3) / 6``, MobileNet-V3's activation (Howard et al. 2019, section 5.2).

    The gradient goes over the images four times; the composed one goes five times.
    """
    shifted = inputs + 3.0
    gate = tf.nn.relu6(shifted) * (1.0 / 6.0)

    def gradient(upstream):
        return upstream * (gate + tf.raw_ops.Relu6Grad(gradients=inputs * (1.0 / 6.0), features=shifted))

    return inputs * gate, gradient


def train_function(network):
    """Return what ``Model.fit`` calls for each batch, with one graph per size of batch.

    Keras builds one graph for batches of any size. With one graph per size the size is static, which speeds up short
    steps; an epoch has two sizes.
    """
    step = tf.function(network.train_step, autograph=False)
    return lambda batches: step(next(batches))


def fuse(adam):
    """Let Keras's Adam update each variable with TensorFlow's one operation for it."""
    shared = {}
    apply = adam.apply

    def fused_apply(grads, trainable_variables=None):
        step = tf.cast(adam.iterations + 1, tf.float32)
        # What all variables share is computed once.
        shared["powers"] = tf.pow(adam.beta_1, step), tf.pow(adam.beta_2, step)
        return apply(grads, trainable_variables)

    def update_step(gradient, variable, learning_rate):
        index = adam._get_variable_index(variable)
        beta1_power, beta2_power = shared["powers"]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=adam._momentums[index].value.handle,
            v=adam._velocities[index].value.handle,
            beta1_power=tf.cast(beta1_power, variable.dtype),
            beta2_power=tf.cast(beta2_power, variable.dtype),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=adam.beta_1,
            beta2=adam.beta_2,
            epsilon=adam.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )

    adam.apply, adam.update_step = fused_apply, update_step
