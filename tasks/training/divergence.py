"""Whether a training run has left any sensible range, though nothing is infinite yet."""

import keras
import tensorflow as tf

MAX_WEIGHT = 1e5  # trained networks have weights below ten; what grows past this no longer learns


def runaway_weights(model: keras.Model) -> str | None:
    """Return which weights have grown past all bounds and how far, for a sentence; None where none have."""
    for weight in model.trainable_weights:
        largest = float(tf.reduce_max(tf.abs(tf.cast(weight.value, tf.float32))))
        if not largest <= MAX_WEIGHT:
            return f"the weights {weight.path} reached {largest:.3g}"
    return None
