from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.evaluation.metrics import balanced_accuracy, confusion_matrix
from tasks.models.build import build_model, whiten
from tasks.models.whitening import pixel_statistics
from tasks.params.params import load_params
from tasks.params.recipe import Recipe
from tasks.stage.errors import InputError, ResumableError
from tasks.training.balance import class_weights
from tasks.training.checkpoint import CheckpointFolder
from tasks.training.distribute import build_strategy
from tasks.training.draws import draw_augmentation
from tasks.training.feed import Samples
from tasks.training.pace import Pace
from tasks.training.precision import POLICIES, resolve_precision
from tasks.training.saver import Saver
from tasks.training.trainer import Result, Trainer

ROOT = Path(__file__).parents[3]
GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 4, 90).astype(np.int32)
# Every class is a shade, so that a little training is enough to see learning.
IMAGES = (GENERATOR.integers(0, 64, (90, 32, 32, 3)) + 60 * LABELS[:, None, None, None]).astype(np.uint8)
TRAINING, VALIDATION = Samples(IMAGES[:60], LABELS[:60]), Samples(IMAGES[60:], LABELS[60:])

RECIPE: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "precision": "float64",
    "select": "last",
    "model": {"base": "airbench", "head": "linear", "scaling": "standard", "widths": [8, 8, 8], "pooling": "max"},
    "loss": {"name": "categorical_crossentropy", "label_smoothing": 0.2},
    "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.85, "l2": 1e-3, "batch_norm_rate_factor": 8},
    "schedule": {"name": "triangle"},
    "augment": {"crop": 2, "flip": "alternating"},
    "lookahead": {"every": 5},
}
AVERAGED: dict[str, Any] = {"lookahead": None, "averaging": {"decay": 0.9}}
ADAM: dict[str, Any] = {
    "loss": {"name": "binary_crossentropy", "balance": 0.5},
    "optimizer": {"name": "adam", "learning_rate": 1e-3},
}


@pytest.fixture(autouse=True)
def _usual_precision() -> Iterator[None]:
    yield
    keras.config.set_dtype_policy("float32")


def trainer(devices: str = "cpu:1", **changes: Any) -> Trainer:
    recipe = Recipe.model_validate({**RECIPE, **changes})
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(POLICIES[resolve_precision(recipe.precision)])
    strategy = build_strategy(devices)
    statistics = pixel_statistics(TRAINING.images)
    with strategy.scope():
        shape = (None, None, 3) if recipe.augment.shrink else (32, 32, 3)
        model = build_model(recipe.model, shape, 4, statistics)
        whiten(model, recipe.model, TRAINING.images, statistics)
    return Trainer(model, recipe, 0, strategy, TRAINING, VALIDATION)


def trained(devices: str = "cpu:1", **changes: Any) -> tuple[list[np.ndarray], Result]:
    engine = trainer(devices, **changes)
    result = engine.fit()
    return engine.model.get_weights(), result


def largest_relative_gap(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True) if b.any())


@pytest.fixture(scope="module")
def knowing() -> list[np.ndarray]:
    """Weights that know the classes."""
    weights = trained(epochs=8)[0]
    keras.config.set_dtype_policy("float32")
    return weights


def test_it_learns() -> None:
    weights, result = trained(epochs=8)
    assert result.history[-1]["validation_top1"] > 0.9
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert result.steps == 8 * 8
    assert result.images == 8 * 60
    assert all(np.isfinite(weight).all() for weight in weights)


@pytest.mark.parametrize(
    ("devices", "changes"),
    [
        pytest.param("cpu:2", {**ADAM, **AVERAGED}, id="2-adam-averaged"),
        pytest.param("cpu:4", {}, id="4-sgd", marks=pytest.mark.long),
    ],
)
def test_any_number_of_replicas_walks_the_same_way(devices: str, changes: dict[str, Any]) -> None:
    one, alone = trained(epochs=2, **changes)
    several, together = trained(devices, epochs=2, **changes)
    # 60 images in batches of 8: the last batch has 4, which 4 replicas share one each.
    assert largest_relative_gap(several, one) < 1e-10
    for ours, theirs in zip(together.history, alone.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-10)


def test_a_short_batch_may_leave_replicas_without_an_image() -> None:
    # 57 images in batches of 56: the last batch has one image for four replicas.
    one, four = trainer(batch_size=56, epochs=1), trainer("cpu:4", batch_size=56, epochs=1)
    for engine in (one, four):
        engine.training = Samples(IMAGES[:57], LABELS[:57])
        engine.fit()
    assert largest_relative_gap(four.model.get_weights(), one.model.get_weights()) < 1e-10


