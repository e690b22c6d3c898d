"""The model's answers to all test images: as they are, and averaged over views."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.evaluation.metrics import Floats, Labels, Probabilities
from tasks.evaluation.tta import VIEWS, WEIGHTS, Images, average, views
from tasks.stage.errors import InputError
from tasks.stage.progress import Progress

MAX_DEVIATION = 1e-3  # of a sum of probabilities from 1


@dataclass(frozen=True)
class Predictions:
    """What a model answers to all images, in their order.

    Attributes:
        single: Probabilities for the images as they are, float32 (N, C).
        augmented: The most probable class by the weighted mean of the views' log-probabilities, int32 (N,).
        images_per_second: For the images as they are, tracing left out.
        augmentation: Which views, as in tasks.evaluation.tta.views.
    """

    single: Probabilities
    augmented: Labels
    images_per_second: float
    augmentation: str


def predict_all(network: keras.Model, images: Images, batch_size: int, augmentation: str) -> Predictions:
    """Run a network over every view of every image, in batches of which the last may be short; shows progress.

    Fixed batches and full float32 (no TF32) make the bits the same from run to run on one machine, and within
    rounding those of single images on another. Of the views no more is kept than a batch's.

    Args:
        network: uint8 (N, H, W, 3) in, float32 probabilities (N, C) out.
        images: uint8 (N, H, W, 3), at least one; may be memory-mapped.
        batch_size: Images at once.
        augmentation: As in tasks.evaluation.tta.views.

    Raises:
        InputError: The answers are not probabilities.
    """
    answer = _answering(network, images.shape[1:])
    count, chosen, seconds = len(images), views(augmentation), 0.0
    answer(images[:batch_size])  # tracing and choosing kernels is not throughput
    single = np.empty((count, network.output_shape[-1]), np.float32)
    augmented = np.empty(count, np.int32)
    progress = Progress(count, "images")
    for first in range(0, count, batch_size):
        batch, answers = images[first : first + batch_size], list[tuple[float, Probabilities]]()
        for weight, view in chosen:
            start = time.monotonic()
            answers.append((weight, answer(view(batch))))
            seconds += time.monotonic() - start if len(answers) == 1 else 0
        part = slice(first, first + len(batch))
        single[part], augmented[part] = answers[0][1], average(answers).argmax(axis=1)
        progress.update(part.stop, "test images" + (f", {len(chosen)} views each" if len(chosen) > 1 else ""))
    progress.close()
    return Predictions(single, augmented, count / max(seconds, 1e-9), augmentation)


def average_views(
    network: keras.Model, images: Images, positions: NDArray[np.int64], batch_size: int
) -> dict[str, Floats]:
    """Return for each kind of views the weighted mean of their log-probabilities, float64 (N, C); shows progress.

    Args:
        network: As in predict_all.
        images: uint8 (M, H, W, 3); may be memory-mapped.
        positions: Which of them, (N,).
        batch_size: Images at once.

    Raises:
        InputError: The answers are not probabilities.
    """
    answer = _answering(network, images.shape[1:])
    parts: dict[str, list[Floats]] = {kind: [] for kind in WEIGHTS}
    progress = Progress(len(positions), "images")
    for first in range(0, len(positions), batch_size):
        batch = images[positions[first : first + batch_size]]
        answers = [answer(view(batch)) for view in VIEWS]
        for kind, weights in WEIGHTS.items():
            parts[kind].append(average(zip(weights, answers, strict=False)))
        progress.update(first + len(batch), f"validation images, {len(VIEWS)} views each")
    progress.close()
    return {kind: np.concatenate(part) for kind, part in parts.items()}


def _answering(network: keras.Model, shape: tuple[int, ...]) -> Callable[[Images], Probabilities]:
    """Return what answers images of a shape, in full float32."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
    signature = [tf.TensorSpec((None, *shape), tf.uint8)]
    # Our own function: Keras's predict may compile with XLA, which is slower on a CPU.
    run = tf.function(lambda batch: network(batch, training=False), input_signature=signature)
    return lambda batch: _checked(run(np.ascontiguousarray(batch)).numpy())


def _checked(probabilities: Probabilities) -> Probabilities:
    deviation = np.abs(probabilities.sum(axis=1) - 1).max()
    if not deviation <= MAX_DEVIATION:  # also where it is not a number
        raise InputError("the model's answers are not probabilities that sum to 1; it may have diverged in training")
    return probabilities
