"""The optimizers of the recipes, on Keras's base class, which sums gradients over replicas.

Their updates are TensorFlow's fused kernels: one pass over a weight and its state where Keras's own take several.
"""

from typing import Any

import keras
import tensorflow as tf

from tasks.models.layers import WhiteningConvolution
from tasks.params import Recipe
from tasks.training.schedule import RateSchedule


def build_optimizer(recipe: Recipe, schedule: RateSchedule, model: keras.Model, steps_per_epoch: int) -> Any:
    """Return the recipe's optimizer, built for the model's trainable variables; call it in the strategy's scope."""
    if recipe.optimizer.name == "adam":
        optimizer = Adam(schedule)
    else:
        optimizer = NesterovSGD(
            schedule,
            momentum=recipe.optimizer.momentum,
            l2=recipe.optimizer.l2,
            batch_norm_rate_factor=recipe.optimizer.batch_norm_rate_factor,
            last_steps={
                layer.bias.path: int(recipe.model.whitening.bias_epochs * steps_per_epoch)
                for layer in model.layers
                if isinstance(layer, WhiteningConvolution)
            },
        )
    optimizer.build(model.trainable_variables)
    return optimizer


class Adam(keras.optimizers.Adam):
    """Adam (arXiv 1412.6980) with Keras's defaults and equations: the rate is corrected for bias, epsilon is not."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable and its two moments."""
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.iterations.value + 1, dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=gradient,
        )


class NesterovSGD(keras.optimizers.Optimizer):
    """SGD with Nesterov momentum and L2, as PyTorch defines it, with a rate of its own for batch norm's betas.

    g ← g + l2·w;  v ← momentum·v + g;  w ← w - rate·(g + momentum·v). Unlike in Keras's SGD the rate is outside the
    velocity, so that a falling rate acts at once (airbench, arXiv 2404.00498, trains with this form).

    Args:
        learning_rate: Rate or schedule, for a mean loss.
        momentum: Share of the velocity kept a step.
        l2: Coefficient on the weight, added to the mean loss's gradient.
        batch_norm_rate_factor: The betas' rate over the common one; their l2 is `l2` divided by it.
        last_steps: Step after which a variable (by its path) rests.
    """

    def __init__(
        self,
        learning_rate: Any,
        momentum: float,
        l2: float,
        batch_norm_rate_factor: float = 1.0,
        last_steps: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum, self.l2, self.batch_norm_rate_factor = momentum, l2, batch_norm_rate_factor
        self.last_steps = last_steps or {}

    def build(self, variables: list[keras.Variable]) -> None:
        """Make a velocity for every variable and note the variables that rest or have a rate of their own."""
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        self._factors = [self.batch_norm_rate_factor if v.path.endswith("/beta") else 1.0 for v in variables]
        self._last_steps = [self.last_steps.get(v.path) for v in variables]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Apply the equations above to one variable."""
        index = self._get_variable_index(variable)
        velocity, factor, last_step = self._velocities[index], self._factors[index], self._last_steps[index]
        gradient = tf.cast(gradient, variable.dtype) + self.l2 / factor * variable
        self.assign(velocity, self.momentum * velocity.value + gradient)
        rate = tf.cast(learning_rate, variable.dtype) * factor
        if last_step is not None:
            rate = tf.where(self.iterations.value < last_step, rate, tf.zeros_like(rate))
        self.assign_sub(variable, rate * (gradient + self.momentum * velocity.value))
