"""SGD with Nesterov momentum whose rate acts at once."""

from typing import Any

import keras
import tensorflow as tf


class NesterovSGD(keras.optimizers.Optimizer):
    """SGD with Nesterov momentum and L2, as PyTorch defines it, with rates of their own for chosen variables.

    g ← g + l2·w;  v ← momentum·v + g;  w ← w - rate·(g + momentum·v). Unlike in Keras's SGD the rate is outside the
    velocity, so that a falling rate acts at once (airbench, arXiv 2404.00498, trains with this form).

    Args:
        learning_rate: Rate or schedule, for a mean loss.
        momentum: Share of the velocity kept a step.
        l2: Coefficient on the weight, added to the mean loss's gradient.
        rate_factors: A variable's rate over the common one, by its path; its l2 is `l2` divided by it.
    """

    def __init__(
        self,
        learning_rate: Any,
        momentum: float,
        l2: float,
        rate_factors: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum, self.l2 = momentum, l2
        self.rate_factors = rate_factors or {}

    def build(self, variables: list[keras.Variable]) -> None:
        """Make a velocity for every variable and note the variables that have a rate of their own."""
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        self._factors = [self.rate_factors.get(v.path, 1.0) for v in variables]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Apply the equations above to one variable."""
        index = self._get_variable_index(variable)
        # Keras hands over TensorFlow's variable; its own lists hold keras.Variables, whose `value` is that.
        velocity, factor = self._velocities[index], self._factors[index]
        gradient = tf.cast(gradient, variable.dtype) + self.l2 / factor * variable
        rate = tf.cast(learning_rate, variable.dtype) * factor
        # TensorFlow's momentum has this form: accum ← momentum·accum + grad; var ← var - lr·(grad + momentum·accum).
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=velocity.value.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=True,
        )
