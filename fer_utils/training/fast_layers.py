"""The same layers, the same Adam and the same training step, computed in ways that are faster on a CPU.

Keras 3 composes batch normalisation, in float32 and of a dozen operations, and Adam of as many for each variable;
TensorFlow has one fused operation for either. Its convolutions lose time where an image has shrunk to a few pixels:
with 1x1 kernels, in bfloat16, most of all in the kernel's gradient, and in the gradient of depthwise kernels; on a
processor with AVX2 and no AVX-512, in the gradient of any kernel in float32. All of these are matrix products there.
The gradients that TensorFlow composes go over the images more often than they need to, and more often still where the
batch's size is not known beforehand. What is computed is the same by definition and differs in the last digits only
(the tests hold each against Keras's own).

Only a layer's computation is replaced, on the instance: class, name, weights, configuration and the saved files stay
Keras's, so that a trained network loads without this package.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from fer_utils.training import machine


def avx2_alone(flags):
    """Return whether a processor's widest instructions are AVX2's: oneDNN is slow there at a float32 kernel's gradient.

    Parameters
    ----------
    flags : set of str
        See `fer_utils.training.machine.cpu_flags`.
    """
    return {"avx2", "avx512f"} & flags == {"avx2"}


#: Whether that is so here.
AVX2_ALONE = avx2_alone(machine.cpu_flags())

#: In bfloat16 a kernel's gradient is quicker as a matrix product of patches on images of up to so many pixels, and all
#: that there is to a convolution on images of up to so few.
SMALL, TINY = 36, 9

#: So many bytes of images' rows, laid beside each other, are held at a time: what fits into a cache is quicker, too.
AT_A_TIME = 2**23

#: From so many weights of a depthwise kernel on, and up to so many pixels that it reads, its gradient is quicker as a
#: matrix product: MobileNet-V3's 5x5 kernels on images of 2x2 to 9x9.
MANY_WEIGHTS, FEW_PIXELS = 25, 81


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
                layer.convolution_op = functools.partial(convolution, layer)
        elif type(layer) is keras.layers.DepthwiseConv2D and simple_depthwise_convolution(layer):
            layer.call = functools.partial(small_depthwise_convolution, layer)
        elif type(layer) is keras.layers.GlobalAveragePooling2D and is_float32(layer):
            layer.call = functools.partial(average_pooling, layer)
        elif type(layer) is keras.layers.Activation and layer.activation is keras.activations.hard_silu:
            layer.call = hard_silu
        elif type(layer) is keras.layers.UpSampling2D and repeats_channels(layer):
            layer.call = functools.partial(tf.tile, multiples=(1, 1, 1, layer.size[1]))


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


def simple_depthwise_convolution(layer):
    """Whether a depthwise convolution is in float32, and nothing but the convolution."""
    plain = layer.depth_multiplier == 1 and layer.dilation_rate == (1, 1) and layer.data_format == "channels_last"
    return plain and not layer.use_bias and layer.activation is keras.activations.linear and is_float32(layer)


def is_float32(layer):
    """Whether a layer computes in float32."""
    return layer.compute_dtype == "float32"


def repeats_channels(layer):
    """Whether an upsampling is the notebooks' way to repeat the one channel of an image; it would transpose twice."""
    nearest = layer.interpolation == "nearest" and layer.data_format == "channels_first"
    return nearest and layer.size[0] == 1 and layer.input.shape[-1] == 1


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
    weights = tf.reshape(kernel, kernel.shape[2:])
    return tf.reshape(tf.matmul(tf.reshape(inputs, (-1, channels)), weights), (-1, height, width, kernel.shape[-1]))


