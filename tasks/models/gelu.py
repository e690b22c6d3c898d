"""GELU at the cost of one error function and one exponential."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

LOG_SQRT_2_PI = 0.9189385332


@keras.saving.register_keras_serializable(package="retrain")
def gelu(x: Any) -> Any:
    """Exact GELU, x · Φ(x) (arXiv 1606.08415)."""
    if isinstance(x, tf.Tensor) and x.dtype == tf.bfloat16 and not tf.config.list_logical_devices("GPU"):
        return _gelu_bfloat16(x)
    return keras.activations.gelu(x, approximate=False)


@tf.custom_gradient
def _gelu_bfloat16(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Return GELU of bfloat16 values within their rounding, and its gradient function.

    TensorFlow's own takes twice the time on a CPU: its erfc in bfloat16 is three times slower than erf in float32, and
    its gradient is that of every operation in turn. Here Φ(x), made in float32 and kept, serves both.
    """
    probability = tf.cast(0.5 + 0.5 * tf.math.erf(tf.cast(x, tf.float32) * 0.5**0.5), x.dtype)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        density = tf.exp(-0.5 * tf.square(x) - LOG_SQRT_2_PI)
        return upstream * (probability + x * density)

    return x * probability, gradient
