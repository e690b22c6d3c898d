"""EfficientNetV2-B0 (arXiv 2104.00298) as keras.applications has it, with the statistics of its batch norm folded in.

Layers have Keras's names, a convolution that of its own. Keras leaves out residual branches by chance in training
(arXiv 1603.09382); here they stay.
"""

from dataclasses import dataclass, replace

import keras

from tasks.models.normalized_convolution import NormalizedConvolution
from tasks.models.squeeze_excitation import Excitation, squeeze_excite

STEM_FILTERS, TOP_FILTERS = 32, 1280
EPSILON = 1e-3  # of the batch norm that it was trained with
EXCITATION = Excitation("silu", "sigmoid", ("se_reduce", "se_expand"))


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first block has the stride.

    Attributes:
        fused: One convolution widens and filters; otherwise there are two, with squeeze-and-excitation behind them.
    """

    repeats: int
    stride: int
    expansion: int
    filters: int
    fused: bool = False


STAGES = (
    Stage(1, 1, 1, 16, fused=True),
    Stage(2, 2, 4, 32, fused=True),
    Stage(2, 2, 4, 48, fused=True),
    Stage(3, 2, 4, 96),
    Stage(5, 1, 6, 112),
    Stage(8, 2, 6, 192),
)


def efficientnet_v2_b0(images: keras.KerasTensor, frozen_stages: int = 0) -> keras.KerasTensor:
    """Return features (N, ⌈H/32⌉, ⌈W/32⌉, 1280) of scaled images (N, H, W, 3).

    Args:
        images: Scaled as the pretrained weights want them.
        frozen_stages: The stem and so many stages, of six, are not trained; 0 for training everything.
    """
    x = _convolution(images, STEM_FILTERS, 3, 2, "stem_conv", frozen_stages > 0)
    x = _silu(x, "stem_activation")
    for position, stage in enumerate(STAGES, start=1):
        for block in range(stage.repeats):
            shape = replace(stage, stride=stage.stride if block == 0 else 1)
            x = _block(x, shape, f"block{position}{chr(ord('a') + block)}_", position <= frozen_stages)
    return _silu(_convolution(x, TOP_FILTERS, 1, 1, "top_conv"), "top_activation")


def _block(x: keras.KerasTensor, shape: Stage, name: str, frozen: bool) -> keras.KerasTensor:
    """Widen and filter, narrow; add what came in where the shape is the same."""
    first, channels = x, x.shape[-1]
    wide = channels * shape.expansion
    if shape.expansion == 1:
        x = _silu(_convolution(x, shape.filters, 3, shape.stride, f"{name}project_conv", frozen), f"{name}activation")
    elif shape.fused:
        x = _silu(_convolution(x, wide, 3, shape.stride, f"{name}expand_conv", frozen), f"{name}expand_activation")
        x = _convolution(x, shape.filters, 1, 1, f"{name}project_conv", frozen)
    else:
        x = _silu(_convolution(x, wide, 1, 1, f"{name}expand_conv", frozen), f"{name}expand_activation")
        x = _silu(_convolution(x, None, 3, shape.stride, f"{name}dwconv2", frozen), f"{name}activation")
        x = squeeze_excite(x, channels // 4, EXCITATION, name, not frozen)
        x = _convolution(x, shape.filters, 1, 1, f"{name}project_conv", frozen)
    same = shape.stride == 1 and channels == shape.filters
    return keras.layers.Add(name=f"{name}add")([x, first]) if same else x


def _convolution(
    x: keras.KerasTensor, filters: int | None, kernel: int, stride: int, name: str, frozen: bool = False
) -> keras.KerasTensor:
    return NormalizedConvolution(filters, kernel, stride, EPSILON, trainable=not frozen, name=name)(x)


def _silu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.Activation("silu", name=name)(x)
