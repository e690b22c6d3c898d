import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.models.layers import BatchNormalization, LayerScale, PartialIdentity, PixelScaling, WhiteningConvolution
from tasks.models.whitening import pixel_statistics, whitening_kernel

VALUES = np.random.default_rng(0).normal(3, 2, (8, 5, 6, 4)).astype(np.float32)


def trained_once(layer: keras.layers.Layer, values: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    output = layer(values, training=True)
    return np.asarray(output), [np.asarray(weight) for weight in layer.weights]


def test_fused_batch_norm_is_that_of_keras() -> None:
    output, weights = trained_once(BatchNormalization(0.9, 1e-3), VALUES)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    expected_output, expected_weights = trained_once(theirs, VALUES)
    for ours, expected in zip([output, *weights], [expected_output, *expected_weights], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_at_inference_uses_the_running_statistics() -> None:
    layer = BatchNormalization(0.0, 1e-3)
    layer(VALUES, training=True)
    output = np.asarray(layer(VALUES, training=False))
    np.testing.assert_allclose(output.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(output.std(axis=(0, 1, 2)), 1, rtol=1e-3)


def test_batch_norm_that_is_not_trained_keeps_its_statistics() -> None:
    layer = BatchNormalization(0.5, 1e-3, trainable=False)
    layer(VALUES)
    layer.set_weights([np.full(4, 2.0), np.ones(4), np.full(4, 3.0), np.full(4, 4.0)])
    output, weights = trained_once(layer, VALUES)
    np.testing.assert_allclose(output, 2 * (VALUES - 3) / np.sqrt(4.001) + 1, rtol=1e-4, atol=1e-5)
    assert [float(weight[0]) for weight in weights] == [2, 1, 3, 4]
    layer.trainable = True
    assert float(trained_once(layer, VALUES)[1][3][0]) != 4


def test_a_layer_scale_multiplies_each_channel() -> None:
    layer = LayerScale(0.5)
    np.testing.assert_allclose(layer(VALUES), 0.5 * VALUES)
    layer.gamma.assign([1.0, 2.0, 0.0, -1.0])
    np.testing.assert_allclose(layer(VALUES), VALUES * [1, 2, 0, -1])


@pytest.mark.parametrize("shares", [(4, 4), (5, 3), (8, 0)])
def test_two_replicas_have_the_statistics_of_the_whole_batch(shares: tuple[int, int]) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    parts = [VALUES[: shares[0]], VALUES[shares[0] :]]
    with strategy.scope():
        layer = BatchNormalization(0.9, 1e-3)
        layer.build(VALUES.shape)
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )
    outputs = strategy.run(tf.function(lambda part: layer(part, training=True)), args=(values,))
    whole, weights = trained_once(BatchNormalization(0.9, 1e-3), VALUES)
    together = np.concatenate([np.asarray(part) for part in strategy.experimental_local_results(outputs)])
    np.testing.assert_allclose(together, whole, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(layer.weights, weights, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), theirs, rtol=1e-5)


def test_batch_norm_in_bfloat16_keeps_its_statistics_in_float32() -> None:
    layer = BatchNormalization(0.9, 1e-3, dtype="mixed_bfloat16")
    assert layer(VALUES, training=True).dtype == tf.bfloat16
    assert {weight.dtype for weight in layer.weights} == {"float32"}


def test_pixel_scaling_scales_every_channel_and_turns_rgb_to_bgr() -> None:
    pixels = np.array([[[[0, 100, 200]]]], np.uint8)
    np.testing.assert_allclose(PixelScaling([0, 50, 100], [1, 50, 100])(pixels)[0, 0, 0], [0, 1, 1])
    np.testing.assert_allclose(
        PixelScaling([0, 0, 0], [1, 1, 1], reverse_channels=True)(pixels)[0, 0, 0], [200, 100, 0]
    )


def test_pixel_statistics_are_those_of_all_pixels() -> None:
    images = np.random.default_rng(1).integers(0, 256, (5000, 4, 4, 3), dtype=np.uint8)
    statistics = pixel_statistics(images)
    np.testing.assert_allclose(statistics.mean, images.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(statistics.std, images.std(axis=(0, 1, 2)))


def test_whitened_patches_are_uncorrelated_and_of_unit_size() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (200, 9, 9, 3)).cumsum(axis=1) % 256
    images = noise.astype(np.uint8)
    statistics = pixel_statistics(images)
    kernel = whitening_kernel(images, statistics, size=2, epsilon=0.0)
    layer = WhiteningConvolution(24)
    layer.build((None, 9, 9, 3))
    layer.kernel.assign(kernel)
    scaled = PixelScaling(list(statistics.mean), list(statistics.std))(images)
    answers = np.asarray(layer(scaled)).reshape(-1, 24)
    np.testing.assert_allclose(answers[:, :12], -answers[:, 12:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(answers[:, :12].T @ answers[:, :12] / len(answers), np.eye(12), atol=1e-3)


def test_partial_identity_passes_its_channels_through() -> None:
    kernel = PartialIdentity()((3, 3, 4, 10))
    images = tf.constant(VALUES)
    answer = tf.nn.conv2d(images, kernel, 1, "SAME")
    np.testing.assert_allclose(answer[..., :4], images, rtol=1e-6)
    assert np.abs(np.asarray(kernel)[..., 4:]).max() <= (3 * 3 * 4) ** -0.5
