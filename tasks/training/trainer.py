"""The training loop: the same trajectory on any number of replicas and hosts, however often it is stopped."""

import contextlib
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.params.recipe import Recipe
from tasks.stage.errors import InputError, ResumableError
from tasks.training.averaging import Averaging
from tasks.training.balance import class_weights
from tasks.training.checkpoint import Checkpoint, History
from tasks.training.cluster import Agreement, Cluster
from tasks.training.divergence import runaway_weights
from tasks.training.feed import DEFAULT_MEMORY, Epoch, Feed, Samples, Window, batches, build_feed, draw_epoch
from tasks.training.lookahead import Lookahead
from tasks.training.optimizer import build_optimizer
from tasks.training.pace import Pace
from tasks.training.phase import Phases, rounded_up
from tasks.training.saver import Saver
from tasks.training.schedule import RateSchedule, best_epoch, should_stop, watched_values
from tasks.training.state import capture, restore
from tasks.training.step import Step, metrics_of

EVALUATION_BATCH = 1000

Report = Callable[[int, int, dict[str, float]], None]


class StopRequestedError(Exception):
    """Some host was asked to stop; the launch in progress is done."""


@dataclass
class Result:
    """What fit leaves besides the weights in the model.

    Attributes:
        history: One dict of metrics an epoch.
        best_epoch: Index of the epoch whose weights the model has.
        steps: Steps done in all.
        images: Training images, of all hosts, in the steps that this process took part in.
        seconds: What these steps took; validation is left out.
        epoch_seconds: The same seconds up to the end of each epoch that this process ended.
    """

    history: History
    best_epoch: int
    steps: int
    images: int = 0
    seconds: float = 0.0
    epoch_seconds: list[float] = field(default_factory=list)


