"""Convolutions whose slow parts on a CPU are matrix products; see `fast_layers`.

TensorFlow's convolutions lose time where an image has shrunk to a few pixels: with 1x1 kernels; in bfloat16, most of
all in the kernel's gradient; in the gradient of depthwise kernels; and, on a processor with AVX2 and no AVX-512, in the
gradient of any kernel in float32. All of these are matrix products here.
"""

import functools

import numpy as np
import tensorflow as tf

from fer_utils.training.device import cpu_flags

#: In bfloat16 a kernel's gradient is faster as a matrix product of patches on images of up to so many pixels, and the
#: whole convolution on images of up to so few.
SMALL, TINY = 36, 9

#: Bytes of image rows that are held at a time: what fits into a cache is faster, too.
AT_A_TIME = 2**23

#: A depthwise kernel's gradient is faster as a matrix product from so many weights on and up to so many pixels read:
#: MobileNet-V3's 5x5 kernels on images of 2x2 to 9x9.
MANY_WEIGHTS, FEW_PIXELS = 25, 81


def avx2_alone(flags):
    """Whether a processor's widest instructions are AVX2's: there oneDNN is slow at a float32 kernel's gradient."""
    return {"avx2", "avx512f"} & flags == {"avx2"}


#: Whether this processor has AVX2 and nothing wider.
AVX2_ALONE = avx2_alone(cpu_flags())


def pointwise_convolution(layer, inputs, kernel):
    """Convolve images (n, height, width, channels) with 1x1 kernels: one matrix product over all pixels."""
    down, across = layer.strides
    if (down, across) != (1, 1):
        inputs = inputs[:, ::down, ::across]
    height, width, channels = inputs.shape[1:]
    weights = tf.reshape(kernel, kernel.shape[2:])
    return tf.reshape(tf.matmul(tf.reshape(inputs, (-1, channels)), weights), (-1, height, width, kernel.shape[-1]))


def convolution(layer, inputs, kernel):
    """Convolve with stride 1 and padding "same"; parts that are slow on this processor use matrix products."""
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
    """Convolve as TensorFlow does, but for the kernel's gradient, which `gradient_of_kernel` computes."""

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
    """Convolve: the outputs and both gradients are one matrix product each."""
    reach = same_padding(kernel.shape[:2])

    def gradient(upstream):
        # The gradient comes back the ways that the outputs went: kernel and reach turned by half a circle.
        turned = tf.transpose(tf.reverse(kernel, (0, 1)), (0, 1, 3, 2))
        to_inputs = product_of_patches(upstream, turned, [sides[::-1] for sides in reach])
        # TensorFlow takes the inputs' patches once for both of their products.
        return to_inputs, gradient_by_patches(inputs, upstream, kernel.shape)

    return product_of_patches(inputs, kernel, reach), gradient


def product_of_patches(images, kernel, reach):
    """Return what a kernel makes of images, whose size it keeps."""
    filters = kernel.shape[-1]
    products = tf.matmul(patches(images, reach), tf.reshape(kernel, (-1, filters)))
    return tf.reshape(products, (-1, *images.shape[1:3], filters))


def same_padding(size):
    """Return how much "SAME" pads before and after along each axis of a kernel: an odd pixel is added after."""
    return [((length - 1) // 2, length // 2) for length in size]


def patches(images, reach):
    """Return what a kernel meets as it goes over images: one row per pixel, (n * height * width, k * l * channels).

    `reach` says how far the kernel reaches over a pixel: (above, below), (left, right).
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
    """Return the gradient of a convolution's kernel (k, l, channels, filters) as one matrix product of patches."""
    by_pixel = tf.reshape(upstream, (-1, shape[-1]))
    return tf.reshape(tf.matmul(patches(inputs, same_padding(shape[:2])), by_pixel, transpose_a=True), shape)


def gradient_by_rows(inputs, upstream, shape):
    """Return the same as one matrix product per row of the kernel, some images at a time.

    It writes and reads the images once per column of the kernel and not once per weight.
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
    """Compute `gradient_by_rows` for all images at once."""
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
    """Convolve each channel by itself; on a small image the kernel's gradient is a matrix product."""
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


def inner(size, length):
    """Return the slice of a kernel's ``size`` weights that an image of some length can meet, with stride 1."""
    cut = max(0, (size - 1) // 2 - (length - 1))
    return slice(cut, size - cut)


def weights_that_meet(image, kernel, strides, padding):
    """Return 1 where an output pixel and an input pixel meet by a weight, else 0: (outputs * inputs, weights)."""
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