def test_the_same_run_twice_is_the_same_to_the_bit() -> None:
    first, second = (trained(precision="float32")[0] for _ in range(2))
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class StopAfter:
    """Asks the run to stop after so many launches."""

    def __init__(self, launches: int) -> None:
        self.left = launches

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def one_step_a_launch(engine: Trainer) -> Trainer:
    engine._paces = {kind: SlowPace() for kind in engine._paces}
    return engine


class SlowPace(Pace):
    def observe(self, steps: int, seconds: float) -> None:
        """Stay at one step."""


def test_the_whitening_bias_rests_after_its_epochs_and_everything_else_goes_on() -> None:
    engine = trainer(epochs=3, model={**RECIPE["model"], "whitening": {"bias_epochs": 1.5}}, lookahead=None)
    assert engine.steps_per_epoch == 8
    seen: dict[int, dict[str, Any]] = {}

    def report(step: int, _steps: int, _metrics: dict[str, float]) -> None:
        seen[step] = {weight.path: weight.numpy() for weight in engine.model.trainable_weights}

    engine.report = report
    one_step_a_launch(engine).fit()
    (bias,) = (path for path in seen[1] if path.startswith("whitening"))
    moved = {
        path: [step for step in range(2, 25) if not np.array_equal(seen[step][path], seen[step - 1][path])]
        for path in seen[1]
    }
    assert moved.pop(bias) == list(range(2, 13))
    assert all(steps[-1] == 24 for steps in moved.values())


def test_small_images_are_followed_by_whole_ones() -> None:
    shrink = {"size": 24, "share": 0.15}
    engine = trainer(epochs=8, augment={**RECIPE["augment"], "shrink": shrink})
    assert engine.fit().history[-1]["validation_top1"] > 0.8
    # The tenth of 64 steps, in the middle of the second epoch.
    assert [engine._phases.at(step).size for step in (9, 10)] == [24, None]
    # Small images, whole ones, and whole ones with the whitening bias at rest.
    assert engine._step.train.experimental_get_tracing_count() == 3
    small, whole = trained(augment={"shrink": {"size": 16, "share": 1.0}})[0], trained(augment={})[0]
    assert largest_relative_gap(small, whole) > 0.01
    as_they_are = trained(augment={"shrink": {"size": 48, "share": 1.0}})[0]
    assert largest_relative_gap(as_they_are, whole) < 1e-10


