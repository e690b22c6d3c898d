"""The networks of keras.applications, without top, that backbones here are made of or are the same as."""

import functools
from collections.abc import Callable

import keras

from tasks.models.convolution import Convolution
from tasks.models.layers import BatchNormalization
from tasks.params.recipe import ModelParams

# What Keras scales inside a network is left out: PixelScaling does it.
APPLICATIONS: dict[str, Callable[..., keras.Model]] = {
    "vgg16": keras.applications.VGG16,
    "resnet50": keras.applications.ResNet50,
    "efficientnet_v2_b0": functools.partial(keras.applications.EfficientNetV2B0, include_preprocessing=False),
    "mobilenet_v3_large": functools.partial(keras.applications.MobileNetV3Large, include_preprocessing=False),
    "convnext_tiny": functools.partial(keras.applications.ConvNeXtTiny, include_preprocessing=False),
}


def keras_network(base: str, channels: int) -> keras.Model:
    """Return Keras's own network for images of any size, with weights by chance."""
    return APPLICATIONS[base](include_top=False, weights=None, input_shape=(None, None, channels))


def application(images: keras.KerasTensor, params: ModelParams) -> keras.KerasTensor:
    """Return the features of Keras's network of that name, with our batch norm and convolution, weights by chance.

    Where it begins from pretrained weights, its batch norm stays as it came with them, gamma and beta too: the
    statistics of a few images are worse, and on any number of replicas the same ones are used. The stages that
    `frozen_stages` names are not trained either.
    """
    network = APPLICATIONS[params.base](include_top=False, weights=None, input_tensor=images)
    clone = keras.models.clone_model(
        network,
        input_tensors=network.inputs,
        clone_function=functools.partial(_own, params),
        call_function=lambda layer, *inputs, **_: layer(*inputs),
    )
    clone.set_weights(network.get_weights())
    return clone.output


def _own(params: ModelParams, layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, keras.layers.BatchNormalization):
        return BatchNormalization(layer.momentum, layer.epsilon, name=layer.name, trainable=params.weights == "none")
    own = Convolution if type(layer) is keras.layers.Conv2D else layer.__class__
    clone = own.from_config(layer.get_config())
    if layer.name.startswith(_frozen(params)):
        clone.trainable = False
    return clone


def _frozen(params: ModelParams) -> tuple[str, ...]:
    """Return with what the names of layers begin that are not trained."""
    stages = range(1, params.frozen_stages + 1)
    if params.base == "vgg16":
        return tuple(f"block{stage}_" for stage in stages)
    return tuple(f"conv{part}_" for part in (1, *(stage + 1 for stage in stages))) if stages else ()