def convolution(layer, inputs, kernel):
    """Convolve; what is slow of that on this processor is computed as matrix products.

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
    height, width = inputs.shape[1:3]
    if None in (height, width):
        return type(layer).convolution_op(layer, inputs, kernel)
    if inputs.dtype == tf.bfloat16 and height * width <= TINY:
        convolve = convolution_of_patches
    elif inputs.dtype == tf.bfloat16 and height * width <= SMALL:
        convolve = functools.partial(convolution_with, gradient_by_patches)
    elif inputs.dtype == tf.float32 and AVX2_ALONE:
        convolve = functools.partial(convolution_with, gradient_by_rows)
    else:
        return type(layer).convolution_op(layer, inputs, kernel)
    # A Keras variable, which the policy casts where it is converted.
    return convolve(inputs, tf.convert_to_tensor(kernel))


def convolution_with(gradient_of_kernel, inputs, kernel):
    """Convolve as TensorFlow does, but for the kernel's gradient.

    Parameters
    ----------
    gradient_of_kernel : callable
        `gradient_by_patches` or `gradient_by_rows`.
    inputs, kernel : tensor
        As for `convolution`.

    Returns
    -------
    tensor
        As of `convolution`.
    """

    @tf.custom_gradient
    def convolve(inputs, kernel):
        def gradient(upstream):
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
            )
            return to_inputs, gradient_of_kernel(inputs, upstream, kernel.shape)

        return tf.nn.conv2d(inputs, kernel, strides=1, padding="SAME"), gradient

    return convolve(inputs, kernel)


@tf.custom_gradient
def convolution_of_patches(inputs, kernel):
    """Convolve: the outputs and both gradients are a matrix product each. Parameters and result are as above."""
    reach = same_padding(kernel.shape[:2])

    def gradient(upstream):
        # The gradient comes back the ways that the outputs went: kernel and reach turned by half a circle.
        turned = tf.transpose(tf.reverse(kernel, (0, 1)), (0, 1, 3, 2))
        to_inputs = product_of_patches(upstream, turned, [sides[::-1] for sides in reach])
        # TensorFlow takes the inputs' patches once for both of their products.
        return to_inputs, gradient_by_patches(inputs, upstream, kernel.shape)

    return product_of_patches(inputs, kernel, reach), gradient


def product_of_patches(images, kernel, reach):
    """Return what a kernel makes of images, whose size it keeps; see `patches`."""
    filters = kernel.shape[-1]
    products = tf.matmul(patches(images, reach), tf.reshape(kernel, (-1, filters)))
    return tf.reshape(products, (-1, *images.shape[1:3], filters))


def same_padding(size):
    """Return how much "SAME" pads before and after along each axis of a kernel: what is odd comes after."""
    return [((length - 1) // 2, length // 2) for length in size]


def patches(images, reach):
    """Return what a kernel meets as it goes over images.

    Parameters
    ----------
    images : tensor, shape (n, height, width, channels)
        Images.
    reach : sequence of two (int, int)
        How far the kernel reaches over a pixel: above it and below, to its left and to its right.

    Returns
    -------
    tensor, shape (n * height * width, (above + 1 + below) * (left + 1 + right) * channels)
    """
    height, width, channels = images.shape[1:]
    (above, below), (left, right) = reach
    rows = np.arange(height)[:, np.newaxis, np.newaxis, np.newaxis] + np.arange(-above, below + 1)[:, np.newaxis]
    columns = np.arange(width)[:, np.newaxis, np.newaxis] + np.arange(-left, right + 1)
    # One pixel of zeros, after all others, is for what lies outside.
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = np.where(inside, rows * width + columns, height * width).ravel().astype("int32")
    flat = tf.pad(tf.reshape(images, (-1, height * width, channels)), ((0, 0), (0, 1), (0, 0)))
    return tf.reshape(tf.gather(flat, pixels, axis=1), (-1, len(pixels) // (height * width) * channels))


def gradient_by_patches(inputs, upstream, shape):
    """Return the gradient of a convolution's kernel as one matrix product of the images' patches.

    Parameters
    ----------
    inputs : tensor, shape (n, height, width, channels)
        Images.
    upstream : tensor, shape (n, height, width, filters)
        Gradient of the outputs.
    shape : (k, l, channels, filters)
        The kernel's.

    Returns
    -------
    tensor of that shape
    """
    by_pixel = tf.reshape(upstream, (-1, shape[-1]))
    return tf.reshape(tf.matmul(patches(inputs, same_padding(shape[:2])), by_pixel, transpose_a=True), shape)


def gradient_by_rows(inputs, upstream, shape):
    """Return the gradient of a convolution's kernel as a matrix product for each of its rows.

    Parameters and result are those of `gradient_by_patches`, which writes and reads as many times as much as the kernel
    has rows. What is written for some images is let go before the next are taken, if their number is known.
    """
    number, *image = inputs.shape
    at_a_time = max(1, AT_A_TIME // (shape[1] * np.prod(image) * inputs.dtype.size))
    if number is None or number <= at_a_time:
        return products_of_rows(inputs, upstream, shape)
    sums = []
    for first in range(0, number, at_a_time):
        # TensorFlow would begin with all at once.
        with tf.control_dependencies(sums[-1:]):
            some = slice(first, first + at_a_time)
            sums.append(products_of_rows(inputs[some], upstream[some], shape))
    return tf.add_n(sums)


def products_of_rows(inputs, upstream, shape):
    """Do so for all images at once."""
    height, width = upstream.shape[1:3]
    rows, columns, channels, filters = shape
    # The height comes first: to take some of the images' rows then copies nothing.
    padded = tf.transpose(tf.pad(inputs, ((0, 0), *same_padding((rows, columns)), (0, 0))), (1, 0, 2, 3))
    beside = tf.concat([padded[:, :, j : j + width] for j in range(columns)], axis=-1)
    by_pixel = tf.reshape(tf.transpose(upstream, (1, 0, 2, 3)), (-1, filters))
    products = [
        tf.matmul(tf.reshape(beside[i : i + height], (-1, columns * channels)), by_pixel, transpose_a=True)
        for i in range(rows)
    ]
    return tf.reshape(tf.stack(products), shape)


def small_depthwise_convolution(layer, inputs):
    """Convolve each channel by itself; where the image is small, the kernel's gradient is a matrix product.

    Parameters
    ----------
    layer : keras.layers.DepthwiseConv2D
        Built; see `simple_depthwise_convolution`.
    inputs : tensor of float32, shape (n, height, width, channels)
        Images.

    Returns
    -------
    tensor of float32, shape (n, rows, columns, channels)
    """
    height, width, channels = inputs.shape[1:]
    if None in (height, width) or height * width > FEW_PIXELS or np.prod(layer.kernel_size) < MANY_WEIGHTS:
        return type(layer).call(layer, inputs)
    kernel = tf.convert_to_tensor(layer.kernel)
    if layer.padding == "same" and layer.strides == (1, 1):
        # What lies further from the kernel's centre than the image is long meets nothing but padding.
        rows, columns = (inner(size, length) for size, length in zip(layer.kernel_size, (height, width), strict=True))
        kernel = kernel[rows, columns]
    padding, strides = layer.padding.upper(), (1, *layer.strides, 1)

    @tf.custom_gradient
    def convolve(inputs, kernel):
        outputs = tf.nn.depthwise_conv2d(inputs, kernel, strides, padding)

        def gradient(upstream):
            to_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=strides, padding=padding
            )
            # Of each channel, how each pixel that comes out goes with each that went in; summed over the images.
            by_output = tf.transpose(tf.reshape(upstream, (-1, rows_out * columns_out, channels)), (2, 1, 0))
            by_input = tf.transpose(tf.reshape(inputs, (-1, height * width, channels)), (2, 0, 1))
            pairs = tf.reshape(tf.matmul(by_output, by_input), (channels, -1))
            return to_inputs, tf.reshape(tf.transpose(tf.matmul(pairs, meeting)), kernel.shape)

        rows_out, columns_out = outputs.shape[1:3]
        meeting = tf.constant(weights_that_meet((height, width), kernel.shape[:2], strides[1:3], padding))
        return outputs, gradient

    return convolve(inputs, kernel)


def average_pooling(layer, inputs):
    """Average each channel over the image, as ``keras.layers.GlobalAveragePooling2D.call`` does.

    The sum is divided, so that its gradient is divided before it is spread over the pixels; that of a mean comes after.

    Parameters
    ----------
    layer : keras.layers.GlobalAveragePooling2D
        In float32.
    inputs : tensor of float32, shape (n, height, width, channels)
        Images; of sizes that differ, or with the channels first, they are left to Keras.

    Returns
    -------
    tensor of float32, shape (n, channels), or (n, 1, 1, channels) where it keeps the dimensions
    """
    height, width = inputs.shape[1:3]
    if None in (height, width) or layer.data_format != "channels_last":
        return type(layer).call(layer, inputs)
    return tf.reduce_sum(inputs, axis=(1, 2), keepdims=layer.keepdims) * (1.0 / (height * width))


@tf.custom_gradient
def hard_silu(inputs):
    """Compute ``x * relu6(x + 3) / 6``, MobileNet-V3's activation (Howard et al. 2019, section 5.2).

    The gradient goes over the images four times; the one of the parts goes five times, and asks of every batch whose
    size is not known beforehand whether its parts had the same shape.

    Parameters
    ----------
    inputs : tensor
        Any shape.

    Returns
    -------
    tensor, shape and type as the input's
    """
    shifted = inputs + 3.0
    gate = tf.nn.relu6(shifted) * (1.0 / 6.0)

    def gradient(upstream):
        return upstream * (gate + tf.raw_ops.Relu6Grad(gradients=inputs * (1.0 / 6.0), features=shifted))

    return inputs * gate, gradient


def inner(size, length):
    """Return the slice of a kernel's ``size`` weights that an image of some length can meet, with stride 1."""
    cut = max(0, (size - 1) // 2 - (length - 1))
    return slice(cut, size - cut)


def weights_that_meet(image, kernel, strides, padding):
    """Say with which weight of a kernel a pixel goes into a pixel of the output.

    Parameters
    ----------
    image, kernel, strides : (int, int)
        Sizes and steps, down and across.
    padding : {"SAME", "VALID"}
        As TensorFlow means it.

    Returns
    -------
    ndarray of float32, shape (output pixels * input pixels, weights)
        1 where they meet, else 0.
    """
    axes = []
    for length, size, stride in zip(image, kernel, strides, strict=True):
        if padding == "SAME":
            out = -(-length // stride)
            before = max((out - 1) * stride + size - length, 0) // 2
        else:
            out, before = (length - size) // stride + 1, 0
        weight = np.arange(length) - np.arange(out)[:, np.newaxis] * stride + before
        axes.append(weight[..., np.newaxis] == np.arange(size))
    down, across = axes
    return np.einsum("aik,bjl->abijkl", down, across).reshape(-1, np.prod(kernel)).astype("float32")


def train_function(network):
    """Return what ``Model.fit`` calls for each batch, as ``Model.make_train_function`` makes it.

    Keras's builds one graph for batches of any size. This builds one for each size, of which an epoch has two: more to
    build at the start, and no batch has to be asked for its size, which counts where steps are short.

    Parameters
    ----------
    network : keras.Model
        Compiled.

    Returns
    -------
    callable
        Takes an iterator over batches, trains on the next one and returns the logs, a dict of scalar tensors.
    """
    step = tf.function(network.train_step, autograph=False)
    return lambda batches: step(next(batches))


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam, each variable brought up to date by TensorFlow's one operation for it."""

    def apply(self, grads, trainable_variables=None):
        """Bring all variables up to date; what they share is computed once."""
        step = tf.cast(self.iterations + 1, tf.float32)
        self.powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        return super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        """Bring a variable and its moments up to date."""
        index = self._get_variable_index(variable)
        beta1_power, beta2_power = self.powers
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.cast(beta1_power, variable.dtype),
            beta2_power=tf.cast(beta2_power, variable.dtype),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )
