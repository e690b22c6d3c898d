"""The temperature: what it minimises, what leaves it alone, what it does on data it was not fitted on."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.metrics import log_loss
from tasks.training.feed import Samples
from tasks.training.temperature import (
    HIGHEST,
    IMAGINED,
    LEAST_IMAGES,
    LOWEST,
    MOST_IMAGES,
    Labels,
    Logits,
    calibrate,
    fit_of,
    fit_temperature,
)

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, images: int, classes: int, temperature: float, apart: float = 2.5) -> tuple[Logits, Labels]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(seed)
    wide = generator.normal(size=(images, classes)) * apart
    labels = (wide + generator.gumbel(size=wide.shape)).argmax(axis=1).astype(np.int32)
    return (wide * temperature).astype(np.float32), labels


def objective(logits: Logits, labels: Labels, temperature: float) -> float:
    """What fit_temperature says that it minimises, written another way: by targets."""
    smoothing = IMAGINED / (len(labels) + IMAGINED)
    targets = (1 - smoothing) * np.eye(logits.shape[1])[labels] + smoothing / logits.shape[1]
    wide = logits.astype(np.float64) / temperature
    return float(np.mean(np.logaddexp.reduce(wide, axis=1) - (targets * wide).sum(axis=1)))


@settings(deadline=None)
@given(seeds, st.integers(20, 300), st.integers(2, 12), st.floats(0.2, 5.0), st.floats(0.5, 6.0))
def test_it_is_the_minimiser(seed: int, images: int, classes: int, temperature: float, apart: float) -> None:
    logits, labels = drawn(seed, images, classes, temperature, apart)
    found = fit_temperature(logits, labels)
    assert LOWEST <= found <= HIGHEST
    least = objective(logits, labels, found)
    for other in (found * (1 - 1e-3), found * (1 + 1e-3), 1.0):
        assert not LOWEST <= other <= HIGHEST or least <= objective(logits, labels, other) + 1e-12


@settings(deadline=None)
@given(seeds, st.lists(st.integers(-64, 64), min_size=60, max_size=60))
def test_what_is_added_to_all_logits_of_an_image_changes_nothing(seed: int, added: list[int]) -> None:
    logits, labels = drawn(seed, len(added), 4, 1.0)
    logits = np.round(logits * 1024) / np.float32(1024)  # so that the sums are exact
    moved = logits + np.array(added, np.float32)[:, None]
    assert fit_temperature(moved, labels) == fit_temperature(logits, labels)
    assert fit_of(moved, labels, 0.5) == fit_of(logits, labels, 0.5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_temperature_that_labels_were_drawn_at_is_found(temperature: float, classes: int) -> None:
    found = fit_temperature(*drawn(0, 20_000, classes, temperature))
    assert found == pytest.approx(temperature, rel=0.03)


def test_images_that_are_all_answered_rightly_do_not_make_it_certain() -> None:
    """The log loss alone would fall for ever; on other images, some answered wrongly, it would not."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 2000).astype(np.int32)
    logits = (generator.normal(size=(2000, 10)) + 4 * np.eye(10)[labels]).astype(np.float32)
    right = logits.argmax(axis=1) == labels
    assert 0.98 < right.mean() < 1
    fitted_on = np.flatnonzero(right)[:100]
    found = fit_temperature(logits[fitted_on], labels[fitted_on])
    assert LOWEST < found < 1
    at = {temperature: fit_of(logits, labels, temperature).log_loss for temperature in (LOWEST, found, 1.0)}
    assert at[found] < 0.5 * min(at[LOWEST], at[1.0])


def test_it_stays_within_its_bounds() -> None:
    logits, labels = drawn(0, 500, 4, 1.0)
    assert fit_temperature(logits, ((labels + 1) % 4).astype(np.int32)) == pytest.approx(HIGHEST)
    assert fit_temperature(logits * np.float32(1e-4), labels) == pytest.approx(LOWEST)
    assert fit_temperature(np.ones((50, 3), np.float32), labels[:50] % 3) == 1.0, "no temperature changes anything"


def test_the_fit_is_that_of_the_probabilities() -> None:
    logits, labels = drawn(1, 300, 5, 3.0)
    probabilities = np.asarray(keras.ops.softmax(logits / 2))
    assert fit_of(logits, labels, 2.0).log_loss == pytest.approx(log_loss(probabilities, labels), abs=1e-6)
    by_hand = fit_of(np.log([[0.6, 0.4], [0.7, 0.3]]).astype(np.float32), np.array([0, 1], np.int32), 1.0)
    assert by_hand.expected_calibration_error == pytest.approx(0.4 / 2 + 0.7 / 2)


def network_of_pixels() -> keras.Model:
    """A network whose logits are the three channels of an image of one pixel."""
    inputs = keras.Input((1, 1, 3), dtype="uint8")
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.Rescaling(1 / 32)(inputs)))


def pixels(logits: Logits) -> np.ndarray:
    return np.clip(32 * logits, 0, 255).astype(np.uint8)[:, None, None]


def test_a_network_is_calibrated_on_all_images() -> None:
    logits, labels = drawn(0, 257, 3, 2.0)
    images = pixels(logits - logits.min(axis=1, keepdims=True))
    found = calibrate(network_of_pixels(), Samples(images, labels))
    seen = images[:, 0, 0].astype(np.float32) / np.float32(32)
    assert found.images == 257
    assert found.temperature == fit_temperature(seen, labels)
    assert found.before == fit_of(seen, labels, 1.0)
    assert found.after == fit_of(seen, labels, found.temperature)
    assert found.after.log_loss < found.before.log_loss
    assert found.sentence().startswith(
        f"calibrated on 257 validation images: temperature {found.temperature:.3f}; there"
    )
    assert set(found.facts()) == {"temperature", "images", "before", "after"}


def test_of_many_images_some_of_each_class_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.training.temperature.MOST_IMAGES", 50)
    assert MOST_IMAGES > LEAST_IMAGES
    logits, labels = drawn(0, 900, 3, 2.0)
    order = np.argsort(labels, kind="stable")  # class by class, as folders are
    images = pixels(logits - logits.min(axis=1, keepdims=True))[order]
    found = calibrate(network_of_pixels(), Samples(images, labels[order]))
    assert found.images == 50
    assert found.temperature == pytest.approx(2.0, rel=0.5)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.arange(LEAST_IMAGES - 1) % 3, "not calibrated: 19 validation images are too few, 20 are needed"),
        (np.zeros(40), "not calibrated: all validation images are of one class"),
    ],
)
def test_too_few_images_or_classes_leave_it_at_1_and_it_says_so(labels: np.ndarray, sentence: str) -> None:
    images = np.zeros((len(labels), 1, 1, 3), np.uint8)
    found = calibrate(network_of_pixels(), Samples(images, labels.astype(np.int32)))
    assert found.sentence() == sentence
    assert found.facts() == {
        "temperature": 1.0,
        "images": len(labels),
        "reason": sentence.removeprefix("not calibrated: "),
    }
