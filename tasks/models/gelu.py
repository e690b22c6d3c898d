"""GELU at the cost of ReLU: one pass over memory forward and one backward, where TensorFlow makes twenty."""

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
    """Return GELU of bfloat16 values, rounded once from float32, and its gradient function.

    XLA makes one loop of each: elementwise work is bound by memory, and computing Φ(x) again costs less than reading
    it. (Convolutions stay outside: XLA's are slow on a CPU.)
    """
    return _value(x), lambda upstream: _slope_times(x, upstream)


@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _value(x: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(x, tf.float32)
    return tf.cast(wide * _probability(wide), x.dtype)


@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _slope_times(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(x, tf.float32)
    density = tf.exp(-0.5 * tf.square(wide) - LOG_SQRT_2_PI)
    return tf.cast(tf.cast(upstream, tf.float32) * (_probability(wide) + wide * density), x.dtype)


def _probability(x: tf.Tensor) -> tf.Tensor:
    return 0.5 + 0.5 * tf.math.erf(x * 0.5**0.5)
