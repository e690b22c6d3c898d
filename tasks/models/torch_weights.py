"""Weights of a PyTorch network of the same architecture, put into ours by name."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.models.normalized_convolution import NormalizedConvolution
from tasks.models.torch_file import read_state_dict
from tasks.stage.errors import InputError

# A convolution and its batch norm, in the names that the package efficientnet_lite_pytorch gives them.
PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
ENDS = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
NORM = ("weight", "bias", "running_mean", "running_var")

Tensors = dict[str, NDArray[Any]]


def load_torch_weights(model: keras.Model, path: Path) -> None:
    """Give the backbone of a model the weights of a state_dict; the head keeps its own.

    Args:
        model: With tasks.models.efficientnet_lite's layers.
        path: A file that torch.save wrote.

    Raises:
        InputError: It is not such a file, or has not exactly the weights that the backbone needs.
    """
    tensors = read_state_dict(path)
    for layer, convolution, norm in _names(model):
        try:
            values = [_kernel(tensors[f"{convolution}.weight"], layer), *(tensors[f"{norm}.{part}"] for part in NORM)]
        except KeyError as error:
            raise InputError(f"{path} does not fit the network: it has no {error.args[0]}") from error
        wanted = [tuple(weight.shape) for weight in _weights(layer)]
        if [value.shape for value in values] != wanted:
            raise InputError(f"{path} does not fit the network: {convolution} or {norm} has another shape")
        for weight, value in zip(_weights(layer), values, strict=True):
            weight.assign(value.astype(np.float32))


def _names(model: keras.Model) -> list[tuple[NormalizedConvolution, str, str]]:
    """Return each convolution of the backbone with PyTorch's names of it and of its batch norm."""
    found: list[tuple[NormalizedConvolution, str, str]] = []
    block = -1
    for layer in model.layers:
        if not isinstance(layer, NormalizedConvolution):
            continue
        place, _, part = layer.name.rpartition("_")
        if layer.name in ENDS:
            found.append((layer, *ENDS[layer.name]))
            continue
        if not found[-1][0].name.startswith(f"{place}_"):
            block += 1
        convolution, norm = PARTS[part]
        found.append((layer, f"_blocks.{block}.{convolution}", f"_blocks.{block}.{norm}"))
    return found


def _weights(layer: NormalizedConvolution) -> list[keras.Variable]:
    return [layer.kernel, layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance]


def _kernel(tensor: NDArray[Any], layer: NormalizedConvolution) -> NDArray[Any]:
    """Return a kernel (F, C, h, w), or (C, 1, h, w) of a depthwise one, in TensorFlow's order of axes."""
    if tensor.ndim != len(layer.kernel.shape):
        raise InputError(f"the weights of {layer.name} are no kernel")
    return tensor.transpose((2, 3, 0, 1) if layer.filters is None else (2, 3, 1, 0))
