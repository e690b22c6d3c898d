import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.models.layers import BatchNormalization
from tasks.models.normalized_convolution import NormalizedConvolution

GENERATOR = np.random.default_rng(0)


def pair(filters: int | None, kernel: int, strides: int) -> tuple[NormalizedConvolution, keras.Sequential]:
    """Return the layer and a convolution with a batch norm behind it, with the same weights."""
    own = NormalizedConvolution(filters, kernel, strides)
    settings = {"strides": strides, "padding": "same", "use_bias": False}
    convolution = (
        keras.layers.DepthwiseConv2D(kernel, **settings)
        if filters is None
        else keras.layers.Conv2D(filters, kernel, **settings)
    )
    apart = keras.Sequential([convolution, BatchNormalization(epsilon=1e-3)])
    shape = (None, 9, 10, 6)
    own.build(shape)
    apart.build(shape)
    for weight, other in zip(own.weights, apart.weights, strict=True):
        value = GENERATOR.normal(size=weight.shape).astype(np.float32)
        value = np.abs(value) + 0.1 if weight.name == "moving_variance" else value
        weight.assign(value)
        other.assign(value)
    return own, apart


@pytest.mark.parametrize(
    ("filters", "kernel", "strides"), [(4, 3, 1), (4, 1, 1), (5, 3, 2), (None, 5, 1), (None, 3, 2)]
)
def test_it_is_a_convolution_and_a_batch_norm_of_fixed_statistics(
    filters: int | None, kernel: int, strides: int
) -> None:
    own, apart = pair(filters, kernel, strides)
    images = tf.constant(GENERATOR.normal(size=(3, 9, 10, 6)).astype(np.float32))
    with tf.GradientTape(persistent=True) as tape:
        outputs, expected = own(images), apart(images, training=False)
        losses = tf.reduce_sum(outputs**2), tf.reduce_sum(expected**2)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    gradients = [tape.gradient(loss, layer.trainable_weights) for loss, layer in zip(losses, (own, apart), strict=True)]
    for gradient, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-3, atol=1e-2 * float(np.abs(other).max()))


def test_training_leaves_the_statistics_alone() -> None:
    own, _ = pair(4, 3, 1)
    before = [own.moving_mean.numpy(), own.moving_variance.numpy()]
    images = tf.constant(GENERATOR.normal(size=(3, 9, 10, 6)).astype(np.float32))
    np.testing.assert_array_equal(own(images, training=True), own(images, training=False))
    np.testing.assert_array_equal(before, [own.moving_mean.numpy(), own.moving_variance.numpy()])
    assert [weight.name for weight in own.non_trainable_weights] == ["moving_mean", "moving_variance"]


def test_it_comes_back_from_its_settings() -> None:
    own, _ = pair(None, 5, 2)
    again = NormalizedConvolution.from_config(own.get_config())
    again.build((None, 9, 10, 6))
    again.set_weights(own.get_weights())
    images = tf.constant(GENERATOR.normal(size=(2, 9, 10, 6)).astype(np.float32))
    np.testing.assert_array_equal(own(images), again(images))
