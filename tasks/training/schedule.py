"""The learning rate over the steps, and what the watched values make of it and of the run: a value an epoch.

What is watched is measured on the validation images; tasks.params.recipe.ScheduleParams names it.
"""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from tasks.params.recipe import ScheduleParams
from tasks.training.checkpoint import History

# Keras's ReduceLROnPlateau asks for this much progress, EarlyStopping for any.
PLATEAU_MIN_DELTA = 1e-4


class RateSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rate at a step: its share of the peak by `params`, times the peak, which a plateau may lower.

    Args:
        params: The shape: `constant`; `triangle` (up over the first `warmup` of the steps, then down to `end`); or
            `cosine` (the same, down by half a cosine, arXiv 1608.03983 without restarts).
        peak: Learning rate for a mean loss.
        total_steps: Steps of the whole run.
        head_steps: So many at first train the head alone, at the peak; the shape is that of the steps after them.
    """

    def __init__(self, params: ScheduleParams, peak: float, total_steps: int, head_steps: int = 0) -> None:
        self.params, self.total_steps, self.head_steps = params, total_steps, head_steps
        self.initial_peak = peak
        self.peak = tf.Variable(peak, dtype=tf.float32, trainable=False, name="peak_learning_rate")

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the rate, a float32 scalar, for the step counted from 0."""
        if self.params.name == "constant":
            return tf.convert_to_tensor(self.peak)
        progress = tf.cast(step - self.head_steps, tf.float32) / max(self.total_steps - self.head_steps, 1)
        warmup = self.params.warmup
        up = self.params.start + (1 - self.params.start) * progress / max(warmup, 1e-9)
        left = (1 - progress) / max(1 - warmup, 1e-9)
        if self.params.name == "cosine":
            left = 0.5 - 0.5 * tf.cos(math.pi * left)
        down = self.params.end + (1 - self.params.end) * left
        return self.peak * tf.where(progress < 0, 1.0, tf.where(progress < warmup, up, down))

    def reduce_for(self, watched: Sequence[float]) -> None:
        """Set the peak to what the watched values so far, the lower the better, have made of it."""
        reductions = count_reductions(watched, self.params.reduce_patience)
        self.peak.assign(self.initial_peak * self.params.reduce_factor**reductions)


def watched_values(history: History, watch: str) -> list[float]:
    """Return what is watched, a value an epoch and the lower the better: a loss, or a share of right answers negated.

    All that is decided by it is decided by these values alone, which a checkpoint holds in its history: so a resumed
    run goes on as the uninterrupted one did.
    """
    values = [logs[f"validation_{watch}"] for logs in history]
    return values if watch == "loss" else [-value for value in values]


def count_reductions(watched: Sequence[float], patience: int) -> int:
    """Return how often the rate has been lowered: each time `patience` epochs passed without a lower value.

    The rule is that of keras.callbacks.ReduceLROnPlateau; a patience of 0 never lowers.
    """
    best, waited, reductions = float("inf"), 0, 0
    for value in watched if patience else ():
        if value < best - PLATEAU_MIN_DELTA:
            best, waited = value, 0
            continue
        waited += 1
        if waited >= patience:
            waited, reductions = 0, reductions + 1
    return reductions


def best_epoch(watched: Sequence[float]) -> int:
    """Return the index of the first epoch of the lowest value."""
    return min(range(len(watched)), key=watched.__getitem__)


def should_stop(watched: Sequence[float], patience: int) -> bool:
    """Tell whether `patience` epochs have passed since the best one, as keras.callbacks.EarlyStopping does."""
    return bool(patience) and len(watched) - 1 - best_epoch(watched) >= patience