@dataclass(eq=False)
class Trainer:
    """Trains `model` by `recipe` on every replica of `strategy`.

    Args:
        model: From tasks.models.build.build_model, made in the strategy's scope.
        recipe: What decides the run.
        seed: Of order and augmentation.
        strategy: From tasks.training.distribute.build_strategy.
        training, validation: Images and labels.
        mean_pixel: What is hidden shows, one value of 0 to 255 a channel.
        callbacks: Keras callbacks, called around training and around each epoch; they see `model` with its optimizer,
            and `model.stop_training` is honoured. They are not saved: a resumed run begins with fresh ones. Several
            hosts must all have those that stop.
        report: Called with (step, steps in all, metrics so far in the epoch) after every launch.
        stop_requested: Asked after every launch; where it answers yes the run is saved and ends.
        cluster: The hosts that train together.
        memory: Bytes of images in one memory, half for training and half for validation; more are streamed.

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
    stop_requested: Callable[[], bool] = lambda: False
    cluster: Cluster = field(default_factory=Cluster)
    memory: int = DEFAULT_MEMORY
    _paces: dict[str, Pace] = field(default_factory=lambda: {"train": Pace(), "evaluate": Pace()}, init=False)
    _feeds: dict[str, Feed] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        replicas, recipe = self.strategy.num_replicas_in_sync, self.recipe
        if recipe.batch_size % replicas:
            raise ValueError(f"batch_size {recipe.batch_size} is not divisible by {replicas} replicas")
        count = len(self.training.labels)
        steps = len(batches(np.arange(count, dtype=np.int32), recipe.batch_size, recipe.drop_last))
        self.steps_per_epoch, self.total_steps = steps, max(1, rounded_up(steps * recipe.epochs))
        self._phases = Phases(recipe, self.model, steps, self.total_steps)
        self.model.stop_training = False
        self._agreement = Agreement(self.strategy, self.cluster)
        # Where the run stands. Its arrays stay empty: until a save they live in the model, optimizer and averages.
        self._state = Checkpoint()
        self._best: list[NDArray[Any]] = []  # weights of the best epoch by what is watched
        with self.strategy.scope():
            head_steps = self._phases.head_steps
            self._schedule = RateSchedule(recipe.schedule, recipe.optimizer.learning_rate, self.total_steps, head_steps)
            self.optimizer = build_optimizer(recipe, self._schedule, self.model, head_steps)
            full = recipe.drop_last and count >= recipe.batch_size
            weights = self._class_weights() if recipe.loss.balance else None
            self._averaging = Averaging(recipe.averaging, self.model, self.strategy) if recipe.averaging else None
            self._step = Step(
                self.model, self.optimizer, recipe, self.strategy, self.mean_pixel, full, weights, self._averaging
            )
            self.model.compile(optimizer=self.optimizer)  # for callbacks; the step needs none of Keras's training
            self._lookahead = Lookahead(recipe.lookahead, self.model, self.total_steps) if recipe.lookahead else None

    def _class_weights(self) -> NDArray[np.float64]:
        return class_weights(np.asarray(self.training.labels), self.model.output.shape[-1], self.recipe.loss.balance)

    def fit(self, saver: Saver | None = None) -> Result:
        """Train to the end, from where the state is; the model then has the selected weights.

        Args:
            saver: Saves the state every so often, and where the run is stopped.

        Raises:
            ResumableError: The run was asked to stop, and is saved; or a host is gone, and the last save stands.
            InputError: The loss is NaN or infinite, weights grew past all bounds, or a device's memory is not enough.
        """
        result = Result(self._state.history, 0, self._state.step)
        try:
            self._run_epochs(result, saver)
        except StopRequestedError:
            self._save(saver)
            standing = self._standing(saver)
            raise ResumableError(f"stopped after step {self._state.step}; {standing}; run it again to go on") from None
        finally:
            if saver:
                saver.close()
        result.best_epoch = len(result.history) - 1
        if self.recipe.select == "best":
            self.model.set_weights(self._best)
            result.best_epoch = best_epoch(self._watched(result.history))
        elif self._averaging:
            self.model.set_weights(self._judged_weights())
        return result

    def resume(self, saver: Saver) -> Checkpoint | None:
        """Take over the newest checkpoint, on every host the chief's; return it, or nothing where there is none."""
        checkpoint = saver.load() if self.cluster.is_chief else None
        if self.cluster.hosts:
            data = self._agreement.broadcast(saver.last.read_bytes() if checkpoint and saver.last else b"")
            checkpoint = saver.folder.read(io.BytesIO(data)) if data else None
        if checkpoint:
            restore(checkpoint.arrays, self.model, self.optimizer, self._lookahead, self._averaging)
            self._schedule.reduce_for(self._watched(checkpoint.history))
            self._best = checkpoint.arrays.pop("best")
            checkpoint.arrays.clear()  # they are where they belong; the caller needs the step and the history
            self._state = Checkpoint(checkpoint.step, checkpoint.totals, checkpoint.history)
        return checkpoint

    def train_one_epoch(self) -> dict[str, float]:
        """Run the next epoch's steps and nothing else; return its mean loss and top-1 (for measuring)."""
        metrics = self._train_epoch(self._state.step // self.steps_per_epoch, Result([], 0, 0), None)
        self._state.totals = (0.0, 0.0, 0.0)
        return metrics

    def evaluate(self, samples: Samples) -> dict[str, float]:
        """Return `loss`, `top1`, `binary_accuracy` and `balanced_accuracy` over all samples, every one counted once."""
        return self._evaluate(build_feed(self.strategy, samples, self.memory // 2), samples)

    def _run_epochs(self, result: Result, saver: Saver | None) -> None:
        callbacks = keras.callbacks.CallbackList(list(self.callbacks), model=self.model)
        callbacks.on_train_begin()
        history = self._state.history
        for epoch in range(len(history), math.ceil(self.total_steps / self.steps_per_epoch)):
            if self._finished(history):
                break
            callbacks.on_epoch_begin(epoch)
            logs = {"epoch": float(epoch + 1), **self._train_epoch(epoch, result, saver), **self._validate()}
            self._check_finite(logs["validation_loss"], "validation loss", saver, runaway_weights(self.model))
            history.append(logs)
            result.epoch_seconds.append(result.seconds)
            self._state.totals = (0.0, 0.0, 0.0)
            if self.recipe.select == "best" and best_epoch(self._watched(history)) == epoch:
                self._best = self._judged_weights()
            self._schedule.reduce_for(self._watched(history))
            callbacks.on_epoch_end(epoch, logs)
        callbacks.on_train_end()

    def _finished(self, history: History) -> bool:
        patience = self.recipe.schedule.stop_patience
        return bool(history) and (should_stop(self._watched(history), patience) or bool(self.model.stop_training))

    def _watched(self, history: History) -> list[float]:
        return watched_values(history, self.recipe.schedule.watch)

    def _judged_weights(self) -> list[NDArray[Any]]:
        """Return the weights that are validated and published: averaged, where the recipe says so."""
        averaging = self._averaging
        return [average.numpy() for average in averaging.averages] if averaging else self.model.get_weights()

    def _train_epoch(self, epoch: int, result: Result, saver: Saver | None) -> dict[str, float]:
        """Run an epoch's steps from the state's on; return its mean loss and top-1 and its last learning rate."""
        shape, epoch_start = self.training.images.shape[1:], epoch * self.steps_per_epoch
        plan = draw_epoch(self.recipe, len(self.training.labels), shape, self.seed, epoch)
        stop = min(plan.steps, self.total_steps - epoch_start)  # the last epoch may be a fraction of one
        for window in self._feed("training").windows(plan, self._state.step - epoch_start, stop):
            while self._state.step - epoch_start < window.stop:
                self._launch(window, epoch_start, result, saver)
        return {**self._means(), "learning_rate": float(self._schedule(tf.constant(self._state.step - 1)))}

    def _launch(self, window: Window, epoch_start: int, result: Result, saver: Saver | None) -> None:
        """Run a launch's steps, and what follows it: the weights' average, a report, a save, a stop."""
        state, seen = self._state, self._state.totals[2]
        first = state.step - epoch_start
        stop = min(window.stop, first + self._launch_length(saver))
        seconds = self._run(window, (first, stop))
        result.images += round(state.totals[2] - seen)
        result.seconds += seconds
        result.steps = state.step
        # In this order: nothing is saved after a loss that is NaN, what is saved has its average behind it, and
        # a stop comes when all is done.
        self._check_finite(state.totals[0], "loss", saver)
        if self._lookahead:
            self._lookahead.after_step(state.step)
        if self.report:
            self.report(state.step, self.total_steps, self._means())
        if saver and saver.due(state.step):
            self._save(saver)
        self._after_launch("train", stop - first, seconds)

    def _run(self, window: Window, steps: tuple[int, int]) -> float:
        """Run training steps of a window and bring the state up to them; return the seconds that they took."""
        began = time.perf_counter()
        first, stop = (tf.constant(step - window.start) for step in steps)
        with self.cluster.naming_lost_hosts():
            before = tf.constant(self._state.totals, tf.float64)
            reached, totals = self._step.train(window.values, first, stop, before, self._phases.at(self._state.step))
            loss, right, seen = (float(total) for total in totals.numpy())
        self._state.step += int(reached) + window.start - steps[0]
        self._state.totals = (loss, right, seen)
        return time.perf_counter() - began

    def _launch_length(self, saver: Saver | None) -> int:
        """Return the steps of the next launch: none of it across a pull of Lookahead, a due save, another phase."""
        step, limits = self._state.step, [self._paces["train"].steps]
        if left := self._phases.steps_left(step):
            limits.append(left)
        for every in (self._lookahead and self._lookahead.params.every, saver and saver.every_steps):
            if every:
                limits.append(every - step % every)
        return min(limits)

    def _after_launch(self, kind: str, steps: int, seconds: float) -> None:
        stop, seconds = self._agreement.after_launch(self.stop_requested(), seconds)
        self._paces[kind].observe(steps, seconds)
        if stop:
            raise StopRequestedError

    def _means(self) -> dict[str, float]:
        loss, right, seen = self._state.totals
        return {"train_loss": loss / seen, "train_top1": right / seen}

    def _check_finite(self, loss: float, name: str, saver: Saver | None, runaway: str | None = None) -> None:
        if runaway or not math.isfinite(loss):
            step = self._state.step
            rate, standing = float(self._schedule(tf.constant(step - 1))), self._standing(saver)
            what = runaway if math.isfinite(loss) else f"the {name} became {loss}"
            raise InputError(f"{what} in step {step} at learning rate {rate:g}; {standing}; lower the rate")

    def _standing(self, saver: Saver | None) -> str:
        if not self.cluster.is_chief:
            return "the chief has the checkpoints"
        return saver.standing() if saver else "nothing was saved"

    def _validate(self) -> dict[str, float]:
        with self._averaging.in_place() if self._averaging else contextlib.nullcontext():
            metrics = self._evaluate(self._feed("validation"), self.validation)
        shown = {"loss", "top1", "binary_accuracy", self.recipe.schedule.watch}
        return {f"validation_{name}": value for name, value in metrics.items() if name in shown}

    def _evaluate(self, feed: Feed, samples: Samples) -> dict[str, float]:
        replicas = self.strategy.num_replicas_in_sync
        batch = -(-EVALUATION_BATCH // replicas) * replicas
        plan = Epoch(batches(np.arange(len(samples.labels), dtype=np.int32), batch, drop_last=False), None)
        done, totals = 0, tf.zeros(4 + self.model.output.shape[-1], tf.float64)
        for window in feed.windows(plan, 0, plan.steps):
            while done < window.stop:
                began, first = time.perf_counter(), done
                done = min(window.stop, first + self._paces["evaluate"].steps)
                steps = tf.constant(first - window.start), tf.constant(done - window.start)
                with self.cluster.naming_lost_hosts():
                    totals = self._step.evaluate(window.values, *steps, totals)[1]
                self._after_launch("evaluate", done - first, time.perf_counter() - began)
        return metrics_of(totals.numpy(), np.asarray(samples.labels))

    def _feed(self, name: str) -> Feed:
        if name not in self._feeds:
            samples = {"training": self.training, "validation": self.validation}[name]
            self._feeds[name] = build_feed(self.strategy, samples, self.memory // 2)
        return self._feeds[name]

    def _save(self, saver: Saver | None) -> None:
        """Give the saver a copy of the state; of several hosts only the chief does."""
        if saver and self.cluster.is_chief:
            arrays = capture(self.model, self.optimizer, self._lookahead, self._averaging, self._best)
            saver.save(Checkpoint(self._state.step, self._state.totals, list(self._state.history), arrays))
