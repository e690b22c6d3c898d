"""The recipe's optimizer. All are built on Keras's base class, which sums gradients over replicas."""

from typing import Any

import keras

from tasks.models.heads import backbone_weights
from tasks.models.layers import whitening_biases
from tasks.params.recipe import Recipe
from tasks.training.adam import Adam
from tasks.training.adamw import AdamW
from tasks.training.muon import Muon
from tasks.training.nesterov import NesterovSGD
from tasks.training.schedule import RateSchedule


def build_optimizer(recipe: Recipe, schedule: RateSchedule, model: keras.Model, head_steps: int = 0) -> Any:
    """Return the recipe's optimizer, built for the model's trainable variables; call it in the strategy's scope.

    Args:
        recipe: Names it.
        schedule: Gives its rate.
        model: Whose variables it trains.
        head_steps: For so many steps at first it is given the head's variables alone.
    """
    params = recipe.optimizer
    if params.name == "adam":
        optimizer: Any = Adam(schedule)
    elif params.name == "adamw":
        starts = dict.fromkeys(backbone_weights(model), head_steps)
        optimizer = AdamW(schedule, params.weight_decay, falling_rates(model, params.input_rate_factor), starts)
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


def falling_rates(model: keras.Model, factor: float) -> dict[str, float]:
    """Return a rate for each trained variable over the last layer's, falling geometrically to `factor` at the first."""
    layers = [layer for layer in model.layers if layer.trainable_weights]
    last = max(len(layers) - 1, 1)
    return {
        weight.path: factor ** ((last - position) / last)
        for position, layer in enumerate(layers)
        for weight in layer.trainable_weights
    }
