"""The faster operations compute what Keras's own layers compute."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from fer_utils.training import fast_convolutions, fast_layers

RNG = np.random.default_rng(0)


def pair(make, shape, policy="float32"):
    """The same layer twice with the same weights, the second one fast, and a batch."""
    keras.utils.set_random_seed(1)
    policies = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        networks = [keras.Sequential([keras.Input(shape), make()]) for _ in range(2)]
    finally:
        keras.config.set_dtype_policy(policies)
    # Neither zeros nor ones, so that a forgotten weight shows.
    weights = [RNG.uniform(0.5, 1.5, w.shape).astype("float32") for w in networks[0].weights]
    for network in networks:
        network.set_weights(weights)
    fast_layers.replace_computations(networks[1])
    return *networks, tf.constant(RNG.normal(1.0, 2.0, (6, *shape)).astype("float32"))


def passes(network, batch, training=True):
    """Outputs, gradients of a weighted sum for input and weights, and the weights after the pass."""
    with tf.GradientTape() as tape:
        tape.watch(batch)
        out = network(batch, training=training)
        factors = tf.reshape(tf.cast(tf.range(tf.size(out)) % 7, out.dtype), out.shape)
        loss = tf.reduce_sum(out * factors)
    gradients = tape.gradient(loss, [batch, *[v.value for v in network.trainable_variables]])
    arrays = [out, *gradients, *[w.value for w in network.weights]]
    return [tf.cast(a, tf.float32).numpy() for a in arrays]


def assert_same(network, fast, batch, tolerance, **options):
    for expected, got in zip(passes(network, batch, **options), passes(fast, batch, **options), strict=True):
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def operations(function, batch):
    """The kinds of operations in a function's graph."""
    graph = tf.function(function).get_concrete_function(batch).graph
    return [operation.type for operation in graph.get_operations()]


def gradient_operations(network, batch):
    """Those of the gradient for the first weights."""
    return operations(lambda x: tf.gradients(network(x), network.trainable_variables[0].value), batch)


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.5, "epsilon": 0.1}, {"scale": False}, {"center": False}],
    ids=str,
)
def test_batch_normalization(options):
    slow, fast, batch = pair(lambda: layers.BatchNormalization(**options), (5, 4, 3))
    assert_same(slow, fast, batch, 2e-5)
    assert_same(slow, fast, batch, 2e-5, training=False)


