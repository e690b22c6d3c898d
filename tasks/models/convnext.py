"""ConvNeXt-Tiny (arXiv 2201.03545) as keras.applications has it, its convolutions of single channels as such.

Layers have Keras's names. There is no batch norm: layer norm is of one place of one image, on any number of replicas.
"""

import keras

from tasks.models.gelu import gelu
from tasks.models.layers import LayerScale

DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)
EPSILON = 1e-6
NAME, OUTPUT_NORM = "convnext_tiny", "output_norm"


def convnext_tiny(images: keras.KerasTensor, frozen_stages: int = 0) -> keras.KerasTensor:
    """Return features (N, ⌊H/32⌋, ⌊W/32⌋, 768) of scaled images (N, H, W, 3).

    Args:
        images: Scaled as the pretrained weights want them.
        frozen_stages: The stem and so many stages, of four, are not trained; 0 for training everything.
    """
    trained = frozen_stages == 0
    x = keras.layers.Conv2D(WIDTHS[0], 4, 4, trainable=trained, name=f"{NAME}_stem_conv")(images)
    x = _norm(x, f"{NAME}_stem_layernorm", trained)
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        trained = stage >= frozen_stages
        if stage:
            x = _norm(x, f"{NAME}_downsampling_layernorm_{stage - 1}", trained)
            x = keras.layers.Conv2D(width, 2, 2, trainable=trained, name=f"{NAME}_downsampling_conv_{stage - 1}")(x)
        for block in range(depth):
            x = _block(x, f"{NAME}_stage_{stage}_block_{block}", trained)
    return _norm(x, OUTPUT_NORM, True)


def _block(x: keras.KerasTensor, name: str, trained: bool) -> keras.KerasTensor:
    """Filter each channel by itself, normalize, widen and narrow each place by itself; add what came in."""
    first, width = x, x.shape[-1]
    x = keras.layers.DepthwiseConv2D(7, padding="same", trainable=trained, name=f"{name}_depthwise_conv")(x)
    x = _norm(x, f"{name}_layernorm", trained)
    x = keras.layers.Dense(4 * width, trainable=trained, name=f"{name}_pointwise_conv_1")(x)
    x = keras.layers.Activation(gelu, name=f"{name}_gelu")(x)
    x = keras.layers.Dense(width, trainable=trained, name=f"{name}_pointwise_conv_2")(x)
    x = LayerScale(trainable=trained, name=f"{name}_layer_scale")(x)
    return keras.layers.Add(name=f"{name}_add")([first, x])


def _norm(x: keras.KerasTensor, name: str, trained: bool) -> keras.KerasTensor:
    return keras.layers.LayerNormalization(epsilon=EPSILON, trainable=trained, name=name)(x)
