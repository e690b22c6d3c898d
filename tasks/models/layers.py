"""Layers that Keras lacks: pixels to numbers, batch norm that is fused or synchronized, a whitening convolution."""

from typing import Any

import keras
import tensorflow as tf

# cuDNN refuses a smaller one; a single value everywhere keeps CPU and GPU on the same trajectory.
MIN_EPSILON = 1.001e-5


@keras.saving.register_keras_serializable(package="retrain")
class PixelScaling(keras.layers.Layer):
    """(pixel - mean) / deviation per channel, in the layer's compute dtype.

    Args:
        mean, deviation: One value a channel, in units of a pixel's 0 to 255.
        reverse_channels: RGB in, BGR out, as the ImageNet weights of VGG16 and ResNet50 want it; mean and deviation
            are then in BGR order.

    Input (N, H, W, C) uint8, output the same shape in float32 or bfloat16.
    """

    def __init__(
        self, mean: list[float], deviation: list[float], reverse_channels: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(trainable=False, **kwargs)
        self.mean, self.deviation, self.reverse_channels = list(mean), list(deviation), reverse_channels

    def call(self, pixels: tf.Tensor) -> tf.Tensor:
        # Scaled in float32 whatever the compute dtype: bfloat16 cannot tell 254 from 255.
        wide = tf.float64 if self.compute_dtype == "float64" else tf.float32
        values = tf.cast(pixels[..., ::-1] if self.reverse_channels else pixels, wide)
        scaled = (values - tf.constant(self.mean, wide)) / tf.constant(self.deviation, wide)
        return tf.cast(scaled, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"mean": self.mean, "deviation": self.deviation, "reverse_channels": self.reverse_channels}
        config: dict[str, Any] = {**super().get_config(), **own}
        config.pop("trainable")
        return config


@keras.saving.register_keras_serializable(package="retrain")
class BatchNormalization(keras.layers.Layer):
    """Batch normalization (arXiv 1502.03167) over all axes but the last, with statistics of the global batch.

    With one replica it is TensorFlow's fused kernel, which oneDNN and cuDNN accelerate (Keras 3's own layer is not
    fused). With several, or in float64, sums are reduced over the replicas, so that the result does not depend on
    their number. Weights, defaults and running statistics are those of keras.layers.BatchNormalization.

    Args:
        momentum: Share of the running statistics kept at each step.
        epsilon: Added to the variance; at least 1.001e-5.
        scale: Whether there is a trained gamma; beta always is.
        trainable: Where it is not, in training too it normalizes by the running statistics, which stay as they are.
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, scale: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum, self.epsilon, self.scale = momentum, max(epsilon, MIN_EPSILON), scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # Statistics and their weights stay in float32 when the layer computes in bfloat16.
        wide: dict[str, Any] = {"shape": (input_shape[-1],), "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **wide) if self.scale else None
        self.beta = self.add_weight(name="beta", initializer="zeros", **wide)
        running = {**wide, "trainable": False, "aggregation": "mean"}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **running)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **running)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        beta = tf.convert_to_tensor(self.beta.value)
        gamma = tf.ones_like(beta) if self.gamma is None else tf.convert_to_tensor(self.gamma.value)
        if not (training and self.trainable):  # one that is not trained keeps its statistics too, as in Keras
            return self._normalize(inputs, self.moving_mean.value, self.moving_variance.value, gamma, beta)
        replica = tf.distribute.get_replica_context()
        if (replica is not None and replica.num_replicas_in_sync > 1) or inputs.dtype == tf.float64:
            mean, variance = self._synchronized_moments(inputs, replica)
            output = self._normalize(inputs, mean, variance, gamma, beta)
        else:
            output, mean, variance = self._fused(inputs, gamma, beta)
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, variance)
        return output

    def get_config(self) -> dict[str, Any]:
        own = {"momentum": self.momentum, "epsilon": self.epsilon, "scale": self.scale}
        return {**super().get_config(), **own}

    def _fused(self, inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        flat = inputs if inputs.shape.rank == 4 else tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
        empty = tf.zeros((0,), gamma.dtype)
        result = tf.raw_ops.FusedBatchNormV3(
            x=flat, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=self.epsilon, is_training=True
        )
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], gamma.dtype)
        # The kernel's variance carries Bessel's correction; the synchronized path and Keras do not.
        variance = result.batch_variance * (count - 1) / count
        return tf.reshape(result.y, tf.shape(inputs)), result.batch_mean, variance

    def _synchronized_moments(self, inputs: tf.Tensor, replica: Any) -> tuple[tf.Tensor, tf.Tensor]:
        wide = tf.cast(inputs, self.variable_dtype)
        axes = list(range(inputs.shape.rank - 1))
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], wide.dtype)
        sums = [tf.reduce_sum(wide, axes), count]
        if replica.num_replicas_in_sync > 1:
            sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        total, count = sums
        mean = total / count
        # Two passes: the mean of squares minus the square of the mean loses the digits that float32 has.
        squares = tf.reduce_sum(tf.math.squared_difference(wide, mean), axes)
        if replica.num_replicas_in_sync > 1:
            squares = replica.all_reduce(tf.distribute.ReduceOp.SUM, squares)
        return mean, squares / count

    def _normalize(
        self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor
    ) -> tf.Tensor:
        factor = gamma * tf.math.rsqrt(variance + self.epsilon)
        output = tf.cast(inputs, factor.dtype) * factor + (beta - mean * factor)
        return tf.cast(output, inputs.dtype)

    def _update(self, running: keras.Variable, batch: tf.Tensor) -> None:
        running.assign(running.value * self.momentum + tf.stop_gradient(batch) * (1 - self.momentum))


@keras.saving.register_keras_serializable(package="retrain")
class WhiteningConvolution(keras.layers.Layer):
    """A frozen 2×2 convolution that whitens its input, with a trained bias (airbench, arXiv 2404.00498, section 3.2).

    The kernel comes from tasks.models.whitening; until it is set the layer answers with its bias alone.
    Input (N, H, W, C), output (N, H - 1, W - 1, filters).
    """

    SIZE = 2

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (self.SIZE, self.SIZE, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="zeros", trainable=False)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.bias_add(tf.nn.conv2d(inputs, self.kernel, 1, "VALID"), tf.convert_to_tensor(self.bias))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}


def whitening_biases(model: keras.Model) -> list[str]:
    """Return the paths of the biases of a model's whitening convolutions."""
    return [layer.bias.path for layer in model.layers if isinstance(layer, WhiteningConvolution)]


@keras.saving.register_keras_serializable(package="retrain")
class LayerScale(keras.layers.Layer):
    """A trained factor for each channel, which begins small (arXiv 2103.17239, equation 8).

    Args:
        initial: With what it begins.
    """

    def __init__(self, initial: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        initializer = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer=initializer)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * tf.convert_to_tensor(self.gamma)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable(package="retrain")
class PartialIdentity(keras.initializers.Initializer):
    """The first C_in filters pass their channel through; the rest are uniform within ± 1/√fan_in (airbench).

    The uniform part is PyTorch's default for a convolution, which airbench inherits.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = keras.random.SeedGenerator(seed).get_config()["seed"] if seed is not None else None

    def __call__(self, shape: tuple[int, int, int, int], dtype: str | None = None) -> tf.Tensor:
        height, width, channels, filters = shape
        limit = (height * width * channels) ** -0.5
        uniform = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)(shape, dtype=dtype)
        passed = min(channels, filters)
        identity = tf.pad(
            tf.eye(channels, passed, dtype=uniform.dtype)[None, None],
            ((height // 2, height - 1 - height // 2), (width // 2, width - 1 - width // 2), (0, 0), (0, 0)),
        )
        return tf.concat([identity, uniform[..., passed:]], axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}