@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 1e-3)])
@pytest.mark.parametrize("images", [6, 1])
@pytest.mark.parametrize("size", [5, 1])
def test_the_running_statistics_of_batch_normalization_are_those_of_the_definition(policy, tolerance, images, size):
    _, fast, batch = pair(lambda: layers.BatchNormalization(momentum=0.75), (size, size, 3), policy)
    # What bfloat16 can hold, so that nothing but the sums is rounded. One image of 1x1 has no variance.
    batch = tf.cast(tf.cast(batch[:images], "bfloat16"), "float32")
    mean, variance = fast.layers[0].moving_mean.numpy(), fast.layers[0].moving_variance.numpy()
    fast(batch, training=True)
    values = batch.numpy().reshape(-1, 3)
    expected = 0.75 * mean + 0.25 * values.mean(axis=0), 0.75 * variance + 0.25 * values.var(axis=0)
    np.testing.assert_allclose(fast.layers[0].moving_mean, expected[0], rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(fast.layers[0].moving_variance, expected[1], rtol=tolerance, atol=1e-6)


def test_a_frozen_batch_normalization_keeps_its_statistics():
    slow, fast, batch = pair(layers.BatchNormalization, (5, 4, 3))
    slow.layers[0].trainable = fast.layers[0].trainable = False
    before = fast.get_weights()
    assert_same(slow, fast, batch, 1e-6)
    for old, new in zip(before, fast.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [5, 6])
def test_pointwise_convolution(strides, padding, size):
    options = {"strides": strides, "padding": padding, "activation": "relu"}
    slow, fast, batch = pair(lambda: layers.Conv2D(4, 1, **options), (size, size, 3))
    assert_same(slow, fast, batch, 1e-5)


@pytest.mark.parametrize("kernel", [3, (2, 5), (4, 1)])
@pytest.mark.parametrize("size", [(2, 4), (4, 6)])
# bfloat16 has 8 bits.
@pytest.mark.parametrize(("policy", "tolerance"), [("mixed_bfloat16", 0.02), ("float32", 1e-5)])
def test_convolution(kernel, size, policy, tolerance, monkeypatch):
    monkeypatch.setattr(fast_convolutions, "AVX2_ALONE", True)
    slow, fast, batch = pair(lambda: layers.Conv2D(8, kernel, padding="same"), (*size, 16), policy)
    assert_same(slow, fast, batch, tolerance)


@pytest.mark.parametrize("at_a_time", [1, 4, 6])
def test_the_gradient_by_rows_of_some_images_at_a_time(at_a_time, monkeypatch):
    monkeypatch.setattr(fast_convolutions, "AVX2_ALONE", True)
    # A kernel three wide lays three copies of an image beside each other.
    monkeypatch.setattr(fast_convolutions, "AT_A_TIME", at_a_time * 3 * (4 * 6 * 16) * 4)
    slow, fast, batch = pair(lambda: layers.Conv2D(8, 3, padding="same"), (4, 6, 16))
    assert_same(slow, fast, batch, 1e-5)
    # A product for each of the kernel's three rows.
    assert gradient_operations(fast, batch).count("MatMul") == 3 * -(-6 // at_a_time)


def test_patches_by_hand():
    images = tf.reshape(tf.range(1.0, 7.0), (1, 2, 3, 1))
    # 1 2 3
    # 4 5 6, and a kernel that reaches one row down and one column to either side.
    expected = [[0, 1, 2, 0, 4, 5], [1, 2, 3, 4, 5, 6], [2, 3, 0, 5, 6, 0]]
    expected += [[0, 4, 5, 0, 0, 0], [4, 5, 6, 0, 0, 0], [5, 6, 0, 0, 0, 0]]
    np.testing.assert_array_equal(fast_convolutions.patches(images, [(0, 1), (1, 1)]), expected)


@pytest.mark.parametrize("keepdims", [True, False])
def test_average_pooling(keepdims):
    slow, fast, batch = pair(lambda: layers.GlobalAveragePooling2D(keepdims=keepdims), (5, 4, 3))
    assert_same(slow, fast, batch, 1e-6)
    np.testing.assert_allclose(fast(batch).numpy().reshape(6, 3), batch.numpy().mean(axis=(1, 2)), rtol=1e-5)


def test_average_pooling_of_images_of_any_size_and_shared_by_two_inputs():
    pool = layers.GlobalAveragePooling2D()
    first, second = keras.Input((5, 4, 3)), keras.Input((None, None, 3))
    network = keras.Model([first, second], [pool(first), pool(second)])
    fast_layers.replace_computations(network)
    batches = RNG.normal(size=(2, 5, 4, 3)).astype("float32"), RNG.normal(size=(2, 7, 6, 3)).astype("float32")
    for batch, got in zip(batches, network(batches), strict=True):
        np.testing.assert_allclose(got, batch.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-6), ("mixed_bfloat16", 0.02)])
def test_hard_silu(policy, tolerance):
    slow, fast, batch = pair(lambda: layers.Activation("hard_silu"), (5, 4, 3), policy)
    # Below, between and above the places where it bends.
    batch = batch * 3
    assert np.histogram(batch, [-np.inf, -3, 3, np.inf])[0].min() > 20
    assert_same(slow, fast, batch, tolerance)
    # By hand: 0 up to -3, the input from 3 on, 2 * 5 / 6 and -1 * 2 / 6 between; the slope (2 x + 3) / 6.
    x = tf.constant([[-4.0, -3.0, -1.0, 2.0, 3.0, 5.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = fast_layers.hard_silu(x)
    np.testing.assert_allclose(out[0], [0, 0, -1 / 3, 5 / 3, 3, 5], rtol=1e-6)
    slopes = tape.gradient(out, x).numpy()[0]
    np.testing.assert_allclose(slopes[[0, 2, 3, 5]], [0, 1 / 6, 7 / 6, 1], rtol=1e-6)


def test_a_replaced_computation_is_the_one_that_runs(monkeypatch):
    """Without this the comparisons above would pass for a `use` that does nothing."""
    _, fast, batch = pair(layers.BatchNormalization, (5, 4, 3))
    assert "FusedBatchNormV3" in operations(lambda x: fast(x, training=True), batch)
    for make, used, replaced in (
        (lambda: layers.Conv2D(4, 1), {"MatMul"}, "Conv2D"),
        (lambda: layers.Activation("hard_silu"), {"IdentityN", "Sum"}, "Mean"),
        (layers.GlobalAveragePooling2D, {"IdentityN", "Sum"}, "Mean"),
    ):
        _, fast, batch = pair(make, (5, 5, 3))
        found = set(operations(fast, batch))
        assert found & used and replaced not in found


def test_a_network_with_networks_inside_keeps_its_files(tmp_path):
    keras.utils.set_random_seed(2)
    inner = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(4, 1), layers.BatchNormalization()])
    network = keras.Sequential([keras.Input((4, 4, 3)), inner, layers.Flatten(), layers.Dense(2)])
    before = network.to_json()
    fast_layers.replace_computations(network)
    assert network.to_json() == before
    batch = RNG.normal(size=(3, 4, 4, 3)).astype("float32")
    network.save(tmp_path / "network.keras")
    np.testing.assert_allclose(
        keras.saving.load_model(tmp_path / "network.keras").predict(batch, verbose=0),
        network.predict(batch, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_adam_moves_a_variable_as_keras_does():
    results = []
    for fast in (False, True):
        variable = keras.Variable(np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4))
        optimizer = keras.optimizers.Adam(0.01)
        if fast:
            fast_layers.fuse(optimizer)
        optimizer.build([variable])
        for step in range(5):
            gradient = tf.constant(np.sin(np.arange(12.0) * (step + 1)).reshape(3, 4).astype("float32"))
            optimizer.apply([gradient], [variable])
        results.append([variable.numpy(), *[v.numpy() for v in optimizer.variables]])
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_training_by_size_of_batch_learns_what_keras_learns():
    images, labels = RNG.normal(size=(70, 5)).astype("float32"), np.eye(3, dtype="float32")[np.arange(70) % 3]
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)
    results = []
    for fast in (False, True):
        keras.utils.set_random_seed(3)
        network = keras.Sequential([keras.Input((5,)), layers.BatchNormalization(), layers.Dense(3, "softmax")])
        network.compile("adam", "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
        if fast:
            network.train_function = fast_layers.train_function(network)
        history = network.fit(batches, epochs=3, verbose=0).history
        network.train_on_batch(images[:32], labels[:32])
        results.append([*history.values(), *network.get_weights()])
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "alone"), [({"avx", "avx2"}, True), ({"avx2", "avx512f"}, False), ({"avx"}, False), (set(), False)]
)
def test_a_processor_with_avx2_at_most(flags, alone):
    assert fast_convolutions.avx2_alone(flags) == alone


