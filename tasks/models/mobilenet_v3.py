"""MobileNetV3-Large (arXiv 1905.02244, table 1) as keras.applications has it, with its batch norm folded in.

Layers have Keras's names, a convolution that of its own. Where Keras pads by hand before a stride, it does as `same`.
"""

from dataclasses import dataclass

import keras

from tasks.models.normalized_convolution import NormalizedConvolution
from tasks.models.squeeze_excitation import Excitation, squeeze_excite

STEM_FILTERS, TOP_FILTERS = 16, 960
EPSILON = 1e-3  # of the batch norm that it was trained with
EXCITATION = Excitation("relu", "hard_sigmoid", ("squeeze_excite_conv", "squeeze_excite_conv_1"))


@dataclass(frozen=True)
class Block:
    """An inverted bottleneck.

    Attributes:
        kernel, stride: Of the convolution that filters each channel by itself.
        wide: Channels within it.
        filters: Channels that leave it.
        squeezed: By way of how many numbers squeeze-and-excitation goes; 0 for none.
        activation: Within it.
    """

    kernel: int
    stride: int
    wide: int
    filters: int
    squeezed: int = 0
    activation: str = "relu"


STAGES = (
    (Block(3, 1, 16, 16),),
    (Block(3, 2, 64, 24), Block(3, 1, 72, 24)),
    (Block(5, 2, 72, 40, 24), Block(5, 1, 120, 40, 32), Block(5, 1, 120, 40, 32)),
    (
        Block(3, 2, 240, 80, 0, "hard_silu"),
        Block(3, 1, 200, 80, 0, "hard_silu"),
        Block(3, 1, 184, 80, 0, "hard_silu"),
        Block(3, 1, 184, 80, 0, "hard_silu"),
    ),
    (Block(3, 1, 480, 112, 120, "hard_silu"), Block(3, 1, 672, 112, 168, "hard_silu")),
    (
        Block(5, 2, 672, 160, 168, "hard_silu"),
        Block(5, 1, 960, 160, 240, "hard_silu"),
        Block(5, 1, 960, 160, 240, "hard_silu"),
    ),
)


def mobilenet_v3_large(images: keras.KerasTensor, frozen_stages: int = 0) -> keras.KerasTensor:
    """Return features (N, ⌈H/32⌉, ⌈W/32⌉, 960) of scaled images (N, H, W, 3).

    Args:
        images: Scaled as the pretrained weights want them.
        frozen_stages: The stem and so many stages, of six, are not trained; 0 for training everything.
    """
    x = _active(_convolution(images, STEM_FILTERS, 3, 2, "conv", frozen_stages > 0), "hard_silu", "conv")
    number = 0
    for position, blocks in enumerate(STAGES, start=1):
        for block in blocks:
            name = f"expanded_conv_{number}_" if number else "expanded_conv_"
            x = _block(x, block, name, position <= frozen_stages)
            number += 1
    return _active(_convolution(x, TOP_FILTERS, 1, 1, "conv_1"), "hard_silu", "conv_1")


def _block(x: keras.KerasTensor, block: Block, name: str, frozen: bool) -> keras.KerasTensor:
    """Widen, filter each channel by itself, narrow; add what came in where the shape is the same."""
    first, channels = x, x.shape[-1]
    if block.wide != channels:
        expand = f"{name}expand"
        x = _active(_convolution(x, block.wide, 1, 1, expand, frozen), block.activation, expand)
    depthwise = f"{name}depthwise"
    x = _active(_convolution(x, None, block.kernel, block.stride, depthwise, frozen), block.activation, depthwise)
    if block.squeezed:
        x = squeeze_excite(x, block.squeezed, EXCITATION, name, not frozen)
    x = _convolution(x, block.filters, 1, 1, f"{name}project", frozen)
    same = block.stride == 1 and channels == block.filters
    return keras.layers.Add(name=f"{name}add")([x, first]) if same else x


def _convolution(
    x: keras.KerasTensor, filters: int | None, kernel: int, stride: int, name: str, frozen: bool = False
) -> keras.KerasTensor:
    return NormalizedConvolution(filters, kernel, stride, EPSILON, trainable=not frozen, name=name)(x)


def _active(x: keras.KerasTensor, activation: str, name: str) -> keras.KerasTensor:
    return keras.layers.Activation(activation, name=f"{name}_activation")(x)
