"""The model's answers to all test images: as they are, and averaged over views."""

import time
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tasks.evaluation.metrics import Floats, Probabilities
from tasks.evaluation.tta import Images, average, views
from tasks.stage.errors import InputError
from tasks.stage.progress import Progress

MAX_DEVIATION = 1e-3  # of a sum of probabilities from 1


@dataclass(frozen=True)
class Predictions:
    """What a model answers to all images, in their order.

    Attributes:
        single: Probabilities for the images as they are, float32 (N, C).
        augmented: Weighted mean of the views' log-probabilities, float64 (N, C).
        images_per_second: For the images as they are, tracing left out.
    """

    single: Probabilities
    augmented: Floats
    images_per_second: float


def predict_all(network: keras.Model, images: Images, batch_size: int, augmentation: str) -> Predictions:
    """Run a network over every view of every image, in batches of which the last may be short; shows progress.

    Fixed batches and full float32 (no TF32) make the bits the same from run to run on one machine, and within
    rounding those of single images on another.

    Args:
        network: uint8 (N, H, W, 3) in, float32 probabilities (N, C) out.
        images: uint8 (N, H, W, 3), at least one; may be memory-mapped.
        batch_size: Images at once.
        augmentation: As in test_time_augmentation.views.

    Raises:
        InputError: The answers are not probabilities.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    signature = [tf.TensorSpec((None, *images.shape[1:]), tf.uint8)]
    # Our own function: Keras's predict may compile with XLA, which is slower on a CPU.
    run = tf.function(lambda batch: network(batch, training=False), input_signature=signature)
    count, chosen = len(images), views(augmentation)
    run(np.asarray(images[:batch_size]))  # tracing and choosing kernels is not throughput
    progress = Progress(len(chosen) * count, "images")
    answers: list[tuple[float, Probabilities]] = []
    seconds = []
    for number, (weight, view) in enumerate(chosen):
        start, parts = time.monotonic(), []
        text = "test images" if number == 0 else f"test images, view {number + 1} of {len(chosen)}"
        for first in range(0, count, batch_size):
            batch = np.ascontiguousarray(view(images[first : first + batch_size]))
            parts.append(run(batch).numpy())
            progress.update(number * count + first + len(batch), text)
        seconds.append(time.monotonic() - start)
        answers.append((weight, _checked(np.concatenate(parts))))
    progress.close()
    return Predictions(answers[0][1], average(answers), count / max(seconds[0], 1e-9))


def _checked(probabilities: Probabilities) -> Probabilities:
    deviation = np.abs(probabilities.sum(axis=1) - 1).max()
    if not deviation <= MAX_DEVIATION:  # also where it is not a number
        raise InputError("the model's answers are not probabilities that sum to 1; it may have diverged in training")
    return probabilities
