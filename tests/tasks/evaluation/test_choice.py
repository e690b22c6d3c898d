"""Which views are averaged: what is chosen, by log-probabilities made for it, and when nothing is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.evaluation.choice import LEAST_IMAGES, MOST_IMAGES, choose, chosen_images

Floats = NDArray[np.float64]
LABELS = np.arange(60, dtype=np.int32) % 3


def averages(**margins: Floats) -> dict[str, Floats]:
    """Log-probabilities, up to a number an image, in which the label leads by a margin."""
    found = {kind: np.zeros((len(LABELS), 3)) for kind in margins}
    for kind, margin in margins.items():
        found[kind][np.arange(len(LABELS)), LABELS] = margin
    return found


def noise(seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=len(LABELS))


@pytest.mark.parametrize("best", ["mirror", "mirror_and_shift"])
def test_of_two_better_kinds_the_one_of_the_lower_log_loss_is_taken(best: str) -> None:
    margins = {"none": 1 + noise(0), "mirror": 1.5 + noise(0), "mirror_and_shift": 1.5 + noise(0)}
    margins[best] += 0.1
    choice = choose(averages(**margins), LABELS)
    assert choice.augmentation == best
    assert f"on 60 validation images better than the image alone: {best} log loss" in choice.reason
    assert choice.kinds[best].log_loss < choice.kinds["none"].log_loss


def test_what_is_better_by_chance_is_not_taken() -> None:
    none = np.full(60, 1.0)
    found = choose(averages(none=none, mirror=none + np.where(np.arange(60) % 4 < 2, 0.4, -0.3)), LABELS)
    assert 0 < found.kinds["mirror"].gain < 2 * found.kinds["mirror"].standard_error
    assert found.kinds["mirror"].top1 >= found.kinds["none"].top1
    assert found.augmentation == "none"
    assert "no average of views is better than the image alone: mirror log loss" in found.reason


def test_what_answers_fewer_images_rightly_is_not_taken_however_much_surer_it_is() -> None:
    margin = np.where(np.arange(60) < 3, 0.1, 0.5)
    surer = np.where(np.arange(60) < 3, -0.1, 2.0)
    choice = choose(averages(none=margin, mirror=surer), LABELS)
    assert choice.kinds["mirror"].gain > 2 * choice.kinds["mirror"].standard_error
    assert choice.kinds["mirror"].top1 == pytest.approx(57 / 60)
    assert choice.augmentation == "none"


def test_views_that_change_nothing_are_not_taken() -> None:
    same = 1 + noise(0)
    assert choose(averages(none=same, mirror=same), LABELS).augmentation == "none"


def test_gain_and_standard_error_by_hand() -> None:
    none, mirror = np.where(np.arange(60) < 30, 0.0, 1.0), np.where(np.arange(60) < 30, 2.0, 1.0)
    found = choose(averages(none=none, mirror=mirror), LABELS).kinds["mirror"]
    change = np.log(3) - np.log(1 + 2 * np.exp(-2.0))  # of half of the images
    assert found.gain == pytest.approx(change / 2)
    assert found.standard_error == pytest.approx(np.sqrt((change / 2) ** 2 * 60 / 59 / 60))
    assert found.log_loss == pytest.approx((np.log(1 + 2 * np.exp(-2.0)) + np.log(1 + 2 * np.exp(-1.0))) / 2)


def test_few_images_choose_nothing() -> None:
    few = {"none": np.zeros((LEAST_IMAGES - 1, 3)), "mirror": 9 * np.eye(3)[LABELS[: LEAST_IMAGES - 1]]}
    choice = choose(few, LABELS[: LEAST_IMAGES - 1])
    assert (choice.augmentation, choice.images) == ("none", LEAST_IMAGES - 1)
    assert choice.reason == "19 validation images are too few, 20 are needed"


def test_many_images_are_looked_at_evenly() -> None:
    assert chosen_images(30).tolist() == list(range(30))
    positions = chosen_images(5000)
    assert len(np.unique(positions)) == MOST_IMAGES
    assert (positions[0], positions[-1]) == (0, 4999)
    assert set(np.diff(positions)) == {2, 3}
