"""The training loop: our own step under `strategy.run`, the same trajectory on any number of replicas."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tasks.errors import InputError
from tasks.models.build import logits_of
from tasks.params import Recipe
from tasks.training.augment import Draws, gather_augmented
from tasks.training.checkpoint import Checkpoint, CheckpointFolder, History
from tasks.training.feed import Epoch, Samples, as_tuple, batches, draw_epoch, on_each_replica, share_of
from tasks.training.lookahead import Lookahead
from tasks.training.optimizer import build_optimizer
from tasks.training.schedule import RateSchedule, best_epoch, should_stop

EVALUATION_BATCH = 1000
LAUNCH_SECONDS = 1.0  # of steps between two looks at the clock

LOSSES: dict[str, Callable[..., keras.losses.Loss]] = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "categorical_crossentropy": functools.partial(keras.losses.CategoricalCrossentropy, from_logits=True),
}

Report = Callable[[int, int, dict[str, float]], None]


@dataclass
class Result:
    """What fit leaves besides the weights in the model.

    Attributes:
        history: One dict of metrics an epoch.
        best_epoch: Index of the epoch whose weights the model has.
        steps: Steps done in all.
        images: Training images seen by this process, and the seconds that it took, validation left out.
    """

    history: History
    best_epoch: int
    steps: int
    images: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Trainer:
    """Trains `model` by `recipe` on every replica of `strategy`.

    Args:
        model: From tasks.models.build.build_model, made in the strategy's scope.
        recipe: What decides the run.
        seed: Of order and augmentation.
        strategy: From tasks.training.distribute.build_strategy.
        training, validation: Images and labels.
        mean_pixel: What a cutout shows, one value of 0 to 255 a channel.
        callbacks: Keras callbacks; they see `model` with its optimizer, and `model.stop_training` is honoured.
        report: Called with (step, steps in all, metrics so far in the epoch) after every launch.

    Raises:
        ValueError: The replicas do not divide the batch size.
    """

    model: keras.Model
    recipe: Recipe
    seed: int
    strategy: tf.distribute.Strategy
    training: Samples
    validation: Samples
    mean_pixel: tuple[int, ...] = (0, 0, 0)
    callbacks: Sequence[keras.callbacks.Callback] = ()
    report: Report | None = None
    _launch: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        replicas = self.strategy.num_replicas_in_sync
        if self.recipe.batch_size % replicas:
            raise ValueError(f"batch_size {self.recipe.batch_size} is not divisible by {replicas} replicas")
        steps = len(
            batches(np.arange(len(self.training.labels), dtype=np.int32), self.recipe.batch_size, self.recipe.drop_last)
        )
        self.model.stop_training = False
        self.steps_per_epoch, self.total_steps = steps, math.ceil(steps * self.recipe.epochs)
        # With one replica and full batches only, every shape is known when the step is traced.
        self._full_batches = self.recipe.drop_last and len(self.training.labels) >= self.recipe.batch_size
        loss = self.recipe.loss
        # Probabilities are float32, or float64 where the recipe asks for it; bfloat16 is too coarse for a loss.
        wide = self.model.output.dtype
        self._loss = LOSSES[loss.name](label_smoothing=loss.label_smoothing, reduction=None, dtype=wide)
        with self.strategy.scope():
            self._network = logits_of(self.model) if loss.name == "categorical_crossentropy" else self.model
            peak = self.recipe.optimizer.learning_rate
            self._schedule = RateSchedule(self.recipe.schedule, peak, self.total_steps)
            self.optimizer = build_optimizer(self.recipe, self._schedule, self.model, self.steps_per_epoch)
            self.model.compile(optimizer=self.optimizer, loss=self._loss)
            lookahead = self.recipe.lookahead
            self._lookahead = Lookahead(lookahead, self.model, self.total_steps) if lookahead else None

    def fit(self, checkpoints: CheckpointFolder | None = None, every_epochs: int = 1) -> Result:
        """Train to the end, from the last checkpoint where there is one; the model then has the selected weights."""
        checkpoint = (checkpoints.load()[0] if checkpoints else None) or Checkpoint(0, 0, [])
        self._restore(checkpoint)
        result = Result(checkpoint.history, 0, checkpoint.step)
        best = checkpoint.arrays.get("best", [])
        self._training_data = self._resident(self.training)
        self._validation_data = self._resident(self.validation)
        callbacks = keras.callbacks.CallbackList(list(self.callbacks), model=self.model)
        callbacks.on_train_begin()
        epochs = math.ceil(self.total_steps / self.steps_per_epoch)
        for epoch in range(checkpoint.epoch, epochs):
            if self._finished(result.history):
                break
            callbacks.on_epoch_begin(epoch)
            logs = {"epoch": float(epoch + 1), **self._train_epoch(epoch, result), **self._validate()}
            result.history.append(logs)
            if best_epoch(_losses(result.history)) == epoch:
                best = self.model.get_weights()
            self._schedule.reduce_for(_losses(result.history))
            callbacks.on_epoch_end(epoch, logs)
            if checkpoints and ((epoch + 1) % every_epochs == 0 or epoch + 1 == epochs):
                checkpoints.save(self._checkpoint(epoch + 1, result, best))
        callbacks.on_train_end()
        result.best_epoch = len(result.history) - 1
        if self.recipe.select == "best":
            self.model.set_weights(best)
            result.best_epoch = best_epoch(_losses(result.history))
        return result

    def train_one_epoch(self) -> dict[str, float]:
        """Run the next epoch's steps and nothing else; return its mean loss and top-1 (for measuring)."""
        if not hasattr(self, "_training_data"):
            self._training_data = self._resident(self.training)
        steps = int(self.optimizer.iterations.numpy())
        return self._train_epoch(steps // self.steps_per_epoch, Result([], 0, steps))

    def evaluate(self, samples: Samples) -> dict[str, float]:
        """Return `loss`, `top1` and `binary_accuracy` over all samples, every one counted once."""
        return self._evaluate(self._resident(samples), len(samples.labels))

    def _finished(self, history: History) -> bool:
        patience = self.recipe.schedule.stop_patience
        return bool(history) and (should_stop(_losses(history), patience) or bool(self.model.stop_training))

    def _train_epoch(self, epoch: int, result: Result) -> dict[str, float]:
        """Run an epoch's steps, several a launch; return its mean loss and top-1 and its last learning rate."""
        shape = tuple(self.training.images.shape[1:])
        plan = draw_epoch(self.recipe, len(self.training.labels), shape, self.seed, epoch)
        placed = self._placed(plan)
        last = min(plan.steps, self.total_steps - epoch * self.steps_per_epoch)
        done, totals, start = 0, np.zeros(3), time.perf_counter()
        while done < last:
            stop = min(last, done + self._launch_length(done))
            began = time.perf_counter()
            totals += self._run_steps(self._training_data, placed, tf.constant(done), tf.constant(stop)).numpy()
            self._adapt_launch(stop - done, time.perf_counter() - began)
            done, result.steps = stop, result.steps + stop - done
            means = {"train_loss": float(totals[0] / totals[2]), "train_top1": float(totals[1] / totals[2])}
            self._check_finite(means["train_loss"], result.steps)
            if self._lookahead:
                self._lookahead.after_step(result.steps)
            if self.report:
                self.report(result.steps, self.total_steps, means)
        result.images += int(totals[2])
        result.seconds += time.perf_counter() - start
        return {**means, "learning_rate": float(self._schedule(tf.constant(result.steps - 1)))}

    def _launch_length(self, done: int) -> int:
        """Return the steps of the next launch; never across a step after which Lookahead pulls."""
        every = self._lookahead.params.every if self._lookahead else self._launch
        position = int(self.optimizer.iterations.numpy()) % every if self._lookahead else 0
        return max(1, min(self._launch, every - position))

    def _adapt_launch(self, steps: int, seconds: float) -> None:
        """Grow launches to about a second: fewer round trips, still a live progress line. It changes no result."""
        if seconds < LAUNCH_SECONDS / 2 and steps >= self._launch:
            self._launch = min(self._launch * 2, 512)

    @tf.function(autograph=False, reduce_retracing=True)
    def _run_steps(self, data: Any, plan: Any, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """Run steps first to last - 1; return the sums of loss and of right answers, and the images, float64."""

        def one(step: tf.Tensor, totals: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            sums = self.strategy.run(self._train_step, args=(data, plan, step))
            return step + 1, totals + self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

        start = (first, tf.zeros(3, tf.float64))
        return tf.while_loop(lambda step, _: step < last, one, start)[1]

    def _train_step(self, data: Any, plan: Any, step: tf.Tensor) -> tf.Tensor:
        """One replica's part of a step; return its sums of loss and right answers, and its images, (3,) float64."""
        order, global_sizes, draws = plan
        indices = order[step]
        if not self._full_batches:
            indices = tf.boolean_mask(indices, indices >= 0)
        images, labels = data
        batch = gather_augmented(images, indices, Draws(*draws), self.recipe.augment.cutout, self.mean_pixel)
        right = tf.gather(labels, indices)
        with tf.GradientTape() as tape:
            outputs = self._network(batch, training=True)
            losses = self._losses(right, outputs)
            mean = tf.reduce_sum(losses) / tf.cast(global_sizes[step], losses.dtype)
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(mean, variables), variables)
        return _sums(losses, outputs, right)

    def _losses(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Return the loss of each image, (B,), in float32 or wider."""
        wide = tf.cast(outputs, self.model.output.dtype)
        return self._loss(tf.one_hot(labels, outputs.shape[-1], dtype=wide.dtype), wide)

    def _validate(self) -> dict[str, float]:
        metrics = self._evaluate(self._validation_data, len(self.validation.labels))
        return {f"validation_{name}": value for name, value in metrics.items()}

    def _evaluate(self, data: Any, count: int) -> dict[str, float]:
        order = batches(np.arange(count, dtype=np.int32), self._evaluation_batch(), drop_last=False)
        replicas = self.strategy.num_replicas_in_sync
        placed = on_each_replica(self.strategy, lambda replica: share_of(order, replica, replicas))
        totals = self._run_evaluation(data, placed).numpy()
        loss, right, binary, seen = (float(total) for total in totals)
        return {"loss": loss / seen, "top1": right / seen, "binary_accuracy": binary / seen}

    @tf.function(autograph=False, reduce_retracing=True)
    def _run_evaluation(self, data: Any, order: Any) -> tf.Tensor:
        local = self.strategy.experimental_local_results(order)[0]

        def one(step: tf.Tensor, totals: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            sums = self.strategy.run(self._evaluation_step, args=(data, order, step))
            return step + 1, totals + self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

        start = (tf.constant(0), tf.zeros(4, tf.float64))
        return tf.while_loop(lambda step, _: step < tf.shape(local)[0], one, start)[1]

    def _evaluation_step(self, data: Any, order: Any, step: tf.Tensor) -> tf.Tensor:
        indices = tf.boolean_mask(order[step], order[step] >= 0)
        images, labels = data
        right = tf.gather(labels, indices)
        outputs = self._network(tf.gather(images, indices), training=False)
        losses = self._losses(right, outputs)
        wide = tf.cast(outputs, tf.float32)
        probabilities = wide if self._network is self.model else tf.nn.softmax(wide)
        agreed = (probabilities > 0.5) == tf.one_hot(right, outputs.shape[-1], on_value=True, off_value=False)
        loss, correct, seen = tf.unstack(_sums(losses, outputs, right))
        binary = tf.reduce_sum(tf.reduce_mean(tf.cast(agreed, tf.float64), axis=-1))
        return tf.stack([loss, correct, binary, seen])

    def _evaluation_batch(self) -> int:
        replicas = self.strategy.num_replicas_in_sync
        return -(-EVALUATION_BATCH // replicas) * replicas

    def _resident(self, samples: Samples) -> Any:
        """Put images and labels on every replica's device, once."""
        arrays = (np.asarray(samples.images), np.asarray(samples.labels, np.int32))
        return on_each_replica(self.strategy, lambda _: arrays)

    def _placed(self, plan: Epoch) -> Any:
        """Put an epoch's plan on every replica's device: its part of the order, the global batch sizes, the draws."""
        replicas = self.strategy.num_replicas_in_sync
        sizes, draws = (plan.order >= 0).sum(axis=1).astype(np.int32), as_tuple(plan.draws)
        return on_each_replica(self.strategy, lambda replica: (share_of(plan.order, replica, replicas), sizes, draws))

    def _check_finite(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            rate = float(self._schedule(tf.constant(step - 1)))
            raise InputError(f"the loss became {loss} by step {step} at learning rate {rate:g}; lower the rate")

    def _checkpoint(self, epoch: int, result: Result, best: list[Any]) -> Checkpoint:
        arrays = {
            "weights": self.model.get_weights(),
            "optimizer": [keras.ops.convert_to_numpy(v) for v in self.optimizer.variables],
            "slow": [slow.numpy() for slow in self._lookahead.slow] if self._lookahead else [],
            "best": best,
        }
        return Checkpoint(epoch, result.steps, result.history, arrays)

    def _restore(self, checkpoint: Checkpoint) -> None:
        if not checkpoint.arrays:
            return
        self.model.set_weights(checkpoint.arrays["weights"])
        for variable, value in zip(self.optimizer.variables, checkpoint.arrays["optimizer"], strict=True):
            variable.assign(value)
        for slow, value in zip(self._lookahead.slow if self._lookahead else [], checkpoint.arrays["slow"], strict=True):
            slow.assign(value)
        self._schedule.reduce_for(_losses(checkpoint.history))


def _losses(history: History) -> list[float]:
    return [logs["validation_loss"] for logs in history]


def _sums(losses: tf.Tensor, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the sum of the losses, the count of right top-1 answers and the count of images, (3,) float64."""
    right = tf.argmax(outputs, axis=-1, output_type=tf.int32) == labels
    sums = [tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float64)), tf.size(labels)]
    return tf.stack([tf.cast(value, tf.float64) for value in sums])
