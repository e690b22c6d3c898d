"""Put a base and a head together: uint8 images in, probabilities out, with the preprocessing inside."""

from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.models.backbones import BACKBONES
from tasks.models.efficientnet_lite import SIZES
from tasks.models.heads import HEADS
from tasks.models.keras_weights import load_keras_weights
from tasks.models.layers import PixelScaling, WhiteningConvolution
from tasks.models.pretrained import Packaged, pretrained_of
from tasks.models.torch_weights import load_torch_weights
from tasks.models.whitening import PixelStatistics, whitening_kernel
from tasks.params.recipe import ModelParams

# How pixels are scaled for weights of ImageNet: means and deviations, in 0 to 255, and whether red comes last.
Scaling = tuple[list[float], list[float], bool]
CAFFE: Scaling = ([103.939, 116.779, 123.68], [1.0] * 3, True)
TORCH: Scaling = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], False)  # 255 · (0.485, …) and 255 · (0.229, …)
SCALINGS: dict[str, Scaling] = {
    "vgg16": CAFFE,
    "resnet50": CAFFE,
    "efficientnet_v2_b0": TORCH,
    "convnext_tiny": TORCH,
    "mobilenet_v3_large": ([127.5] * 3, [127.5] * 3, False),
    **dict.fromkeys(SIZES, ([127.0] * 3, [128.0] * 3, False)),
}


def build_model(
    params: ModelParams, image_shape: tuple[int | None, int | None, int], classes: int, statistics: PixelStatistics
) -> keras.Model:
    """Return a model from uint8 images (N, H, W, 3) to float32 probabilities (N, classes); H and W may be of any size.

    Its layer `logits` gives the logits, whose temperature is 1 (with_temperature). Initial weights follow
    keras.utils.set_random_seed; the compute dtype follows Keras's global dtype policy, and the probabilities never have
    less than float32.
    """
    inputs = keras.Input(image_shape, dtype="uint8", name="images")
    scaled = _scaling(params, statistics)(inputs)
    features = BACKBONES[params.base](scaled, params)
    logits = HEADS[params.head](features, classes, params)
    wide = "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"
    return keras.Model(inputs, _probabilities(logits, 1.0, wide), name=f"{params.base}_{params.head}")


def logits_of(model: keras.Model) -> keras.Model:
    """Return the same network, sharing its weights, up to its logits (N, classes)."""
    return keras.Model(model.input, model.get_layer("logits").output, name=f"{model.name}_logits")


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Return the same network, sharing its weights, whose probabilities are softmax(logits / temperature).

    The temperature is a layer's setting, not a weight: a saved model holds it, and has no more parameters for it.
    """
    logits = model.get_layer("logits").output
    return keras.Model(model.input, _probabilities(logits, temperature, model.output.dtype), name=model.name)


def whiten(
    model: keras.Model, params: ModelParams, images: NDArray[np.uint8], statistics: PixelStatistics, seed: int = 0
) -> None:
    """Set the kernel of every whitening convolution from a sample of the training images.

    Args:
        model: As build_model gives it.
        params: Its parameters: `whitening.images` are looked at.
        images: uint8 (N, H, W, 3); they may be memory-mapped, and in folders lie class by class.
        statistics: Of their pixels.
        seed: Of the sample.
    """
    sample = images
    if len(images) > params.whitening.images:
        chosen = np.random.RandomState(seed).permutation(len(images))[: params.whitening.images]  # a frozen stream
        sample = images[np.sort(chosen)]
    for layer in model.layers:
        if isinstance(layer, WhiteningConvolution):
            layer.kernel.assign(whitening_kernel(np.asarray(sample), statistics, layer.SIZE, params.whitening.epsilon))


def load_pretrained(model: keras.Model, params: ModelParams, folder: Path) -> None:
    """Give a model the weights that it begins with, where its base begins from such.

    Args:
        model: As build_model gives it.
        params: Its parameters.
        folder: What the stage `weights` has made.

    Raises:
        InputError: They are missing, damaged, or not of this network.
    """
    known = pretrained_of(params.base, params.weights)
    if isinstance(known, Packaged):
        load_torch_weights(model, folder / known.file_name)
    elif known is not None:
        load_keras_weights(model, params.base, folder / known.file_name)
    elif params.weights != "none":
        load_keras_weights(model, params.base, Path(params.weights))


def _probabilities(logits: keras.KerasTensor, temperature: float, dtype: str) -> keras.KerasTensor:
    scaled = keras.layers.Rescaling(1 / temperature, dtype=dtype, name="temperature")(logits)
    return keras.layers.Softmax(dtype=dtype, name="probabilities")(scaled)


def _scaling(params: ModelParams, statistics: PixelStatistics) -> PixelScaling:
    channels = len(statistics.mean)
    if params.scaling == "standard":
        return PixelScaling(list(statistics.mean), list(statistics.std), name="scaling")
    if params.scaling == "imagenet":
        mean, deviation, reverse = SCALINGS.get(params.base, CAFFE)
        return PixelScaling(mean, deviation, reverse, name="scaling")
    return PixelScaling([0.0] * channels, [255.0] * channels, name="scaling")
