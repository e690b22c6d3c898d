"""Adam with decoupled weight decay and rates that differ from layer to layer."""

from typing import Any

import keras
import tensorflow as tf

from tasks.training.adam import Adam


class AdamW(Adam):
    """AdamW (arXiv 1711.05101): w ← w - rate · decay · w beside Adam's step, for kernels and matrices only.

    Args:
        learning_rate: Rate or schedule.
        weight_decay: The decay above.
        rate_factors: A variable's rate over the common one, by its path; 1 for those that are not there.
        starts: The step, counted from 0, at which a variable's training begins, by its path; 0 for those not there.
    """

    def __init__(
        self, learning_rate: Any, weight_decay: float, rate_factors: dict[str, float], starts: dict[str, int]
    ) -> None:
        super().__init__(learning_rate)
        self.decay, self.rate_factors, self.starts = weight_decay, rate_factors, starts

    def build(self, variables: list[keras.Variable]) -> None:
        """Make the moments of every variable and note its rate."""
        if self.built:
            return
        super().build(variables)
        self._factors = [self.rate_factors.get(variable.path, 1.0) for variable in variables]
        self._starts = [self.starts.get(variable.path, 0) for variable in variables]

    def steps_of(self, index: int) -> tf.Tensor:
        """Return which step of a variable the present one is, counted from 1."""
        return super().steps_of(index) - self._starts[index]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable and its two moments."""
        rate = tf.cast(learning_rate, variable.dtype) * self._factors[self._get_variable_index(variable)]
        if self.decay and len(variable.shape) > 1:
            self.assign_sub(variable, rate * self.decay * variable)
        super().update_step(gradient, variable, rate)
