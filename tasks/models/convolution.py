"""A convolution that stays fast where the feature map is small: a sum of matrix products, one a tap of the kernel.

On a map of a few pixels oneDNN's convolutions spend their time on the padding's zeros and on reordering a kernel that
is larger than the map. Products that leave the padding out, with the kernel as it lies, take 0.4 to 0.8 of the time
(2×2 and 4×4, 512 channels, batches of 16 and 128, float32 and bfloat16); the kernel's gradient also on maps of 8×8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Pixels a side, up to which the output and both gradients, or the kernel's gradient alone, are sums over taps.
SMALL = 4
SMALL_FOR_KERNEL_GRADIENT = 8


@keras.saving.register_keras_serializable(package="retrain")
class Convolution(keras.layers.Conv2D):
    """keras.layers.Conv2D with its weights and, up to rounding, its results; on a CPU faster on small maps.

    That is so for a kernel of odd sides, stride 1, padding `same` and one group; everything else is left to Keras.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """Convolve inputs (N, H, W, C) with the kernel (h, w, C, F)."""
        plain = (self.strides, self.dilation_rate, self.groups) == ((1, 1), (1, 1), 1)
        same = (self.padding, self.data_format) == ("same", "channels_last")
        if not (plain and same):
            return super().convolution_op(inputs, kernel)
        return convolve(inputs, tf.convert_to_tensor(kernel))


def convolve(inputs: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """Convolve inputs (N, H, W, C) with a kernel (h, w, C, F), padding `same`, the faster way on this machine."""
    small = all(side is not None and side <= SMALL_FOR_KERNEL_GRADIENT for side in inputs.shape[1:3])
    odd = all(side % 2 for side in kernel.shape[:2])
    if stride == 1 and small and odd and not tf.config.list_logical_devices("GPU"):
        return convolve_by_taps(inputs, kernel)
    return tf.nn.conv2d(inputs, kernel, stride, "SAME")


@dataclass(frozen=True)
class Window:
    """A part of a feature map: its first row and column, its rows and columns."""

    top: int
    left: int
    height: int
    width: int

    def rows(self, values: tf.Tensor) -> tf.Tensor:
        """Cut the window out of (N, H, W, C) and return it as (N · height · width, C)."""
        cut = values[:, self.top : self.top + self.height, self.left : self.left + self.width]
        return tf.reshape(cut, (-1, values.shape[-1]))

    def placed(self, rows: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        """Put rows, as `rows` returns them, into a map of zeros (N, *size, C)."""
        values = tf.reshape(rows, (-1, self.height, self.width, rows.shape[-1]))
        below, right = size[0] - self.top - self.height, size[1] - self.left - self.width
        return tf.pad(values, ((0, 0), (self.top, below), (self.left, right), (0, 0)))


@dataclass(frozen=True)
class Tap:
    """A position in the kernel, counted row by row, and the pixels that it takes from the input to the output."""

    position: int
    source: Window
    target: Window


@tf.custom_gradient
def convolve_by_taps(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """Convolve inputs (N, H, W, C) with a kernel (h, w, C, F) of odd sides, stride 1, padding `same`.

    H and W have to be known when the graph is made. Returns the output (N, H, W, F), in the inputs' dtype, and its
    gradient function.
    """
    size, small = tuple(inputs.shape[1:3]), max(inputs.shape[1:3]) <= SMALL
    taps = _taps(size, tuple(kernel.shape[:2]))
    matrices = tf.unstack(tf.reshape(kernel, (-1, *kernel.shape[2:])))

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        by_position = [tf.zeros_like(matrix) for matrix in matrices]
        for tap in taps:
            # A transpose of its own is faster than the product's.
            by_position[tap.position] = tf.transpose(tap.source.rows(inputs)) @ tap.target.rows(upstream)
        return input_gradient(upstream), tf.reshape(tf.stack(by_position), kernel.shape)

    def input_gradient(upstream: tf.Tensor) -> tf.Tensor:
        if small:
            products = [tf.matmul(tap.target.rows(upstream), matrices[tap.position], transpose_b=True) for tap in taps]
            return _sum(products, [tap.source for tap in taps], size)
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=[1] * 4, padding="SAME"
        )

    if small:
        products = [tap.source.rows(inputs) @ matrices[tap.position] for tap in taps]
        return _sum(products, [tap.target for tap in taps], size), gradient
    return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradient


def _taps(size: tuple[int, int], kernel: tuple[int, int]) -> list[Tap]:
    """Return the taps of a kernel that meet a map of `size` at all."""
    taps = []
    for position, (row, column) in enumerate(np.ndindex(*kernel)):
        down, across = row - kernel[0] // 2, column - kernel[1] // 2
        height, width = size[0] - abs(down), size[1] - abs(across)
        if height > 0 and width > 0:
            source = Window(max(down, 0), max(across, 0), height, width)
            taps.append(Tap(position, source, Window(max(-down, 0), max(-across, 0), height, width)))
    return taps


def _sum(products: list[tf.Tensor], windows: list[Window], size: tuple[int, int]) -> tf.Tensor:
    """Add up products, each placed at its window, in float32 or wider; return the sum in the products' dtype."""
    narrow = products[0].dtype
    wide = tf.float32 if narrow == tf.bfloat16 else narrow
    maps = [window.placed(tf.cast(rows, wide), size) for rows, window in zip(products, windows, strict=True)]
    return tf.cast(tf.add_n(maps), narrow)
