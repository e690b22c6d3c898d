"""The heads: functions from features (N, h, w, c) to logits (N, classes). A new one is a line in HEADS."""

from collections.abc import Callable

import keras

from tasks.models.layers import BatchNormalization
from tasks.params.recipe import ModelParams

Head = Callable[[keras.KerasTensor, int, ModelParams], keras.KerasTensor]

RESIDUAL_FILTERS = 16


def residual_separable(features: keras.KerasTensor, classes: int, params: ModelParams) -> keras.KerasTensor:
    """The notebook's block: separable 1×1 convolution, batch norm, leaky ReLU; separable shortcut; add, ReLU, mean."""
    x = keras.layers.SeparableConv2D(RESIDUAL_FILTERS, 1, name="residual_convolution")(features)
    x = BatchNormalization(name="residual_norm")(x)
    x = keras.layers.LeakyReLU(name="residual_activation")(x)
    shortcut = keras.layers.SeparableConv2D(RESIDUAL_FILTERS, 1, name="shortcut_convolution")(features)
    shortcut = BatchNormalization(name="shortcut_norm")(shortcut)
    x = keras.layers.Add(name="residual_add")([x, shortcut])
    x = keras.layers.ReLU(name="residual_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    return keras.layers.Dense(classes, name="logits")(x)


def linear(features: keras.KerasTensor, classes: int, params: ModelParams) -> keras.KerasTensor:
    """Global pooling, then one matrix, with a bias where `bias` says so, scaled by `logit_scale`."""
    pooling = keras.layers.GlobalMaxPooling2D if params.pooling == "max" else keras.layers.GlobalAveragePooling2D
    x = pooling(name="pooling")(features)
    # PyTorch's default for a linear layer, which airbench inherits: uniform ± 1/√fan_in.
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    unscaled = keras.layers.Dense(classes, use_bias=params.bias, kernel_initializer=initializer, name="unscaled_logits")
    x = unscaled(x)
    return keras.layers.Rescaling(params.logit_scale, name="logits")(x)


# The names of all layers of every head that have weights; what is not among them belongs to the backbone.
LAYERS = frozenset(
    {"residual_convolution", "residual_norm", "shortcut_convolution", "shortcut_norm", "unscaled_logits", "logits"}
)

HEADS: dict[str, Head] = {"residual_separable": residual_separable, "linear": linear}


def backbone_weights(model: keras.Model) -> list[str]:
    """Return the paths of the trained weights of a model that are not its head's."""
    return [weight.path for layer in model.layers if layer.name not in LAYERS for weight in layer.trainable_weights]
