"""EfficientNet-Lite (arXiv 1905.11946, made for phones): inverted bottlenecks (arXiv 1801.04381) without attention.

Against EfficientNet there is no squeeze-and-excitation, ReLU6 takes the place of swish, and the stem's and the head's
widths are the same at every size.
"""

import math
from dataclasses import dataclass, replace

import keras

from tasks.models.normalized_convolution import NormalizedConvolution

STEM_FILTERS, TOP_FILTERS = 32, 1280
EPSILON = 1e-3  # of the batch norm that it was trained with
WIDTH_MULTIPLE = 8  # filters are multiples of this


@dataclass(frozen=True)
class Stage:
    """Blocks of one width at EfficientNet-Lite0's size; the first block has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Size:
    """How much wider and deeper than EfficientNet-Lite0 a network is."""

    width: float
    depth: float


SIZES = {
    "efficientnet_lite0": Size(1.0, 1.0),
    "efficientnet_lite1": Size(1.0, 1.1),
    "efficientnet_lite2": Size(1.1, 1.2),
}


def efficientnet_lite(images: keras.KerasTensor, size: Size, frozen_stages: int = 0) -> keras.KerasTensor:
    """Return features (N, ⌈H/32⌉, ⌈W/32⌉, 1280) of scaled images (N, H, W, 3).

    Args:
        images: Scaled as the pretrained weights want them.
        size: One of SIZES.
        frozen_stages: The stem and so many stages are not trained; 0 for training everything.
    """
    x = _relu(_convolution(images, STEM_FILTERS, 3, 2, "stem", frozen_stages > 0), "stem")
    for position, stage in enumerate(STAGES, start=1):
        whole = position in (1, len(STAGES))  # the first and the last stage have one block at every size
        repeats = stage.repeats if whole else math.ceil(stage.repeats * size.depth)
        for block in range(1, repeats + 1):
            shape = replace(stage, stride=stage.stride if block == 1 else 1, filters=_width(stage.filters, size.width))
            x = _block(x, shape, f"stage{position}_block{block}", position <= frozen_stages)
    return _relu(_convolution(x, TOP_FILTERS, 1, 1, "top"), "top")


def _block(x: keras.KerasTensor, shape: Stage, name: str, frozen: bool) -> keras.KerasTensor:
    """Widen, filter each channel by itself, narrow; add what came in where the shape is the same."""
    first, channels = x, x.shape[-1]
    if shape.expansion > 1:
        x = _convolution(x, channels * shape.expansion, 1, 1, f"{name}_expand", frozen)
        x = _relu(x, f"{name}_expand")
    x = _relu(_convolution(x, None, shape.kernel, shape.stride, f"{name}_depthwise", frozen), f"{name}_depthwise")
    x = _convolution(x, shape.filters, 1, 1, f"{name}_project", frozen)
    same = shape.stride == 1 and channels == shape.filters
    return keras.layers.Add(name=f"{name}_add")([x, first]) if same else x


def _convolution(
    x: keras.KerasTensor, filters: int | None, kernel: int, stride: int, name: str, frozen: bool = False
) -> keras.KerasTensor:
    return NormalizedConvolution(filters, kernel, stride, EPSILON, trainable=not frozen, name=name)(x)


def _relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(x)


def _width(filters: int, factor: float) -> int:
    """Return the scaled number of filters, rounded to a multiple of eight, but never down by more than a tenth."""
    if factor == 1.0:
        return filters
    wanted = filters * factor
    rounded = max(WIDTH_MULTIPLE, int(wanted + WIDTH_MULTIPLE / 2) // WIDTH_MULTIPLE * WIDTH_MULTIPLE)
    return rounded + WIDTH_MULTIPLE if rounded < 0.9 * wanted else rounded
