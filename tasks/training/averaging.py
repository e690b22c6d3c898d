"""Averaged weights: an exponential moving average of all weights, which is validated and published in their place."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from tasks.params.recipe import AveragingParams


class Averaging:
    """The average of the weights after each step, batch norm statistics included; training goes on with the weights.

    After step t, counted from 1, average ← average - (1 - k)·(average - weight) with k = min(decay, (1 + t)/(10 + t)),
    as tf.train.ExponentialMovingAverage has it: the first weights are soon forgotten. Polyak and Juditsky (SIAM J.
    Control Optim. 30:838-855, 1992, doi 10.1137/0330046) give all steps the same share; an average that forgets suits
    weights that still move. Made in the strategy's scope, once the model has the weights that it begins with.
    """

    def __init__(self, params: AveragingParams, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        self._decay, self._strategy = params.decay, strategy
        self._weights = [weight.value for weight in model.weights]
        self.averages = [tf.Variable(weight, trainable=False) for weight in self._weights]

    def after_step(self, step: tf.Tensor) -> None:
        """Take in the weights after a step, counted from 1, in the strategy's cross-replica context."""
        steps = tf.cast(step, tf.float64)
        share = 1 - tf.minimum(tf.constant(self._decay, tf.float64), (1 + steps) / (10 + steps))
        for weight, average in zip(self._weights, self.averages, strict=True):
            # Each replica its own copy: assigned as a whole, the first one's would be sent to the others every step.
            self._strategy.extended.update(average, _move, args=(weight, share))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the model hold the averages, and then, whatever happens, its own weights again, to the bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @tf.function(autograph=False)
    def _exchange(self) -> None:
        for weight, average in zip(self._weights, self.averages, strict=True):
            held = tf.identity(weight)
            weight.assign(average)
            average.assign(held)


def _move(average: tf.Variable, weight: tf.Variable, share: tf.Tensor) -> None:
    average.assign_sub(tf.cast(share, average.dtype) * (average - weight))
