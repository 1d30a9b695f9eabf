"""The same layers and the same Adam, computed with operations that are faster on a CPU.

Keras 3 composes batch normalisation, in float32 and of a dozen operations, and Adam of as many for each variable;
TensorFlow has one fused operation for either. Its convolutions lose time where an image has shrunk to a few pixels:
with 1x1 kernels, and in the gradient of bfloat16 kernels. Both are matrix products there. What is computed is the same
by definition and differs in the last digits only (the tests hold each against Keras's own).

Only a layer's computation is replaced, on the instance: class, name, weights, configuration and the saved files stay
Keras's, so that a trained network loads without this package.
"""

import functools

import keras
import tensorflow as tf

#: Up to so many pixels of an output, the kernel's gradient is quicker as one matrix product of bfloat16 patches.
SMALL = 36


def use(network):
    """Let a network compute with the faster operations, in training and in prediction.

    Parameters
    ----------
    network : keras.Model
        Layers that have no faster form stay as they are.
    """
    for layer in walk(network):
        # By exact type: a subclass may mean something else.
        if type(layer) is keras.layers.BatchNormalization and simple_batch_normalization(layer):
            layer.call = functools.partial(batch_normalization, layer)
        elif type(layer) is keras.layers.Conv2D and simple_convolution(layer):
            if layer.kernel_size == (1, 1):
                layer.convolution_op = functools.partial(pointwise_convolution, layer)
            elif layer.strides == (1, 1) and layer.padding == "same":
                layer.convolution_op = functools.partial(small_convolution, layer)


def walk(network):
    """Yield the layers of a network and of the networks inside it."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from walk(layer)
        else:
            yield layer


def simple_batch_normalization(layer):
    """Whether TensorFlow's fused operation means what the layer does."""
    return layer.axis in (-1, 3) and not layer.renorm and not layer.synchronized


def simple_convolution(layer):
    """Whether a convolution has neither groups nor holes, with the channels last."""
    return layer.groups == 1 and layer.dilation_rate == (1, 1) and layer.data_format == "channels_last"


def batch_normalization(layer, inputs, training=None, mask=None):
    """Normalise a batch as ``keras.layers.BatchNormalization.call`` does.

    Parameters
    ----------
    layer : keras.layers.BatchNormalization
        Built.
    inputs : tensor of float32, float16 or bfloat16, shape (n, height, width, channels)
        Anything but four dimensions is left to Keras.
    training : bool or None
        Use the batch's statistics and bring the running ones up to date, unless the layer is frozen.
    mask : tensor or None
        Left to Keras.

    Returns
    -------
    tensor of the layer's compute dtype, shape as the inputs'
    """
    if not (training and layer.trainable) or len(inputs.shape) != 4 or mask is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    inputs = tf.cast(inputs, layer.compute_dtype)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones_like(layer.moving_mean),
        offset=tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros_like(layer.moving_mean),
        mean=tf.zeros((0,)),
        variance=tf.zeros((0,)),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The operation gives the unbiased variance; Keras keeps the biased one.
    n = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
    variance *= (n - 1) / n
    for running, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        running.assign(running * layer.momentum + batch * (1.0 - layer.momentum))
    return outputs


def pointwise_convolution(layer, inputs, kernel):
    """Convolve with 1x1 kernels: one matrix product over all pixels.

    Parameters
    ----------
    layer : keras.layers.Conv2D
        With 1x1 kernels.
    inputs : tensor, shape (n, height, width, channels)
        Images.
    kernel : tensor, shape (1, 1, channels, filters)
        Weights.

    Returns
    -------
    tensor, shape (n, ceil(height / stride), ceil(width / stride), filters)
    """
    down, across = layer.strides
    if (down, across) != (1, 1):
        inputs = inputs[:, ::down, ::across]
    height, width, channels = inputs.shape[1:]
    pixels = tf.reshape(inputs, (-1, channels))
    return tf.reshape(tf.matmul(pixels, kernel[0, 0]), (-1, height, width, kernel.shape[-1]))


def small_convolution(layer, inputs, kernel):
    """Convolve; where the image is small, the kernel's gradient is a matrix product of the image's patches.

    Parameters
    ----------
    layer : keras.layers.Conv2D
        With stride 1 and ``padding="same"``.
    inputs : tensor, shape (n, height, width, channels)
        Images.
    kernel : tensor, shape (k, l, channels, filters)
        Weights.

    Returns
    -------
    tensor, shape (n, height, width, filters)
    """
    height, width, channels = inputs.shape[1:]
    rows, columns = kernel.shape[:2]
    if inputs.dtype != tf.bfloat16 or None in (height, width) or height * width > SMALL:
        return type(layer).convolution_op(layer, inputs, kernel)

    @tf.custom_gradient
    def convolve(inputs, kernel):
        def gradient(upstream):
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
            )
            above, left = (rows - 1) // 2, (columns - 1) // 2
            padded = tf.pad(inputs, [[0, 0], [above, rows - 1 - above], [left, columns - 1 - left], [0, 0]])
            patches = tf.concat(
                [padded[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)], axis=-1
            )
            to_kernel = tf.matmul(
                tf.reshape(patches, (-1, rows * columns * channels)),
                tf.reshape(upstream, (-1, kernel.shape[-1])),
                transpose_a=True,
            )
            return to_inputs, tf.reshape(to_kernel, kernel.shape)

        return tf.nn.conv2d(inputs, kernel, strides=1, padding="SAME"), gradient

    # A Keras variable, which the policy casts where it is converted.
    return convolve(inputs, tf.convert_to_tensor(kernel))


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam, each variable brought up to date by TensorFlow's one operation for it."""

    def update_step(self, gradient, variable, learning_rate):
        """Bring a variable and its moments up to date."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )
