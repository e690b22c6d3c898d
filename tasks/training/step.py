"""The compiled step: several steps a launch, each under `strategy.run`, the same result on any number of replicas."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.models.build import logits_of
from tasks.models.heads import backbone_weights
from tasks.models.layers import whitening_biases
from tasks.params.recipe import Recipe
from tasks.training.augment import augmented, laid_over
from tasks.training.averaging import Averaging
from tasks.training.draws import Draws
from tasks.training.phase import Phase

LOSSES: dict[str, Callable[..., keras.losses.Loss]] = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "categorical_crossentropy": functools.partial(keras.losses.CategoricalCrossentropy, from_logits=True),
}


class Step:
    """One training step and one evaluation step of a recipe, in loops that TensorFlow runs by itself.

    Both loops take the values of a tasks.training.feed.Window, steps `first` to `stop` - 1 within it, and totals to
    add to. Totals go in and come out, so that their sum does not depend on how steps are grouped into launches. A loop
    is traced once a phase: the windows of a feed have one shape, and all else that varies is a tensor.

    A step's result is the same on any number of replicas: tasks.training.feed.share_of deals out a short batch,
    tasks.models.layers sums batch norm's statistics over replicas, and Keras the gradients.

    Args:
        model, optimizer: Made in the strategy's scope.
        recipe: Gives the loss and the augmentation.
        mean_pixel: What is hidden shows, one value of 0 to 255 a channel.
        full_batches: Whether no training batch is short; every shape is then known when the step is traced.
        class_weights: What a loss counts by its class, (classes,), in training; None for all alike. Sums that a person
            sees are of the losses as they are.
        averaging: Takes in the weights after each training step.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: Any,
        recipe: Recipe,
        strategy: tf.distribute.Strategy,
        mean_pixel: tuple[int, ...],
        full_batches: bool,
        class_weights: NDArray[np.float64] | None = None,
        averaging: Averaging | None = None,
    ) -> None:
        self._model, self._optimizer, self._recipe, self._strategy = model, optimizer, recipe, strategy
        self._mean_pixel, self._full_batches, self._averaging = mean_pixel, full_batches, averaging
        # Probabilities are float32, or float64 where the recipe asks for it; bfloat16 is too coarse for a loss.
        self._loss_dtype, loss = model.output.dtype, recipe.loss
        self._loss = LOSSES[loss.name](label_smoothing=loss.label_smoothing, reduction=None, dtype=self._loss_dtype)
        self._class_weights = None if class_weights is None else class_weights.astype(self._loss_dtype)
        self._from_logits = loss.name == "categorical_crossentropy"
        self._network = logits_of(model) if self._from_logits else model

    @tf.function(autograph=False, reduce_retracing=True)
    def train(
        self, values: Any, first: tf.Tensor, stop: tf.Tensor, totals: tf.Tensor, phase: Phase
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run training steps, all of one phase; stop after one whose loss is NaN or infinite.

        Returns:
            The step after the last one run, int32, and the sums of loss and of right answers and the number of
            images, (3,) float64.
        """

        def goes_on(step: tf.Tensor, totals: tf.Tensor) -> tf.Tensor:
            return (step < stop) & tf.math.is_finite(totals[0])

        one = functools.partial(self._train_step, phase)
        return self._loop(one, goes_on, values, first, totals, after=self._average)

    @tf.function(autograph=False, reduce_retracing=True)
    def evaluate(
        self, values: Any, first: tf.Tensor, stop: tf.Tensor, totals: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run evaluation steps.

        Returns:
            `stop`, and the sums of loss, right answers, binary accuracy and the number of images, then the right
            answers of each class, (4 + classes,) float64.
        """
        return self._loop(self._evaluation_step, lambda step, _: step < stop, values, first, totals)

    def _loop(
        self,
        one: Any,
        goes_on: Any,
        values: Any,
        first: tf.Tensor,
        totals: tf.Tensor,
        after: Callable[[], None] = lambda: None,
    ) -> Any:
        def body(step: tf.Tensor, totals: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            sums = self._strategy.run(one, args=(values, step))
            after()
            return step + 1, totals + self._strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

        return tf.while_loop(goes_on, body, (first, totals))

    def _average(self) -> None:
        if self._averaging:
            self._averaging.after_step(self._optimizer.iterations.value)  # which counts this step already

    def _train_step(self, phase: Phase, values: Any, step: tf.Tensor) -> tf.Tensor:
        """One replica's part of a step; return its sums of loss and right answers, and its images, (3,) float64."""
        (images, labels), (order, global_sizes, draws) = values
        indices = order[step]
        if not self._full_batches:
            indices = tf.boolean_mask(indices, indices >= 0)
        batch, label_indices, shares = self._examples(images, indices, Draws(*draws))
        if phase.size is not None and phase.size < min(batch.shape[1:3]):  # smaller ones stay as they are
            small = tf.image.resize(batch, (phase.size, phase.size), antialias=True)
            batch = tf.cast(tf.round(small), tf.uint8)
        targets = [tf.gather(labels, each) for each in label_indices]
        with tf.GradientTape() as tape:
            outputs = self._network(batch, training=True)
            of_each = [self._losses(each, outputs) for each in targets]
            losses = _mixed(of_each, shares)
            weighted = _mixed([self._weighted(*pair) for pair in zip(of_each, targets, strict=True)], shares)
            # Over the global batch, since the optimizer sums gradients over replicas.
            mean = tf.reduce_sum(weighted) / tf.cast(global_sizes[step], losses.dtype)
        resting = set() if phase.whitening_bias else set(whitening_biases(self._model))
        resting.update(backbone_weights(self._model) if phase.head_only else ())
        variables = [variable for variable in self._model.trainable_variables if variable.path not in resting]
        self._optimizer.apply(tape.gradient(mean, variables), variables)
        return _sums(losses, outputs, targets[0])

    def _examples(
        self, images: tf.Tensor, indices: tf.Tensor, draws: Draws
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor | None]:
        """Return the batch, the samples whose labels it has, and where these are two, the shares of the first."""
        augment = self._recipe.augment
        batch = augmented(images, indices, draws, augment, self._mean_pixel)
        if not augment.mixup:
            return batch, [indices], None
        partners, shares = tf.gather(draws.partners, indices), tf.gather(draws.shares, indices)
        others = augmented(images, partners, draws, augment, self._mean_pixel)
        return laid_over(batch, others, shares), [indices, partners], shares

    def _evaluation_step(self, values: Any, step: tf.Tensor) -> tf.Tensor:
        (images, labels), (order, _, _) = values
        indices = tf.boolean_mask(order[step], order[step] >= 0)
        targets = tf.gather(labels, indices)
        outputs = self._network(tf.gather(images, indices), training=False)
        losses = self._losses(targets, outputs)
        wide = tf.cast(outputs, tf.float32)
        probabilities = tf.nn.softmax(wide) if self._from_logits else wide
        is_class = tf.one_hot(targets, outputs.shape[-1], on_value=True, off_value=False)
        agreed = (probabilities > 0.5) == is_class
        loss, correct, seen = tf.unstack(_sums(losses, outputs, targets))
        binary = tf.reduce_sum(tf.reduce_mean(tf.cast(agreed, tf.float64), axis=-1))
        of_class = tf.reduce_sum(tf.cast(is_class & _is_right(outputs, targets)[:, tf.newaxis], tf.float64), axis=0)
        return tf.concat([tf.stack([loss, correct, binary, seen]), of_class], axis=0)

    def _weighted(self, losses: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        if self._class_weights is None:
            return losses
        return losses * tf.gather(tf.constant(self._class_weights), labels)

    def _losses(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Return the loss of each image, (B,), in float32 or wider."""
        wide = tf.cast(outputs, self._loss_dtype)
        return self._loss(tf.one_hot(labels, outputs.shape[-1], dtype=wide.dtype), wide)


def _mixed(losses: list[tf.Tensor], shares: tf.Tensor | None) -> tf.Tensor:
    """Return the loss of each image, (B,): of two labels by their shares, since it is linear in the target."""
    if shares is None:
        return losses[0]
    share = tf.cast(shares, losses[0].dtype)
    return share * losses[0] + (1 - share) * losses[1]


def metrics_of(totals: NDArray[np.float64], labels: NDArray[np.int32]) -> dict[str, float]:
    """Return loss, top-1, binary and balanced accuracy from the sums that Step.evaluate gives, (4 + classes,).

    Args:
        totals: Of all images, each counted once.
        labels: Of the same images, (N,); a class that has none has no part in the balanced accuracy.
    """
    loss, right, binary, seen = totals[:4].tolist()
    images = np.bincount(labels, minlength=len(totals) - 4)
    recalls = totals[4:][images > 0] / images[images > 0]
    return {
        "loss": loss / seen,
        "top1": right / seen,
        "binary_accuracy": binary / seen,
        "balanced_accuracy": float(recalls.mean()),
    }


def _sums(losses: tf.Tensor, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the sum of the losses, the count of right top-1 answers and the count of images, (3,) float64."""
    correct = tf.cast(_is_right(outputs, labels), tf.float64)
    sums = [tf.reduce_sum(losses), tf.reduce_sum(correct), tf.size(labels)]
    return tf.stack([tf.cast(value, tf.float64) for value in sums])


def _is_right(outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.argmax(outputs, axis=-1, output_type=tf.int32) == labels
