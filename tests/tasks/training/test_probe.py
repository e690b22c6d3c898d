"""A linear probe: its head is at the optimum that is documented, and validation images choose the penalty."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.data.arrays import Arrays, SplitRecord
from tasks.models.build import build_model, logits_of
from tasks.models.whitening import pixel_statistics
from tasks.params.params import TrainParams
from tasks.params.probe import ProbeRecipe
from tasks.stage.errors import InputError
from tasks.training.features import FeatureStore
from tasks.training.probe import Seen, features_key, probe, solve
from tasks.training.run import Makings, Prepared

MODEL = {"base": "efficientnet_lite0", "head": "linear", "weights": "imagenet", "scaling": "imagenet", "bias": True}
CLASSES = ("dark", "dim", "bright")
SHADE = 40


def recipe(*penalties: float, **changes: Any) -> ProbeRecipe:
    values = {"method": "probe", "model": MODEL, "penalties": penalties}
    return ProbeRecipe.model_validate({**values, **changes})


def samples(classes: int, count: int, seed: int) -> Seen:
    """Features of which a few tell the classes apart, noisily; one never changes."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.int32)
    features = generator.normal(2.0, 3.0, (count, 12))
    features[np.arange(count), labels] += 2
    features[:, 11] = 7
    return Seen(features.astype(np.float32), labels)


def probabilities(features: NDArray[np.float64], kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> Any:
    powers = np.exp(features @ kernel + bias)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize(("penalty", "balance"), [(1.0, 0.0), (100.0, 0.0), (10.0, 0.5)])
def test_the_head_is_at_the_optimum(classes: int, penalty: float, balance: float) -> None:
    training = samples(classes, 300, 0)
    training.labels[:50] = 0
    head = solve(training, samples(classes, 60, 1), classes, recipe(penalty, balance=balance))
    counts = np.bincount(training.labels)[training.labels]
    importance = counts**-balance * len(counts) / (counts**-balance).sum()
    wide = training.features.astype(np.float64)
    mean, std = wide.mean(axis=0), np.where(wide.std(axis=0) < 1e-9, 1, wide.std(axis=0))
    standardised, weights = (wide - mean) / std, head.kernel * std[:, None]
    errors = probabilities(wide, head.kernel, head.bias) - np.eye(classes)[training.labels]
    errors *= importance[:, None]
    gradient = standardised.T @ errors + penalty * weights  # of Σ log loss + penalty/2 · Σ weight²
    assert np.abs(gradient).max() < 1e-3 * len(wide)
    assert np.abs(errors.sum(axis=0)).max() < 1e-3 * len(wide)
    assert np.abs(weights[:11]).max() > 0.01
    assert not head.unfinished


def test_validation_images_choose_the_penalty() -> None:
    training, validation = samples(3, 40, 0), samples(3, 300, 1)
    head = solve(training, validation, 3, recipe(0.01, 1e5, 10.0, 1.0))
    assert [row["penalty"] for row in head.metrics] == [1e5, 10.0, 1.0, 0.01]
    losses = [row["validation_loss"] for row in head.metrics]
    assert losses[head.best] == min(losses) < min(losses[0], losses[-1])
    measured = probabilities(validation.features.astype(np.float64), head.kernel, head.bias)
    rows = np.arange(len(validation.labels))
    assert losses[head.best] == pytest.approx(-np.log(measured[rows, validation.labels]).mean())
    top1 = np.mean(measured.argmax(axis=1) == validation.labels)
    assert head.metrics[head.best]["validation_top1"] == pytest.approx(top1)
    binary = np.mean((measured > 0.5) == np.eye(3, dtype=bool)[validation.labels])
    assert head.metrics[head.best]["validation_binary_accuracy"] == pytest.approx(binary)


@pytest.mark.filterwarnings("error")
def test_a_solver_that_comes_to_its_last_iteration_says_so() -> None:
    head = solve(samples(3, 300, 0), samples(3, 60, 1), 3, recipe(100.0, 0.001, max_iterations=3))
    assert head.unfinished == [100.0, 0.001]


def shaded(count: int, seed: int, classes: int = 3) -> Arrays:
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.int32)
    images = generator.integers(0, SHADE, (count, 32, 32, 3)) + 2 * SHADE * labels[:, None, None, None]
    return Arrays(images.astype(np.uint8), labels)


def prepared(training: Arrays) -> Prepared:
    validation = shaded(15, 1)
    record = SplitRecord("folders", CLASSES, (32, 32, 3), "stable", 0, {}, {}, {}, {})
    makings = Makings({"weights": None, "versions": []}, {})
    params, statistics = TrainParams(recipe="probe"), pixel_statistics(training.images)
    return Prepared(params, recipe(10.0, 1.0), "float32", record, training, validation, statistics, makings)


def network(run: Prepared) -> keras.Model:
    """Its weights are by chance; shades are told apart even so."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")  # whatever another test has left
    return build_model(run.recipe.model, run.record.image_shape, len(CLASSES), run.statistics)


def frozen_weights(model: keras.Model) -> list[NDArray[np.float32]]:
    return [weight.numpy() for weight in model.weights if not weight.path.startswith("unscaled_logits")]


def store(root: Path, run: Prepared) -> FeatureStore:
    def unexpected(sentence: str) -> None:
        raise AssertionError(sentence)

    return FeatureStore(root, features_key(run, {"threads": "2"}), unexpected)


def test_the_network_gets_the_head_and_a_second_run_no_features_to_compute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = prepared(shaded(60, 0))
    model = network(run)
    before = frozen_weights(model)
    result = probe(model, run, store(tmp_path, run), lambda: False)
    assert "features of 75 images, 0 of them known from before" in capsys.readouterr().out
    best = result.history[result.best_epoch]
    logits = logits_of(model)(run.validation.images, training=False).numpy()
    assert np.mean(logits.argmax(axis=1) == run.validation.labels) == best["validation_top1"] == 1
    for one, other in zip(before, frozen_weights(model), strict=True):
        np.testing.assert_array_equal(one, other)
    again = network(run)
    assert probe(again, run, store(tmp_path, run), lambda: False).history == result.history
    assert "75 of them known from before" in capsys.readouterr().out
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_class_without_a_training_image_is_named(tmp_path: Path) -> None:
    run = prepared(shaded(60, 0, classes=2))
    with pytest.raises(InputError, match="class 'bright' has no training image"):
        probe(network(run), run, store(tmp_path, run), lambda: False)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": {**MODEL, "bias": False}}, "model.bias = true"),
        ({"model": {"base": "vgg16", "head": "linear", "bias": True}}, "needs features that were trained"),
        ({"penalties": ()}, "at least 1 item"),
    ],
)
def test_a_recipe_that_is_no_probe_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recipe(1.0, **changes)
