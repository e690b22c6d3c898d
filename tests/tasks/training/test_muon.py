import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.training.muon import Muon, orthogonal

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(3, 3, 16, 8), (1, 1, 4, 32)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    kernel = GENERATOR.standard_normal(shape)
    result = np.asarray(orthogonal(tf.constant(kernel))).reshape(-1, shape[-1])
    left, _, right = np.linalg.svd(kernel.reshape(-1, shape[-1]), full_matrices=False)
    values = np.diag(left.T @ result @ right.T)
    np.testing.assert_allclose(result, left @ np.diag(values) @ right, atol=1e-9)
    assert (values > 0.3).all()
    assert (values < 1.3).all()


def test_kernels_follow_muon_and_the_rest_nesterov() -> None:
    kernel = keras.Variable(GENERATOR.standard_normal((3, 3, 4, 8)), name="kernel", dtype="float64")
    kernel._path = "convolution/kernel"
    head = keras.Variable(np.array([[1.0, -2.0]]), name="kernel", dtype="float64")
    optimizer = Muon(0.5, kernel_rate=0.4, kernel_momentum=0.6, momentum=0.9, l2=0.01)
    optimizer.build([kernel, head])
    matrix, other, velocity, other_velocity = kernel.numpy(), head.numpy(), 0.0, 0.0
    for _ in range(3):
        gradient, other_gradient = GENERATOR.standard_normal(kernel.shape), np.array([[0.3, -0.1]])
        optimizer.apply([tf.constant(gradient), tf.constant(other_gradient)])
        velocity = 0.6 * velocity + gradient
        direction = np.asarray(orthogonal(tf.constant(gradient + 0.6 * velocity)))
        matrix = matrix * np.sqrt(8) / np.linalg.norm(matrix) - 0.5 * 0.4 * direction
        total = other_gradient + 0.01 * other
        other_velocity = 0.9 * other_velocity + total
        other = other - 0.5 * (total + 0.9 * other_velocity)
    np.testing.assert_allclose(kernel.numpy(), matrix, rtol=1e-6)
    np.testing.assert_allclose(head.numpy(), other, rtol=1e-6)