def test_two_labels_of_an_image_count_by_their_shares() -> None:
    optimizer = {"name": "sgd", "learning_rate": 0.01}
    changes: dict[str, Any] = {"epochs": 1, "batch_size": 60, "schedule": {}, "lookahead": None, "optimizer": optimizer}
    loss = {**RECIPE["loss"], "balance": 0.5}
    engine = trainer(**changes, loss=loss, augment={"mixup": 0.4})
    draws = draw_augmentation(engine.recipe.augment, 60, (32, 32, 3), seed=0, epoch=0)
    shares, labels = draws.shares.astype(np.float64), TRAINING.labels
    part = shares[:, None, None, None]
    batch = np.rint(part * TRAINING.images + (1 - part) * TRAINING.images[draws.partners]).astype(np.uint8)
    losses, counts = [], class_weights(labels, 4, 0.5)
    head = engine.model.get_layer("unscaled_logits").kernel
    before = head.numpy()
    with tf.GradientTape() as tape:
        logarithms = tf.math.log(engine.model(batch, training=True))
        for each in (labels, labels[draws.partners]):
            losses.append(-tf.reduce_sum((0.8 * np.eye(4)[each] + 0.05) * logarithms, axis=1))
        of_partners = (1 - shares) * counts[labels[draws.partners]] * losses[1]
        mean = tf.reduce_mean(shares * counts[labels] * losses[0] + of_partners)
    gradient = tape.gradient(mean, head.value)
    result = engine.fit().history[0]
    assert result["train_loss"] == pytest.approx(np.mean(shares * losses[0] + (1 - shares) * losses[1]), rel=1e-5)
    assert result["train_top1"] == np.mean(tf.argmax(logarithms, axis=1) == labels)
    np.testing.assert_allclose(before - head.numpy(), 0.01 * gradient, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("devices", "select", "average"),
    [
        ("cpu:1", "last", {}),
        ("cpu:1", "best", AVERAGED),
        pytest.param("cpu:2", "best", {}, marks=pytest.mark.long),
        pytest.param("cpu:2", "last", AVERAGED, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_goes_on_and_ends_in_the_same_bits(
    tmp_path: Path, devices: str, select: str, average: dict[str, Any]
) -> None:
    changes: dict[str, Any] = {"precision": "float32", "select": select, "epochs": 5, **average}
    changes["schedule"] = {"name": "constant", "reduce_patience": 1, "stop_patience": 3}
    alone, expected = trained(devices, **changes)
    for launches in (2, 5, 20):
        engine, saver = one_step_a_launch(trainer(devices, **changes)), Saver(CheckpointFolder(tmp_path, "run"))
        engine.resume(saver)
        engine.stop_requested = StopAfter(launches)
        with pytest.raises(ResumableError, match=r"stopped after step \d+; the last good checkpoint is .*step-"):
            engine.fit(saver)
    engine, saver = trainer(devices, **changes), Saver(CheckpointFolder(tmp_path, "run"))
    resumed = engine.resume(saver)
    assert resumed is not None
    # Stopped after step 3, in the validation after step 8, and 18 steps and three validations later.
    assert resumed.step == 3 + 5 + 18
    result = engine.fit(saver)
    assert (result.history, result.best_epoch, result.steps) == (expected.history, expected.best_epoch, expected.steps)
    for ours, theirs in zip(engine.model.get_weights(), alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_launches_of_any_length_give_the_same_history_to_the_bit() -> None:
    short = one_step_a_launch(trainer(precision="float32", lookahead=None))
    long = trainer(precision="float32", lookahead=None)
    long._paces["train"].steps = long._paces["evaluate"].steps = 64
    assert short.fit().history == long.fit().history


def test_nothing_is_traced_again_after_the_first_step() -> None:
    engine = trainer(epochs=3)
    engine.fit()
    assert engine._step.train.experimental_get_tracing_count() == 1
    assert engine._step.evaluate.experimental_get_tracing_count() == 1


def test_early_stopping_keeps_the_best_weights() -> None:
    # Nothing improves at a rate of almost nothing on a shuffled answer: the best epoch comes early.
    engine = trainer(select="best", epochs=50, schedule={"stop_patience": 2}, optimizer={**RECIPE["optimizer"]})
    result = engine.fit()
    assert len(result.history) == result.best_epoch + 1 + 2 < 50
    losses = [logs["validation_loss"] for logs in result.history]
    assert losses[result.best_epoch] == min(losses)
    assert engine.evaluate(VALIDATION)["loss"] == pytest.approx(min(losses), rel=1e-9)


@pytest.mark.parametrize(("watch", "kept"), [("loss", 0), ("top1", 1), ("balanced_accuracy", 1)])
def test_the_weights_kept_are_those_of_the_best_epoch_by_what_is_watched(
    knowing: list[np.ndarray], watch: str, kept: int
) -> None:
    # Of 16 images two are of another class: the first epoch's head says the common class to all and is right to be a
    # little sure, and the others' tells the two apart and is sure of nothing.
    common, rare = (np.flatnonzero(label == LABELS) for label in (0, 3))
    chosen = np.concatenate([common[:14], rare[:2]])
    engine = trainer(
        epochs=9,
        select="best",
        loss={"name": "categorical_crossentropy"},
        schedule={"watch": watch, "stop_patience": 2},
        optimizer={"name": "sgd", "learning_rate": 1e-12},
        lookahead=None,
    )
    engine.validation = Samples(IMAGES[chosen], LABELS[chosen])
    engine.model.set_weights(knowing)
    head = engine.model.get_layer("unscaled_logits").kernel
    heads = [np.tile([0.1, 0.0, 0.0, 0.0], (8, 1)), head.numpy() / 1000]

    def begin(epoch: int, _logs: Any) -> None:
        head.assign(heads[min(epoch, 1)])

    engine.callbacks = [keras.callbacks.LambdaCallback(on_epoch_begin=begin)]
    result = engine.fit()
    assert result.best_epoch == kept
    assert len(result.history) == kept + 1 + 2
    np.testing.assert_allclose(head.numpy(), heads[kept], atol=1e-6)
    assert ("validation_balanced_accuracy" in result.history[0]) == (watch == "balanced_accuracy")


def test_keras_callbacks_plug_in() -> None:
    engine = trainer(epochs=6)
    seen: list[int] = []
    engine.callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch)),
        keras.callbacks.EarlyStopping(monitor="train_loss", patience=1, mode="max"),
    ]
    result = engine.fit()
    assert seen == [0, 1]
    assert [logs["epoch"] for logs in result.history] == [1, 2]


def test_the_authors_recipe_trains_as_he_gave_it() -> None:
    recipe = load_params(ROOT / "params.yaml").recipes["seed"]
    assert isinstance(recipe, Recipe)
    assert (recipe.epochs, recipe.batch_size, recipe.select) == (50, 16, "best")
    engine = trainer(**{**recipe.model_dump(), "epochs": 1})
    assert isinstance(engine.optimizer, keras.optimizers.Adam)
    before = engine.model.get_weights()
    result = engine.fit()
    assert result.steps == 4
    assert set(result.history[0]) >= {"train_top1", "validation_top1", "validation_binary_accuracy", "learning_rate"}
    assert result.history[0]["learning_rate"] == pytest.approx(1e-3)
    assert all((ours != theirs).any() for ours, theirs in zip(engine.model.get_weights(), before, strict=True))


def test_a_fraction_of_an_epoch_is_trained() -> None:
    result = trained(epochs=1.5)[1]
    assert result.steps == 12
    assert [logs["epoch"] for logs in result.history] == [1, 2]


def test_evaluation_counts_every_image_once() -> None:
    engine, images, labels = trainer("cpu:4"), IMAGES[1:7], LABELS[1:7]
    metrics = engine.evaluate(Samples(images, labels))
    probabilities = np.asarray(engine.model(images))
    assert metrics["top1"] == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, 4)
    assert confusion.sum(axis=1).tolist() == [2, 2, 2, 0], "a class without an image"
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy(confusion))
    targets = np.eye(4)[labels]
    assert metrics["binary_accuracy"] == pytest.approx(((probabilities > 0.5) == targets).mean())
    smoothed = 0.8 * targets + 0.2 / 4
    assert metrics["loss"] == pytest.approx(-(smoothed * np.log(probabilities)).sum(axis=1).mean())


def test_binary_accuracy_flatters_an_answer_that_knows_nothing() -> None:
    engine = trainer(**ADAM)
    engine.model.get_layer("unscaled_logits").kernel.assign(np.zeros((8, 4)))
    metrics = engine.evaluate(VALIDATION)
    # No class of four passes one half: three of four outputs agree with the target, whatever the image.
    assert metrics["binary_accuracy"] == pytest.approx(0.75)
    assert metrics["top1"] == pytest.approx((VALIDATION.labels == 0).mean())


def test_a_batch_that_the_replicas_do_not_divide_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="batch_size 10 is not divisible by 4 replicas"):
        trainer("cpu:4", batch_size=10)


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_step(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "batch_size": 4,  # 15 steps an epoch: it happens within the first one
        "precision": "float32",
        "lookahead": None,
        "schedule": {"name": "constant"},
        # Decay a hundred times as fast as the weights are: they change sign and grow until float32 ends.
        "optimizer": {"name": "sgd", "learning_rate": 100, "l2": 1.0, "momentum": 0.9},
    }
    finite: list[int] = []
    single = one_step_a_launch(trainer(**changes))
    single.report = lambda step, _steps, _metrics: finite.append(step)
    with pytest.raises(InputError, match="nothing was saved"):
        single.fit()
    first = finite[-1] + 1
    several, saver = trainer(**changes), Saver(CheckpointFolder(tmp_path, "run"), every_steps=3)
    several._paces["train"].steps = 64
    with pytest.raises(InputError) as raised:
        several.fit(saver)
    # The newest save before it whose weights were numbers: those that made the loss none may have been due as well.
    good, last, problems = saver.folder.load()
    assert good is not None
    assert good.is_finite()
    assert first - 6 <= good.step < first
    assert (saver.last, problems) == (last, [])
    assert str(raised.value) == (
        f"the loss became nan in step {first} at learning rate 100; the last good checkpoint is {saver.last}; "
        "lower the rate"
    )


def test_weights_that_run_away_stop_the_run_while_the_loss_is_still_a_number() -> None:
    optimizer = {"name": "sgd", "learning_rate": 1e-9, "momentum": 0.0}
    changes: dict[str, Any] = {"epochs": 1, "batch_size": 60, "schedule": {}, "lookahead": None}
    engine = trainer(**changes, precision="float32", optimizer=optimizer)
    bias = engine.model.trainable_weights[-1]
    bias.assign(np.full(bias.shape, 3e5, np.float32))  # the same for every class: the loss is as it was
    with pytest.raises(InputError, match=rf"the weights {bias.path} reached 3e\+05 in step 1 at learning rate 1e-09; "):
        engine.fit()


def test_a_last_step_into_nothing_stops_the_run_too() -> None:
    # One step in all: its loss is that of the first weights, and the rate makes the next ones useless.
    optimizer = {"name": "sgd", "learning_rate": 1e38, "momentum": 0.9}
    changes: dict[str, Any] = {"epochs": 1, "batch_size": 60, "schedule": {}, "lookahead": None}
    engine = trainer(**changes, precision="float32", optimizer=optimizer)
    sentence = r"the validation loss became nan in step 1 at learning rate 1e\+38; nothing was saved; lower the rate"
    with pytest.raises(InputError, match=sentence):
        engine.fit()


def test_the_best_weights_are_kept_only_where_they_are_asked_for() -> None:
    engines = {select: trainer(select=select, epochs=1) for select in ("last", "best")}
    for engine in engines.values():
        engine.fit()
    assert engines["last"]._best == []
    assert len(engines["best"]._best) == len(engines["best"].model.weights)


@pytest.mark.parametrize("devices", ["gpu:0", "gpu:0,7"])
def test_a_device_that_is_not_there_is_named(devices: str) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=f"{devices}.*no GPU"):
        build_strategy(devices)
