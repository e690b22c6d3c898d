"""Weights of a network of keras.applications, from a file of any format that Keras writes, put into ours by name."""

from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.models import heads
from tasks.models.applications import keras_network
from tasks.models.convnext import OUTPUT_NORM
from tasks.models.keras_file import Layer, read_layers
from tasks.models.normalized_convolution import NormalizedConvolution
from tasks.models.weights_file import stored_shapes
from tasks.stage.errors import InputError

NEWER = ".weights.h5"  # by another ending Keras takes a file for one of the older format, and reads all of it


def load_keras_weights(model: keras.Model, base: str, path: Path) -> None:
    """Give the backbone of a model the weights of a file; the head keeps its own.

    They go into Keras's own network first, by order as Keras does it: in older files layers have other names.

    Args:
        model: With a backbone whose layers have the names that they have in keras.applications.
        base: Which backbone.
        path: A `.weights.h5`, or a file of the older format, of the network without its top.

    Raises:
        InputError: There is no such file, it is damaged, or has not exactly the weights of this network.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no file of weights here")
    network = keras_network(base, model.input.shape[-1])
    try:
        layers = read_layers(path)
        if layers is None:
            _load_newer(network, path)
        else:
            _assign(network, layers)
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} does not fit {base}: {str(error).strip().partition(chr(10))[0]}") from error
    _hand_over(network, model)


def _load_newer(network: keras.Model, path: Path) -> None:
    if not path.name.endswith(NEWER):
        raise InputError(f"has weights in none of Keras's formats, or in the newer one and is not named …{NEWER}")
    with path.open("rb") as stream:
        found = stored_shapes(stream, path.stat().st_size)
    wanted = [tuple(weight.shape) for weight in network.weights]
    if sorted(found) != sorted(wanted):
        raise InputError(f"does not fit the network: its {len(found)} arrays are not the {len(wanted)} of the network")
    for weight in network.weights:
        weight.assign(np.full(weight.shape, np.nan))  # Keras passes over a layer that it does not find
    network.load_weights(path)
    if not all(np.isfinite(weight).all() for weight in network.get_weights()):
        raise InputError("lacks weights of the network where Keras looks for them, or has such as are no numbers")


def _assign(network: keras.Model, layers: list[Layer]) -> None:
    """Set each layer's weights, in Keras's older order: those that are trained come first."""
    wanted = [layer for layer in network.layers if layer.weights]
    if len(wanted) != len(layers):
        raise InputError(f"does not fit the network: it has {len(layers)} layers of weights instead of {len(wanted)}")
    for layer, arrays in zip(wanted, layers, strict=True):
        weights = [*layer.trainable_weights, *layer.non_trainable_weights]
        if [tuple(weight.shape) for weight in weights] != [array.shape for array in arrays]:
            raise InputError(f"does not fit the network: the weights of {layer.name} have other shapes")
        for weight, array in zip(weights, arrays, strict=True):
            weight.assign(array)


def _hand_over(network: keras.Model, model: keras.Model) -> None:
    """Set the weights of a model's backbone to those of Keras's network, layer by layer."""
    sources = {layer.name: layer for layer in _flat(network)}
    sources[OUTPUT_NORM] = network.layers[-1]  # which has no name of its own in Keras
    norms = {
        layer.input._keras_history.operation.name: layer
        for layer in sources.values()
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    for layer in model.layers:
        if layer.weights and layer.name not in heads.LAYERS:
            values = _values(sources[layer.name], layer)
            if isinstance(layer, NormalizedConvolution):
                values += norms[layer.name].get_weights()
            layer.set_weights(values)


def _values(source: keras.layers.Layer, layer: keras.layers.Layer) -> list[NDArray[np.floating]]:
    """Return the weights of a layer of Keras's in the order of axes that ours has."""
    values: list[NDArray[np.floating]] = source.get_weights()
    if isinstance(layer, keras.layers.DepthwiseConv2D) and not isinstance(source, keras.layers.DepthwiseConv2D):
        values[0] = values[0].transpose(0, 1, 3, 2)  # of a convolution in as many groups as there are channels
    return values


def _flat(network: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a network and of the models in it."""
    return [
        inner for layer in network.layers for inner in (_flat(layer) if isinstance(layer, keras.Model) else [layer])
    ]
