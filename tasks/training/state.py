"""A run's state between two steps, copied off the devices and put back."""

from typing import Any

import keras

from tasks.training.averaging import Averaging
from tasks.training.checkpoint import Arrays
from tasks.training.lookahead import Lookahead


def capture(
    model: keras.Model, optimizer: Any, lookahead: Lookahead | None, averaging: Averaging | None, best: list[Any]
) -> Arrays:
    """Return all arrays that decide how the run goes on: weights, optimizer, slow, averaged and best weights."""
    return {
        "weights": model.get_weights(),
        "optimizer": [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables],
        "slow": [slow.numpy() for slow in lookahead.slow] if lookahead else [],
        "average": [average.numpy() for average in averaging.averages] if averaging else [],
        "best": best,
    }


def restore(
    arrays: Arrays, model: keras.Model, optimizer: Any, lookahead: Lookahead | None, averaging: Averaging | None
) -> None:
    """Put captured arrays back; the best weights stay with the caller."""
    model.set_weights(arrays["weights"])
    for variable, value in zip(optimizer.variables, arrays["optimizer"], strict=True):
        variable.assign(value)
    for slow, value in zip(lookahead.slow if lookahead else [], arrays["slow"], strict=True):
        slow.assign(value)
    for average, value in zip(averaging.averages if averaging else [], arrays["average"], strict=True):
        average.assign(value)
