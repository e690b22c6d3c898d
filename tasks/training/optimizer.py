"""The recipe's optimizer. All are built on Keras's base class, which sums gradients over replicas."""

from typing import Any

import keras

from tasks.models.layers import whitening_biases
from tasks.params.recipe import Recipe
from tasks.training.adam import Adam
from tasks.training.muon import Muon
from tasks.training.nesterov import NesterovSGD
from tasks.training.schedule import RateSchedule


def build_optimizer(recipe: Recipe, schedule: RateSchedule, model: keras.Model) -> Any:
    """Return the recipe's optimizer, built for the model's trainable variables; call it in the strategy's scope."""
    params = recipe.optimizer
    if params.name == "adam":
        optimizer: Any = Adam(schedule)
    else:
        biases = whitening_biases(model)
        betas = [variable.path for variable in model.trainable_variables if variable.path.endswith("/beta")]
        settings: dict[str, Any] = {
            "momentum": params.momentum,
            "l2": params.l2,
            "rate_factors": {
                **dict.fromkeys(betas, params.batch_norm_rate_factor),
                **dict.fromkeys(biases, recipe.model.whitening.bias_rate_factor),
            },
        }
        if params.name == "muon":
            # A ratio, since one schedule drives both rates.
            optimizer = Muon(schedule, params.kernel_rate / params.learning_rate, params.kernel_momentum, **settings)
        else:
            optimizer = NesterovSGD(schedule, **settings)
    optimizer.build(model.trainable_variables)
    return optimizer
