"""Backbones: functions from scaled images (N, H, W, 3) to features (N, h, w, c). A new one is a line in BACKBONES."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tasks.models.convolution import Convolution
from tasks.models.efficientnet_lite import SIZES, efficientnet_lite
from tasks.models.gelu import gelu
from tasks.models.layers import BatchNormalization, PartialIdentity, WhiteningConvolution
from tasks.models.weights_file import stored_shapes
from tasks.params.recipe import ModelParams
from tasks.stage.errors import InputError, OutageError

# Convolutions and filters of a block.
VGG16_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

Base = Callable[[keras.KerasTensor, ModelParams], keras.KerasTensor]


def airbench(images: keras.KerasTensor, params: ModelParams) -> keras.KerasTensor:
    """Whitening convolution and three groups of 3×3 convolutions (arXiv 2404.00498, figure 2).

    A group has two convolutions, as in airbench94, or three with a residual around the last two, as in airbench96.
    """
    x = WhiteningConvolution(2 * WhiteningConvolution.SIZE**2 * images.shape[-1], name="whitening")(images)
    x = keras.layers.Activation(activation(params.activation), name="whitening_activation")(x)
    first = x
    for group, width in enumerate(params.widths, start=1):
        for convolution in range(1, params.convolutions + 1):
            name = f"group{group}_convolution{convolution}"
            x = Convolution(width, 3, padding="same", use_bias=False, kernel_initializer=PartialIdentity(), name=name)(
                x
            )
            if convolution == 1:
                x = keras.layers.MaxPooling2D(2, name=f"group{group}_pool")(x)
            x = BatchNormalization(params.batch_norm_momentum, epsilon=0.0, scale=False, name=f"{name}_norm")(x)
            if convolution == 3:
                x = keras.layers.Add(name=f"group{group}_residual")([x, first])
            x = keras.layers.Activation(activation(params.activation), name=f"{name}_activation")(x)
            first = x if convolution == 1 else first
    return x


def vgg16(images: keras.KerasTensor, params: ModelParams) -> keras.KerasTensor:
    """VGG16's thirteen convolutions (arXiv 1409.1556, configuration D), without top, with or without batch norm."""
    if not params.batch_norm:
        return _application(keras.applications.VGG16, images, params)
    x = images
    for block, (convolutions, filters) in enumerate(VGG16_BLOCKS, start=1):
        for convolution in range(1, convolutions + 1):
            name = f"block{block}_conv{convolution}"
            x = Convolution(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=name)(x)
            x = BatchNormalization(params.batch_norm_momentum, name=f"{name}_norm")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return x


def resnet50(images: keras.KerasTensor, params: ModelParams) -> keras.KerasTensor:
    """ResNet50 (arXiv 1512.03385), without top, with our batch norm and convolution."""
    return _application(keras.applications.ResNet50, images, params)


def pretrained_lite(images: keras.KerasTensor, params: ModelParams) -> keras.KerasTensor:
    """EfficientNet-Lite (arXiv 1905.11946) of the size that params.base names; its weights are loaded afterwards."""
    return efficientnet_lite(images, SIZES[params.base], params.frozen_stages)


BACKBONES: dict[str, Base] = {
    "airbench": airbench,
    "vgg16": vgg16,
    "resnet50": resnet50,
    **dict.fromkeys(SIZES, pretrained_lite),
}


def activation(name: str) -> Callable[[Any], Any] | str:
    """Return a Keras activation: `gelu` is exact, `gelu_tanh` its approximation, the others as Keras names them."""
    return {"gelu": gelu, "gelu_tanh": "gelu"}.get(name, name)


def _application(build: Callable[..., Any], images: keras.KerasTensor, params: ModelParams) -> keras.KerasTensor:
    weights = None if params.weights in ("none", "imagenet") else Path(params.weights)
    if weights is not None and not weights.is_file():
        raise InputError(f"model.weights = {params.weights!r}: not none, imagenet or an existing .weights.h5 file")
    try:
        network = build(
            include_top=False, weights="imagenet" if params.weights == "imagenet" else None, input_tensor=images
        )
    except Exception as error:  # as which keras.utils.get_file raises whatever urllib says
        if not str(error).startswith("URL fetch failure"):
            raise
        status = getattr(error.__context__, "code", None)  # of an HTTPError
        kind = OutageError if status is None or status == 429 or status >= 500 else InputError
        raise kind(f"the weights that Keras provides for {params.base} cannot be fetched: {error}") from error
    if weights is not None:
        try:
            with weights.open("rb") as stream:
                stored_shapes(stream, weights.stat().st_size)
            network.load_weights(weights)
        except InputError as error:
            raise InputError(f"model.weights = {params.weights!r} {error}") from error
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"model.weights = {params.weights!r} does not fit {params.base}: {error}") from error
    clone = keras.models.clone_model(
        network,
        input_tensors=network.inputs,
        clone_function=_with_own_layers,
        call_function=lambda layer, *inputs, **_: layer(*inputs),
    )
    clone.set_weights(network.get_weights())
    return clone.output


def _with_own_layers(layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, keras.layers.BatchNormalization):
        return BatchNormalization(layer.momentum, layer.epsilon, name=layer.name)
    own = Convolution if type(layer) is keras.layers.Conv2D else layer.__class__
    return own.from_config(layer.get_config())
