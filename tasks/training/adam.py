"""Adam in one pass over a weight and its moments, where Keras's own takes several."""

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):
    """Adam (arXiv 1412.6980) with Keras's defaults and equations: the rate is corrected for bias, epsilon is not."""

    def steps_of(self, index: int) -> tf.Tensor:
        """Return which step of a variable the present one is, counted from 1: how far its moments are to be trusted."""
        return self.iterations.value + 1

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable and its two moments."""
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.steps_of(index), dtype)
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
