"""Order and augmentation of an epoch, as functions of (seed, epoch, sample index) and of nothing else.

The draws are made on the host once an epoch, a few bytes a sample; the step itself only gathers pixels.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.params.recipe import AugmentParams

# Part of the seed: a new purpose goes to the end, or every run's draws change.
ORDER, ROWS, COLUMNS, FLIP, CUTOUT_ROWS, CUTOUT_COLUMNS, UPSIDE_DOWN = range(7)


@dataclass(frozen=True)
class Draws:
    """What happens to each of N samples in one epoch.

    Attributes:
        rows, columns: (N,) int32, offset of the crop, from -crop to +crop.
        flip: (N,) int32, 1 where the image is mirrored.
        upside_down: (N,) int32, 1 where its top and bottom change places.
        cutout_rows, cutout_columns: (N,) int32, first row and column of the square that is set to the mean.
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    flip: NDArray[np.int32]
    upside_down: NDArray[np.int32]
    cutout_rows: NDArray[np.int32]
    cutout_columns: NDArray[np.int32]


def draw_order(count: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Return a permutation of `count` sample indices, (count,) int32."""
    return _generator(seed, epoch, ORDER).permutation(count).astype(np.int32)


def draw_augmentation(
    params: AugmentParams, count: int, image_shape: tuple[int, int, int], seed: int, epoch: int
) -> Draws:
    """Draw what happens to each of `count` samples in an epoch."""

    def draw(purpose: int, low: int, high: int, of_epoch: int = epoch) -> NDArray[np.int32]:
        return _generator(seed, of_epoch, purpose).integers(low, high + 1, count, dtype=np.int32)

    flip = upside_down = np.zeros(count, np.int32)
    if params.flip in ("random", "both"):
        flip = draw(FLIP, 0, 1)
        upside_down = draw(UPSIDE_DOWN, 0, 1) if params.flip == "both" else upside_down
    elif params.flip == "alternating":
        # A fixed random half in the first epoch, all turned over every epoch (airbench, section 3.6).
        flip = draw(FLIP, 0, 1, of_epoch=0) ^ (epoch % 2)
    height, width, _ = image_shape
    return Draws(
        draw(ROWS, -params.crop, params.crop),
        draw(COLUMNS, -params.crop, params.crop),
        flip,
        upside_down,
        draw(CUTOUT_ROWS, 0, max(height - params.cutout, 0)),
        draw(CUTOUT_COLUMNS, 0, max(width - params.cutout, 0)),
    )


def gather_augmented(
    images: tf.Tensor, indices: tf.Tensor, draws: Draws, cutout: int, mean_pixel: tuple[int, ...]
) -> tf.Tensor:
    """Return the augmented images of a batch: crop with reflection, mirror and cutout in one gather of whole pixels.

    Args:
        images: (N, H, W, C) uint8, all samples.
        indices: (B,) int32, the samples of the batch.
        draws: As draw_augmentation made it, its arrays as tensors.
        cutout: Side in pixels of the square that becomes `mean_pixel`; 0 for none.
        mean_pixel: C values of 0 to 255.

    Returns:
        (B, H, W, C) uint8.
    """
    count, height, width, channels = images.shape
    turned = tf.gather(draws.upside_down, indices)[:, None]
    down = tf.where(turned == 1, tf.range(height - 1, -1, -1), tf.range(height))
    rows = _reflected(down + tf.gather(draws.rows, indices)[:, None], height)
    mirrored = tf.gather(draws.flip, indices)[:, None]
    across = tf.where(mirrored == 1, tf.range(width - 1, -1, -1), tf.range(width))
    columns = _reflected(across + tf.gather(draws.columns, indices)[:, None], width)
    wide = tf.int64 if count * height * width > tf.int32.max else tf.int32
    row_starts = (tf.cast(indices, wide)[:, None] * height + tf.cast(rows, wide)) * width
    positions = row_starts[:, :, None] + tf.cast(columns, wide)[:, None, :]
    batch = tf.gather(tf.reshape(images, (-1, channels)), positions)
    if not cutout:
        return batch
    inside_rows = _within(tf.range(height), tf.gather(draws.cutout_rows, indices), cutout)
    inside_columns = _within(tf.range(width), tf.gather(draws.cutout_columns, indices), cutout)
    hidden = inside_rows[:, :, None, None] & inside_columns[:, None, :, None]
    return tf.where(hidden, tf.constant(mean_pixel, tf.uint8), batch)


def _reflected(positions: tf.Tensor, size: int) -> tf.Tensor:
    """Fold positions outside 0 to size - 1 back, without repeating the edge."""
    positions = tf.abs(positions)
    return tf.minimum(positions, 2 * (size - 1) - positions)


def _within(positions: tf.Tensor, starts: tf.Tensor, size: int) -> tf.Tensor:
    return (positions >= starts[:, None]) & (positions < starts[:, None] + size)


def _generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, purpose))))
