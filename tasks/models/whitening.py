"""Statistics of the training images that a model is built around: channel means, and the whitening kernel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STATISTICS_CHUNK = 4096


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and standard deviation of every channel, in units of a pixel's 0 to 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def pixel_statistics(images: NDArray[np.uint8]) -> PixelStatistics:
    """Return channel statistics of (N, H, W, C) uint8 images, summed exactly in integers and in bounded memory."""
    channels = images.shape[-1]
    total, squares, count = np.zeros(channels, np.int64), np.zeros(channels, np.int64), 0
    for start in range(0, len(images), STATISTICS_CHUNK):
        pixels = np.asarray(images[start : start + STATISTICS_CHUNK]).reshape(-1, channels)
        for channel in range(channels):
            histogram = np.bincount(pixels[:, channel], minlength=256)
            total[channel] += histogram @ np.arange(256)
            squares[channel] += histogram @ np.arange(256) ** 2
        count += len(pixels)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    return PixelStatistics(tuple(mean.tolist()), tuple(std.tolist()))


def whitening_kernel(
    images: NDArray[np.uint8], statistics: PixelStatistics, size: int, epsilon: float
) -> NDArray[np.float32]:
    """Return the whitening filters of (N, H, W, C) uint8 images, shape (size, size, C, 2 · size² · C), float32.

    ± eigenvectors of the uncentred second moment of all size×size patches of the scaled images, each divided by
    √(eigenvalue + epsilon), the largest eigenvalue first (airbench, arXiv 2404.00498, section 3.2).
    """
    scaled = (images.astype(np.float64) - statistics.mean) / statistics.std
    windows = np.lib.stride_tricks.sliding_window_view(scaled, (size, size), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * images.shape[-1])
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    order = np.argsort(values)[::-1]
    vectors = vectors[:, order]
    # An eigenvector's sign is the solver's whim: the entry of largest size is made positive.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    filters = vectors / np.sqrt(values[order] + epsilon)
    kernel = np.concatenate([filters, -filters], axis=1)
    return kernel.reshape(size, size, images.shape[-1], -1).astype(np.float32)
