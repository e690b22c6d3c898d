"""Images a second: our step against plain Keras `fit`, the same network and arrays, in turns in one process.

Random images: speed does not depend on what they show. Each pair is measured ROUNDS times, the two sides in turn, so
that a noisy neighbour falls on both.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tasks.models.build import build_model, logits_of, whiten
from tasks.models.whitening import PixelStatistics, pixel_statistics
from tasks.params import ModelParams, Recipe, load_params
from tasks.training.distribute import build_strategy
from tasks.training.feed import Samples
from tasks.training.precision import POLICIES, resolve_precision
from tasks.training.trainer import Trainer

ROUNDS = 5
CLASSES = 10
SHAPE = (32, 32, 3)


@dataclass(frozen=True)
class Case:
    """One network at one batch size and precision, and how many steps a round takes."""

    recipe: str
    batch_size: int
    precision: str
    steps: int


CASES = (
    Case("seed", 16, "float32", 24),
    Case("seed", 128, "float32", 4),
    Case("seed", 128, "bfloat16", 4),
    Case("fast", 1024, "bfloat16", 3),
)


@dataclass(frozen=True)
class Measurement:
    """Images a second of every round, ours and Keras's, for one case."""

    case: Case
    ours: list[float]
    keras: list[float]

    def row(self) -> str:
        """Return the line of the results' table: medians, spreads, and the median of the rounds' ratios."""
        ratio = statistics.median(ours / theirs for ours, theirs in zip(self.ours, self.keras, strict=True))
        name = f"{self.case.recipe}, batch {self.case.batch_size}, {self.case.precision}"
        return f"| {name} | {_spread(self.ours)} | {_spread(self.keras)} | {ratio:.2f} |"


def measure(case: Case) -> Measurement:
    """Measure one case: a warm-up that traces, then ROUNDS rounds of either side in turn."""
    images = np.random.default_rng(0).integers(0, 256, (case.batch_size * case.steps, *SHAPE), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, CLASSES, len(images)).astype(np.int32)
    ours, theirs = _our_round(case, images, labels), _keras_round(case, images, labels)
    ours()
    theirs()
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        rates[0].append(len(images) / _seconds(ours))
        rates[1].append(len(images) / _seconds(theirs))
    return Measurement(case, *rates)


def _recipe(case: Case) -> Recipe:
    recipe = load_params().recipes[case.recipe]
    return recipe.model_copy(update={"batch_size": case.batch_size, "precision": case.precision, "epochs": 1000.0})


def _our_round(case: Case, images: np.ndarray, labels: np.ndarray) -> Callable[[], object]:
    recipe, statistics_ = _recipe(case), pixel_statistics(images)
    keras.config.set_dtype_policy(POLICIES[resolve_precision(recipe.precision)])
    strategy = build_strategy("cpu:1" if not tf.config.list_physical_devices("GPU") else "auto")
    with strategy.scope():
        model = build_model(recipe.model, SHAPE, CLASSES, statistics_)
        whiten(model, recipe.model, images, statistics_)
    trainer = Trainer(model, recipe, 0, strategy, Samples(images, labels), Samples(images[:1], labels[:1]))
    return trainer.train_one_epoch


def _keras_round(case: Case, images: np.ndarray, labels: np.ndarray) -> Callable[[], object]:
    """Return a round of `fit` with Keras's own layers, optimizer and data handling, as one would write it."""
    recipe, statistics_ = _recipe(case), pixel_statistics(images)
    keras.config.set_dtype_policy(POLICIES[resolve_precision(recipe.precision)])
    model = _with_keras_layers(recipe.model, statistics_)
    loss: keras.losses.Loss
    if recipe.loss.name == "binary_crossentropy":
        network, loss = model, keras.losses.BinaryCrossentropy()
    else:
        network, loss = logits_of(model), keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    named = {"adam": keras.optimizers.Adam(), "sgd": keras.optimizers.SGD(0.01, momentum=0.85, nesterov=True)}
    network.compile(named[recipe.optimizer.name], loss, metrics=["accuracy"], jit_compile=False)
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    return lambda: network.fit(images, targets, batch_size=case.batch_size, verbose=0)


def _with_keras_layers(params: ModelParams, statistics_: PixelStatistics) -> keras.Model:
    """Return the recipe's network with keras.layers.BatchNormalization in place of ours."""
    model = build_model(params, SHAPE, CLASSES, statistics_)

    def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer).__name__ != "BatchNormalization":
            return layer.__class__.from_config(layer.get_config())
        return keras.layers.BatchNormalization(
            momentum=layer.momentum, epsilon=layer.epsilon, scale=layer.scale, name=layer.name
        )

    return keras.models.clone_model(model, clone_function=plain)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _spread(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"
