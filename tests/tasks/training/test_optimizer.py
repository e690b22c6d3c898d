import keras
import numpy as np
import pytest

from tasks.params.recipe import LookaheadParams
from tasks.training.adam import Adam
from tasks.training.adamw import AdamW
from tasks.training.lookahead import Lookahead
from tasks.training.nesterov import NesterovSGD
from tasks.training.optimizer import falling_rates


def test_adam_is_that_of_keras() -> None:
    ours, theirs = (keras.Variable(np.array([1.0, -2.0, 0.5]), name="kernel", dtype="float64") for _ in range(2))
    optimizers = [(Adam(0.1), ours), (keras.optimizers.Adam(0.1), theirs)]
    for step in range(5):
        gradient = keras.ops.convert_to_tensor(np.array([0.3, step, -1e-3]), "float64")
        for optimizer, variable in optimizers:
            optimizer.apply([gradient], [variable])
    # Keras takes the powers of its betas in float32.
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-5)
    assert (np.abs(ours.numpy() - [1.0, -2.0, 0.5]) > 0.1).all()


def test_adamw_decays_kernels_alone_and_each_layer_at_its_own_rate() -> None:
    kernel = keras.Variable([[1.0], [-2.0]], name="kernel")
    bias = keras.Variable([1.0], name="bias")
    optimizer = AdamW(0.1, 0.5, rate_factors={"kernel": 0.2}, starts={})
    optimizer.build([kernel, bias])
    optimizer.apply([keras.ops.zeros((2, 1)), keras.ops.zeros((1,))])
    np.testing.assert_allclose(kernel.numpy(), np.array([[1.0], [-2.0]]) * (1 - 0.1 * 0.2 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(bias.numpy(), [1.0])


def test_adamw_begins_afresh_with_what_is_trained_later() -> None:
    late, alone = (keras.Variable([1.0, -2.0], name=name) for name in ("late", "alone"))
    head = keras.Variable([0.0], name="head")
    optimizer = AdamW(0.1, 0.0, rate_factors={}, starts={"late": 3})
    optimizer.build([late, head])
    for _ in range(3):
        optimizer.apply([keras.ops.ones((1,))], [head])
    other = AdamW(0.1, 0.0, rate_factors={}, starts={})
    other.build([alone])
    for step in range(4):
        gradient = keras.ops.convert_to_tensor(np.array([0.3, step], np.float32))
        optimizer.apply([gradient], [late])
        other.apply([gradient], [alone])
    np.testing.assert_allclose(late.numpy(), alone.numpy(), rtol=1e-6)


def test_rates_fall_by_equal_factors_towards_the_input() -> None:
    inputs = keras.Input((1,))
    layers = [keras.layers.Dense(1, name=name) for name in ("first", "middle", "last")]
    outputs = layers[2](layers[1](layers[0](inputs)))
    rates = falling_rates(keras.Model(inputs, outputs), 0.01)
    assert rates == {
        f"{layer}/{weight}": pytest.approx(rate)
        for layer, rate in (("first", 0.01), ("middle", 0.1), ("last", 1.0))
        for weight in ("kernel", "bias")
    }


def test_nesterov_sgd_follows_its_equations() -> None:
    weight = keras.Variable(np.array([1.0, -2.0]), name="kernel")
    beta = keras.Variable(np.array([0.5]), name="beta")
    beta._path = "norm/beta"
    optimizer = NesterovSGD(0.1, momentum=0.9, l2=0.01, rate_factors={"norm/beta": 4})
    optimizer.build([weight, beta])
    expected = {"weight": np.array([1.0, -2.0]), "beta": np.array([0.5])}
    velocity = {name: np.zeros_like(value) for name, value in expected.items()}
    for step in range(4):
        gradients = {"weight": np.array([0.3, step]), "beta": np.array([-1.0])}
        optimizer.apply([keras.ops.cast(g, "float32") for g in gradients.values()])
        for name, gradient in gradients.items():
            factor = 4 if name == "beta" else 1
            total = gradient + 0.01 / factor * expected[name]
            velocity[name] = 0.9 * velocity[name] + total
            expected[name] = expected[name] - 0.1 * factor * (total + 0.9 * velocity[name])
    for variable, name in ((weight, "weight"), (beta, "beta")):
        np.testing.assert_allclose(variable.numpy(), expected[name], rtol=1e-5)


def test_lookahead_pulls_every_few_steps_and_ends_on_the_slow_weights() -> None:
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="zeros")(inputs))
    lookahead = Lookahead(LookaheadParams(every=2, decay=0.9, power=1.0), model, total_steps=5)
    slow = fast = 0.0
    for step in range(1, 6):
        fast += 1.0
        model.weights[0].assign([[fast]])
        lookahead.after_step(step)
        kept = {2: 0.9**2 * 2 / 5, 4: 0.9**2 * 4 / 5}.get(step)
        if kept is not None:
            slow = fast = kept * slow + (1 - kept) * fast
        if step == 5:
            fast = slow
        np.testing.assert_allclose(np.asarray(model.weights[0]).item(), fast, rtol=1e-5)
