"""A convolution and the batch norm behind it as one layer, with the statistics that pretrained weights came with."""

from typing import Any

import keras
import tensorflow as tf

from tasks.models.convolution import convolve


@keras.saving.register_keras_serializable(package="retrain")
class NormalizedConvolution(keras.layers.Layer):
    """gamma · (convolution(x) - moving_mean) / √(moving_variance + epsilon) + beta, by one convolution with a bias.

    The statistics stay as they are, so that normalizing is a factor on the kernel's filters and a bias: the passes over
    the feature map that batch norm costs, most of the time of a network of narrow convolutions, are gone. Kernel, gamma
    and beta are trained. There is no other bias; padding is `same`.

    Args:
        filters: null for a depthwise convolution, which filters each channel by itself.
        kernel_size: Side of the kernel.
        strides: In both directions.
        epsilon: Added to the variance.

    Input (N, H, W, C), output (N, ⌈H / strides⌉, ⌈W / strides⌉, filters or C).
    """

    def __init__(
        self, filters: int | None, kernel_size: int, strides: int = 1, epsilon: float = 1e-3, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides, self.epsilon = filters, kernel_size, strides, epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        outputs = self.filters or channels
        # In float32 when the layer computes in bfloat16: the fold is made from them.
        kernel = (self.kernel_size, self.kernel_size, channels, self.filters or 1)
        self.kernel = self.add_weight(name="kernel", shape=kernel, initializer="he_normal", autocast=False)
        vector: dict[str, Any] = {"shape": (outputs,), "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **vector)
        self.beta = self.add_weight(name="beta", initializer="zeros", **vector)
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", trainable=False, **vector)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", trainable=False, **vector)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        factor = self.gamma.value * tf.math.rsqrt(self.moving_variance.value + self.epsilon)
        bias = tf.cast(self.beta.value - self.moving_mean.value * factor, inputs.dtype)
        if self.filters is None:
            kernel = tf.cast(self.kernel.value * factor[:, None], inputs.dtype)
            strides = (1, self.strides, self.strides, 1)
            return tf.nn.bias_add(tf.nn.depthwise_conv2d(inputs, kernel, strides, "SAME"), bias)
        kernel = tf.cast(self.kernel.value * factor, inputs.dtype)
        return tf.nn.bias_add(convolve(inputs, kernel, self.strides), bias)

    def get_config(self) -> dict[str, Any]:
        own = {"kernel_size": self.kernel_size, "strides": self.strides, "epsilon": self.epsilon}
        return {**super().get_config(), "filters": self.filters, **own}
