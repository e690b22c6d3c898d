import math

import numpy as np
import tensorflow as tf

from tasks.models.gelu import gelu

# Every sixteenth bfloat16 value from 2⁻⁷ to 9, both signs, and zero.
MAGNITUDES = (np.arange(0x3C00, 0x4110, 16, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
EXACT = np.concatenate([-MAGNITUDES, [0.0], MAGNITUDES])
PROBABILITY = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in EXACT])
STEP = 2.0**-8  # between two neighbouring bfloat16 values, relative


def test_bfloat16_gelu_is_the_exact_one_up_to_rounding() -> None:
    output = gelu(tf.cast(EXACT, tf.bfloat16))
    assert output.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(output, tf.float64), EXACT * PROBABILITY, rtol=2 * STEP, atol=1e-6)


def test_bfloat16_gradient_is_the_exact_one_up_to_rounding() -> None:
    values = tf.cast(EXACT, tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(values)
        output = gelu(values)
    gradient = tf.cast(tape.gradient(output, values), tf.float64).numpy()
    slope = PROBABILITY + EXACT * np.exp(-(EXACT**2) / 2) / math.sqrt(2 * math.pi)
    assert np.abs(gradient - slope).max() <= 2 * STEP


def test_replicas_answer_like_one_device_inside_a_loop() -> None:
    """The training step calls it there, and XLA compiles it for each device."""
    devices = [f"CPU:{index}" for index in range(2)]
    strategy, values = tf.distribute.MirroredStrategy(devices), tf.cast(EXACT, tf.bfloat16)

    @tf.function
    def sum_of_gradients() -> tf.Tensor:
        def gradient(_: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(values)
                output = gelu(values)
            return tape.gradient(output, values)

        def body(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            gradients = strategy.run(gradient, args=(step,))
            return step + 1, total + strategy.reduce(tf.distribute.ReduceOp.SUM, gradients, axis=None)

        return tf.while_loop(lambda step, _: step < 1, body, (0, tf.zeros_like(values)))[1]

    with tf.GradientTape() as tape:
        tape.watch(values)
        output = gelu(values)
    np.testing.assert_array_equal(sum_of_gradients(), 2 * tape.gradient(output, values))


def test_other_dtypes_are_exact() -> None:
    # Keras makes its √2 in float32.
    np.testing.assert_allclose(gelu(tf.constant(EXACT)), EXACT * PROBABILITY, rtol=1e-6, atol=1e-12)
