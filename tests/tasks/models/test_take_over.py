"""A network that begins from a released one: its weights by layer, its classes by name, and what does not fit."""

from typing import Any

import keras
import numpy as np
import pytest

from tasks.models.build import build_model
from tasks.models.start import Start
from tasks.models.take_over import take_over
from tasks.models.whitening import PixelStatistics
from tasks.params.recipe import ModelParams
from tasks.stage.errors import InputError

STATISTICS = PixelStatistics((128.0,) * 3, (64.0,) * 3)
SETTINGS: dict[str, Any] = {"base": "airbench", "head": "linear", "widths": (4, 5, 6), "bias": True}
THEN = ("ant", "bee", "cat")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def network(seed: int, classes: int, **settings: Any) -> tuple[keras.Model, ModelParams]:
    keras.utils.set_random_seed(seed)
    params = ModelParams.model_validate({**SETTINGS, **settings})
    return build_model(params, (16, 16, 3), classes, STATISTICS), params


def start(**changes: Any) -> Start:
    model = {"base": "airbench", "head": "linear", "scaling": "unit"}
    facts = {"release": "a" * 16, "model_sha256": "", "fit_hashes_sha256": "", "classes": THEN, "model": model}
    return Start(**facts | changes)


@pytest.fixture
def released() -> keras.Model:
    """A network whose weights are all by chance, batch norm's statistics and the whitening kernel among them."""
    model, _ = network(1, len(THEN))
    generator = np.random.default_rng(1)
    model.set_weights([generator.uniform(0.5, 1.5, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("head", ["linear", "residual_separable"])
def test_of_the_same_classes_it_answers_as_the_release_does(head: str) -> None:
    settings = {"head": head, **({"bias": False} if head == "residual_separable" else {})}
    theirs, _ = network(1, 3, **settings)
    generator = np.random.default_rng(2)
    theirs.set_weights([generator.uniform(0.1, 1, weight.shape) for weight in theirs.get_weights()])
    ours, params = network(2, 3, **settings)
    assert np.abs(ours(IMAGES) - theirs(IMAGES)).max() > 1e-3
    take_over(ours, theirs, start(model={}), THEN, params)
    np.testing.assert_array_equal(ours(IMAGES), theirs(IMAGES))


def test_classes_are_taken_over_by_name_and_a_new_one_begins_as_from_scratch(released: keras.Model) -> None:
    now = ("dog", "cat", "ant")  # dog is new, bee is gone, cat and ant have other places
    ours, params = network(2, len(now))
    fresh = [np.array(weight) for weight in ours.get_layer("unscaled_logits").get_weights()]
    take_over(ours, released, start(), now, params)
    values, knowns = (model.get_layer("unscaled_logits").get_weights() for model in (ours, released))
    for value, known, begun in zip(values, knowns, fresh, strict=True):
        np.testing.assert_array_equal(value[..., 0], begun[..., 0])
        np.testing.assert_array_equal(value[..., 1], known[..., 2])
        np.testing.assert_array_equal(value[..., 2], known[..., 0])


def test_a_release_of_other_classes_gives_its_features(released: keras.Model) -> None:
    ours, params = network(2, 2)
    fresh = ours.get_layer("unscaled_logits").get_weights()
    take_over(ours, released, start(), ("elk", "fox"), params)
    for value, begun in zip(ours.get_layer("unscaled_logits").get_weights(), fresh, strict=True):
        np.testing.assert_array_equal(value, begun)
    np.testing.assert_array_equal(ours.get_layer("whitening").kernel, released.get_layer("whitening").kernel)


def test_trained_weights_are_shrunk_and_perturbed_by_the_seeds_own(released: keras.Model) -> None:
    now = ("bee", "dog")
    ours, params = network(2, len(now))
    fresh, trained = ours.get_weights(), {weight.path for weight in ours.trainable_weights}
    take_over(ours, released, start(), now, params, (0.4, 0.1))
    known = {weight.path: weight.numpy() for weight in released.weights}
    seen = set()
    for weight, begun in zip(ours.weights, fresh, strict=True):
        if weight.path.startswith("unscaled_logits"):
            wanted = np.stack([0.4 * known[weight.path][..., 1] + 0.1 * begun[..., 0], begun[..., 1]], axis=-1)
        elif weight.path in trained:
            wanted = 0.4 * known[weight.path] + 0.1 * begun
        else:
            wanted = known[weight.path]
            seen.add(weight.path.rpartition("/")[2])
        np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-6, err_msg=weight.path)
    assert seen == {"kernel", "moving_mean", "moving_variance"}, "the whitening kernel, and batch norm's statistics"


@pytest.mark.parametrize(
    ("settings", "recorded", "why"),
    [
        ({"head": "residual_separable", "bias": False}, {"head": "linear"}, "its head is linear"),
        ({"scaling": "standard"}, {"scaling": "unit"}, "its scaling is unit"),
        ({"convolutions": 3}, {}, "it has no layer group1_convolution3"),
        ({"widths": (4, 5, 7)}, {}, "its layer group3_convolution1 has another shape"),
        ({"bias": False}, {}, "its layer unscaled_logits has another shape"),
    ],
)
def test_another_architecture_is_refused_in_a_sentence_and_changes_nothing(
    released: keras.Model, settings: dict[str, Any], recorded: dict[str, str], why: str
) -> None:
    ours, params = network(2, len(THEN), **settings)
    before = ours.get_weights()
    with pytest.raises(InputError) as refused:
        take_over(ours, released, start(model=recorded), THEN, params)
    theirs = f"base {recorded.get('base', 'unknown')}, head {recorded.get('head', 'unknown')}"
    assert str(refused.value) == (
        f"release {'a' * 16} ({theirs}) does not fit this recipe's network (base {params.base}, head {params.head}): "
        f"{why}; train.start = scratch begins without it"
    )
    for value, was in zip(ours.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, was)


def test_a_record_of_other_classes_than_the_model_has_is_refused(released: keras.Model) -> None:
    ours, params = network(2, len(THEN))
    with pytest.raises(InputError, match="its layer unscaled_logits has another shape"):
        take_over(ours, released, start(classes=("ant", "bee")), THEN, params)
