"""The model's answers to all test images: as they are, and averaged over views."""

import time
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tasks.evaluation.metrics import Labels, Probabilities
from tasks.evaluation.tta import Images, average, views
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
    """

    single: Probabilities
    augmented: Labels
    images_per_second: float


def predict_all(network: keras.Model, images: Images, batch_size: int, augmentation: str) -> Predictions:
    """Run a network over every view of every image, in batches of which the last may be short; shows progress.

    Fixed batches and full float32 (no TF32) make the bits the same from run to run on one machine, and within
    rounding those of single images on another. Of the views no more is kept than a batch's.

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
    count, chosen, seconds = len(images), views(augmentation), 0.0
    run(np.asarray(images[:batch_size]))  # tracing and choosing kernels is not throughput
    single = np.empty((count, network.output_shape[-1]), np.float32)
    augmented = np.empty(count, np.int32)
    progress = Progress(count, "images")
    for first in range(0, count, batch_size):
        batch, answers = images[first : first + batch_size], list[tuple[float, Probabilities]]()
        for weight, view in chosen:
            start = time.monotonic()
            answers.append((weight, _checked(run(np.ascontiguousarray(view(batch))).numpy())))
            seconds += time.monotonic() - start if len(answers) == 1 else 0
        part = slice(first, first + len(batch))
        single[part], augmented[part] = answers[0][1], average(answers).argmax(axis=1)
        progress.update(part.stop, "test images" + (f", {len(chosen)} views each" if len(chosen) > 1 else ""))
    progress.close()
    return Predictions(single, augmented, count / max(seconds, 1e-9))


def _checked(probabilities: Probabilities) -> Probabilities:
    deviation = np.abs(probabilities.sum(axis=1) - 1).max()
    if not deviation <= MAX_DEVIATION:  # also where it is not a number
        raise InputError("the model's answers are not probabilities that sum to 1; it may have diverged in training")
    return probabilities
