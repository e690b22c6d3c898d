"""Backbones: functions from scaled images (N, H, W, 3) to features (N, h, w, c). A new one is a line in BACKBONES."""

from collections.abc import Callable
from typing import Any

import keras

from tasks.models.applications import application
from tasks.models.convnext import convnext_tiny
from tasks.models.convolution import Convolution
from tasks.models.efficientnet_lite import SIZES, efficientnet_lite
from tasks.models.efficientnet_v2 import efficientnet_v2_b0
from tasks.models.gelu import gelu
from tasks.models.layers import BatchNormalization, PartialIdentity, WhiteningConvolution
from tasks.models.mobilenet_v3 import mobilenet_v3_large
from tasks.params.recipe import ModelParams

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
        return application(images, params)
    x = images
    for block, (convolutions, filters) in enumerate(VGG16_BLOCKS, start=1):
        for convolution in range(1, convolutions + 1):
            name = f"block{block}_conv{convolution}"
            x = Convolution(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=name)(x)
            x = BatchNormalization(params.batch_norm_momentum, name=f"{name}_norm")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return x


def pretrained_lite(images: keras.KerasTensor, params: ModelParams) -> keras.KerasTensor:
    """EfficientNet-Lite (arXiv 1905.11946) of the size that params.base names; its weights are loaded afterwards."""
    return efficientnet_lite(images, SIZES[params.base], params.frozen_stages)


def pretrained(network: Callable[[keras.KerasTensor, int], keras.KerasTensor]) -> Base:
    """Return a base that is a network of a frozen part and another; its weights are loaded afterwards."""
    return lambda images, params: network(images, params.frozen_stages)


BACKBONES: dict[str, Base] = {
    "airbench": airbench,
    "vgg16": vgg16,
    "resnet50": application,  # arXiv 1512.03385
    **dict.fromkeys(SIZES, pretrained_lite),
    "efficientnet_v2_b0": pretrained(efficientnet_v2_b0),
    "mobilenet_v3_large": pretrained(mobilenet_v3_large),
    "convnext_tiny": pretrained(convnext_tiny),
}


def activation(name: str) -> Callable[[Any], Any] | str:
    """Return a Keras activation: our exact `gelu`, which is faster than Keras's, the others as Keras names them."""
    return gelu if name == "gelu" else name
