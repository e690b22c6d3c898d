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


def test_other_dtypes_are_exact() -> None:
    # Keras makes its √2 in float32.
    np.testing.assert_allclose(gelu(tf.constant(EXACT)), EXACT * PROBABILITY, rtol=1e-6, atol=1e-12)
