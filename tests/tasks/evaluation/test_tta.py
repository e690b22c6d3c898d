"""The views against airbench's definition, and the claim that log-probabilities average like logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tasks.evaluation.metrics import MIN_PROBABILITY
from tasks.evaluation.tta import average, mirror, shift, views

Floats = NDArray[np.float64]
IMAGE = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def test_mirror_flips_left_to_right() -> None:
    assert mirror(IMAGE)[0, :, :, 0].tolist() == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]


def test_shift_by_hand() -> None:
    assert shift(IMAGE, down_right=True)[0, :, :, 0].tolist() == [[5, 4, 5], [2, 1, 2], [5, 4, 5]]
    assert shift(IMAGE, down_right=False)[0, :, :, 0].tolist() == [[5, 6, 5], [8, 9, 8], [5, 6, 5]]


@pytest.mark.parametrize(("name", "count"), [("none", 1), ("mirror", 2), ("mirror_and_shift", 6)])
def test_weights_sum_to_one_and_the_image_comes_first(name: str, count: int) -> None:
    chosen = views(name)
    assert len(chosen) == count
    assert sum(weight for weight, _ in chosen) == 1
    assert (chosen[0][1](IMAGE) == IMAGE).all()


def test_the_average_is_airbenchs() -> None:
    """½ mean(image, mirror) + ½ mean over two shifts of mean(view, mirrored view), on logits."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    weights = generator.normal(size=(6 * 6 * 3, 4)) / 500

    def logits(batch: NDArray[np.uint8]) -> Floats:
        return np.asarray(batch.reshape(len(batch), -1) @ weights)

    def with_mirror(batch: NDArray[np.uint8]) -> Floats:
        return 0.5 * logits(batch) + 0.5 * logits(batch[:, :, ::-1])

    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shifted = [with_mirror(padded[:, :6, :6]), with_mirror(padded[:, 2:8, 2:8])]
    expected = 0.5 * with_mirror(images) + 0.5 * (shifted[0] + shifted[1]) / 2

    found = average((w, softmax(logits(view(images))).astype(np.float32)) for w, view in views("mirror_and_shift"))
    np.testing.assert_allclose(softmax(found), softmax(expected), atol=1e-6)


@given(arrays(np.float64, (3, 4, 5), elements=st.floats(-30, 30)))
def test_log_probabilities_average_like_logits(logits: Floats) -> None:
    weights = (0.5, 0.25, 0.25)
    found = average((w, softmax(z).astype(np.float32)) for w, z in zip(weights, logits, strict=True))
    expected = np.tensordot(weights, logits, axes=1)
    np.testing.assert_allclose(softmax(found), softmax(expected), atol=1e-5)


@given(arrays(np.float64, (3, 4, 5), elements=st.floats(-8, 8)), st.floats(0.25, 4))
def test_a_temperature_does_not_change_the_answer(logits: Floats, temperature: float) -> None:
    """It divides every view's logits, and so their mean: the most probable class stays, up to ties."""
    weights = (0.5, 0.25, 0.25)
    found = average((w, softmax(z / temperature).astype(np.float32)) for w, z in zip(weights, logits, strict=True))
    mean = np.tensordot(weights, logits, axes=1)
    np.testing.assert_allclose(mean[np.arange(4), found.argmax(axis=1)], mean.max(axis=1), atol=1e-5)


def test_an_underflowed_probability_is_clipped() -> None:
    found = average([(1.0, np.array([[1.0, 0.0]], np.float32))])
    assert found.tolist() == [[0.0, pytest.approx(np.log(MIN_PROBABILITY))]]