def test_where_a_convolution_is_a_matrix_product(monkeypatch):
    def native(size, policy, avx2_alone=False, operation="Conv2DBackpropFilter"):
        monkeypatch.setattr(fast_convolutions, "AVX2_ALONE", avx2_alone)
        _, fast, batch = pair(lambda: layers.Conv2D(8, 3, padding="same"), (size, size, 4), policy)
        return operation in gradient_operations(fast, batch)

    assert not native(6, "mixed_bfloat16") and native(7, "mixed_bfloat16", avx2_alone=True)
    assert not native(3, "mixed_bfloat16", operation="Conv2D") and native(4, "mixed_bfloat16", operation="Conv2D")
    assert native(6, "float32") and not native(48, "float32", avx2_alone=True)
    assert native(6, "mixed_float16", avx2_alone=True)


@pytest.mark.parametrize(
    ("kernel", "size", "options"),
    [
        # A kernel larger than the image, as MobileNet-V3 has it, meets the image with its inner weights only.
        *(((5, 5), size, {"padding": "same"}) for size in ((2, 2), (3, 4), (7, 9))),
        ((3, 9), (4, 3), {"padding": "same"}),
        ((6, 5), (6, 6), {"padding": "same"}),
        *(((6, 5), (7, 9), {"padding": "valid", "strides": strides}) for strides in (1, 2)),
    ],
    ids=str,
)
def test_a_small_depthwise_convolution(kernel, size, options):
    slow, fast, batch = pair(lambda: layers.DepthwiseConv2D(kernel, use_bias=False, **options), (*size, 3))
    assert_same(slow, fast, batch, 2e-5)


def test_a_depthwise_convolution_is_replaced_where_it_is_small_and_simple():
    def gradient(size, policy="float32", **options):
        make = lambda: layers.DepthwiseConv2D(5, padding="same", **options)  # noqa: E731
        _, fast, batch = pair(make, (size, size, 4), policy)
        return gradient_operations(fast, batch)

    native = "DepthwiseConv2dNativeBackpropFilter"
    assert native not in gradient(9, use_bias=False)
    assert native in gradient(10, use_bias=False)
    assert native in gradient(9, use_bias=True)
    assert native in gradient(9, use_bias=False, activation="relu")
    assert native in gradient(9, use_bias=False, policy="mixed_bfloat16")


def test_grey_repeated_as_three_channels():
    def make(size=(1, 3)):
        return lambda: layers.UpSampling2D(size, data_format="channels_first")

    slow, fast, batch = pair(make(), (4, 5, 1))
    assert_same(slow, fast, batch, 0)
    assert "Transpose" not in operations(fast, batch)
    # Other upsamplings mean something else.
    for shape, size in (((4, 5, 2), (1, 3)), ((4, 5, 1), (2, 3))):
        slow, fast, batch = pair(make(size), shape)
        assert_same(slow, fast, batch, 0)
