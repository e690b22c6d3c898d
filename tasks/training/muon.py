"""Muon for convolution kernels, Nesterov SGD for the rest."""

from typing import Any

import keras
import tensorflow as tf

from tasks.training.nesterov import NesterovSGD

# Newton-Schulz's quintic with the slope at zero made steep: singular values end between about 0.5 and 1.5.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 3
MIN_NORM = 1e-7


class Muon(NesterovSGD):
    """Muon as airbench94_muon has it (kellerjordan.github.io/posts/muon): a momentum's nearest orthogonal matrix.

    For a convolution's kernel, with rate_k the schedule's rate · kernel_rate: v ← kernel_momentum·v + g;
    w ← w·√filters/‖w‖; w ← w - rate_k · orthogonal(g + kernel_momentum·v), a kernel being read as a matrix with one
    column a filter. All other variables follow NesterovSGD.

    Args:
        kernel_rate: Rate of kernels over `learning_rate`.
        kernel_momentum: Share of a kernel's velocity kept a step.
        others: As for NesterovSGD.
    """

    def __init__(self, learning_rate: Any, kernel_rate: float, kernel_momentum: float, **others: Any) -> None:
        super().__init__(learning_rate, **others)
        self.kernel_rate, self.kernel_momentum = kernel_rate, kernel_momentum

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Apply the equations above to one variable."""
        index = self._get_variable_index(variable)
        # The keras.Variable has the path; the argument is TensorFlow's.
        if not _is_kernel(self._trainable_variables[index]):
            super().update_step(gradient, variable, learning_rate)
            return
        velocity, dtype = self._velocities[index], variable.dtype
        gradient = tf.cast(gradient, dtype)
        self.assign(velocity, self.kernel_momentum * velocity.value + gradient)
        direction = orthogonal(gradient + self.kernel_momentum * velocity.value)
        filters = tf.cast(variable.shape[-1], dtype)
        scaled = variable * (tf.sqrt(filters) / tf.norm(tf.convert_to_tensor(variable)))
        self.assign(variable, scaled - tf.cast(learning_rate, dtype) * self.kernel_rate * direction)


def orthogonal(kernel: tf.Tensor) -> tf.Tensor:
    """Return the kernel (…, filters), read as a matrix, with its singular values brought near 1.

    Newton-Schulz: X ← a·X + X·(b·G + c·G²) with G = XᵀX, on the side of the smaller Gram matrix.
    """
    matrix = tf.reshape(kernel, (-1, kernel.shape[-1]))
    matrix /= tf.norm(matrix) + MIN_NORM
    is_wide = matrix.shape[0] < matrix.shape[1]
    if is_wide:
        matrix = tf.transpose(matrix)
    for _ in range(ITERATIONS):
        gram = tf.matmul(matrix, matrix, transpose_a=True)
        matrix = A * matrix + tf.matmul(matrix, B * gram + C * tf.matmul(gram, gram))
    return tf.reshape(tf.transpose(matrix) if is_wide else matrix, kernel.shape)


def _is_kernel(variable: keras.Variable) -> bool:
    """Tell whether a variable is a convolution's kernel; a separable one's two are small and stay with SGD."""
    return len(variable.shape) == 4 and bool(variable.path.endswith("/kernel"))
