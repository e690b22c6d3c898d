import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.models.convolution import Convolution, convolve_by_taps

RNG = np.random.default_rng(0)


def results(convolve, inputs: np.ndarray, kernel: np.ndarray, dtype: str) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    """Return the output and both gradients of a fixed random sum of it, in float64."""
    upstream = np.random.default_rng(1).normal(size=(*inputs.shape[:3], kernel.shape[-1]))
    x, w = tf.Variable(tf.cast(inputs, dtype)), tf.Variable(tf.cast(kernel, dtype))
    with tf.GradientTape() as tape:
        output = convolve(tf.convert_to_tensor(x), tf.convert_to_tensor(w))
    gradients = tape.gradient(output, [x, w], output_gradients=tf.cast(upstream, dtype))
    return [tf.cast(value, tf.float64).numpy() for value in (output, *gradients)]


def native(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(inputs, kernel, 1, "SAME")


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 3)])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 4), (1, 4), (7, 7), (8, 5)])
def test_it_is_the_convolution_and_so_are_its_gradients(size: tuple[int, int], kernel: tuple[int, int]) -> None:
    inputs, weights = RNG.normal(size=(3, *size, 4)), RNG.normal(size=(*kernel, 4, 6))
    ours = results(convolve_by_taps, inputs, weights, "float64")
    for value, expected in zip(ours, results(native, inputs, weights, "float64"), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [2, 4, 7])
@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-6), ("bfloat16", 2**-7)])
def test_in_other_precisions_it_differs_by_rounding(size: int, dtype: str, rounding: float) -> None:
    inputs, weights = RNG.normal(size=(8, size, size, 32)), RNG.normal(size=(3, 3, 32, 16))
    rounded = [tf.cast(tf.cast(value, dtype), tf.float64).numpy() for value in (inputs, weights)]
    exact = results(native, rounded[0], rounded[1], "float64")
    for value, expected in zip(results(convolve_by_taps, inputs, weights, dtype), exact, strict=True):
        assert np.abs(value - expected).max() <= rounding * np.abs(expected).max()


def test_it_gives_the_same_bits_again() -> None:
    inputs, weights = RNG.normal(size=(16, 4, 4, 64)), RNG.normal(size=(3, 3, 64, 64))
    first, second = (results(tf.function(convolve_by_taps), inputs, weights, "float32") for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": 2, "padding": "same"},
        {"kernel_size": 3, "padding": "same", "strides": 2},
        {"kernel_size": 3, "padding": "same", "dilation_rate": 2},
        {"kernel_size": 3, "padding": "same", "groups": 2},
        {"kernel_size": 3, "padding": "same", "activation": "relu", "use_bias": False},
    ],
)
@pytest.mark.parametrize("size", [4, 10])
def test_the_layer_is_that_of_keras(size: int, settings: dict[str, object]) -> None:
    inputs = RNG.normal(size=(2, size, size, 4)).astype(np.float32)
    ours, theirs = Convolution(6, **settings), keras.layers.Conv2D(6, **settings)
    ours.build(inputs.shape)
    theirs.build(inputs.shape)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(inputs), theirs(inputs), rtol=1e-5, atol=1e-5)


def test_it_takes_images_of_a_size_that_is_not_known() -> None:
    layer = Convolution(6, 3, padding="same")
    model = keras.Sequential([keras.Input((None, None, 4)), layer])
    for size in (3, 9):
        inputs = RNG.normal(size=(2, size, size, 4)).astype(np.float32)
        expected = native(inputs, tf.convert_to_tensor(layer.kernel))
        np.testing.assert_allclose(model.predict(inputs, verbose=0), expected, rtol=1e-4, atol=1e-5)
