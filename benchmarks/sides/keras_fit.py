"""The Keras side: plain `fit` with Keras's own layers, optimizer and data handling, as one would write it.

XLA stays off: on processors it makes these networks several times slower.
"""

import time
from collections.abc import Callable
from typing import Any

from tasks.stage.quiet_tensorflow import keras

# isort: split
import numpy as np

from benchmarks.sides.arrays import CLASSES, random_samples
from benchmarks.sides.serve import serve
from tasks.models.build import build_model, logits_of
from tasks.models.layers import BatchNormalization, WhiteningConvolution
from tasks.models.whitening import PixelStatistics, pixel_statistics
from tasks.params.recipe import ModelParams, Recipe
from tasks.training.precision import POLICIES, resolve_precision


class Stopwatch(keras.callbacks.Callback):
    """Seconds from the first step's start to the last one's end: what `fit` does around an epoch is left out."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Start with the first batch."""
        if batch == 0:
            self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the time since."""
        self.seconds = time.perf_counter() - self.start


def make(case: dict[str, Any]) -> Callable[[], float]:
    """Return a round of `fit` on the case's arrays."""
    recipe = Recipe.model_validate(case["recipe"])
    images, labels = random_samples(recipe.batch_size * case["steps"])
    keras.config.set_dtype_policy(POLICIES[resolve_precision(recipe.precision)])
    model = with_keras_layers(recipe.model, pixel_statistics(images))
    loss: keras.losses.Loss
    if recipe.loss.name == "binary_crossentropy":
        network, loss = model, keras.losses.BinaryCrossentropy()
    else:
        network, loss = logits_of(model), keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    named = {"adam": keras.optimizers.Adam, "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.85, nesterov=True)}
    for layer in model.layers:
        if isinstance(layer, WhiteningConvolution):
            layer.trainable = recipe.model.whitening.bias_epochs > 0
    network.compile(named[recipe.optimizer.name](), loss, metrics=["accuracy"], jit_compile=False)
    targets, stopwatch = np.eye(CLASSES, dtype=np.float32)[labels], Stopwatch()

    def run_round() -> float:
        network.fit(images, targets, batch_size=recipe.batch_size, verbose=0, callbacks=[stopwatch])
        return stopwatch.seconds

    return run_round


def with_keras_layers(params: ModelParams, statistics: PixelStatistics) -> keras.Model:
    """Return the recipe's network with Keras's own layers in place of ours wherever Keras has one."""

    def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, BatchNormalization):
            return keras.layers.BatchNormalization(
                momentum=layer.momentum, epsilon=layer.epsilon, scale=layer.scale, name=layer.name
            )
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            return keras.layers.Conv2D.from_config(config)
        if isinstance(layer, keras.layers.Activation) and params.activation == "gelu":
            return keras.layers.Activation("gelu", name=layer.name)
        return layer.__class__.from_config(config)

    return keras.models.clone_model(build_model(params, (32, 32, 3), CLASSES, statistics), clone_function=plain)


if __name__ == "__main__":
    serve(make)
