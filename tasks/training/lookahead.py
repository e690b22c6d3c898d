"""Lookahead: a slow copy of the weights that the fast ones are pulled back to every few steps."""

import keras
import tensorflow as tf

from tasks.params.recipe import LookaheadParams


class Lookahead:
    """Slow weights (arXiv 1907.08610), batch norm statistics included, annealed as in airbench (arXiv 2404.00498).

    Every `every` steps slow ← k·slow + (1 - k)·fast and fast ← slow, with k = decay^every · (step / steps)^power; after
    the last of all steps k = 1, while a run that stops early keeps its fast weights. Made and used in the strategy's
    cross-replica context.
    """

    def __init__(self, params: LookaheadParams, model: keras.Model, total_steps: int) -> None:
        self.params, self.total_steps = params, total_steps
        self._fast = [weight.value for weight in model.weights]
        self.slow = [tf.Variable(weight, trainable=False) for weight in self._fast]

    def after_step(self, step: int) -> None:
        """Pull the weights together if `step`, counted from 1, is a multiple of `every` or the last."""
        if step % self.params.every == 0:
            share = self.params.decay**self.params.every * (step / self.total_steps) ** self.params.power
            self._pull(tf.constant(share, tf.float64))
        if step == self.total_steps:
            self._pull(tf.constant(1.0, tf.float64))

    @tf.function(autograph=False)
    def _pull(self, kept: tf.Tensor) -> None:
        for fast, slow in zip(self._fast, self.slow, strict=True):
            share = tf.cast(kept, fast.dtype)
            slow.assign(share * slow + (1 - share) * fast)
            fast.assign(slow)
