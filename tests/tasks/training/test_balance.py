"""Balance: rare classes count more, on average an image as much as before; and a run with it learns them."""

import numpy as np
import pytest

from tasks.training.balance import class_weights
from tasks.training.feed import Samples
from tasks.training.trainer import Trainer
from tests.tasks.training.test_trainer import TRAINING, trainer

UNEQUAL = np.repeat(np.arange(3, dtype=np.int32), [80, 15, 5])


def test_with_one_every_class_weighs_the_same() -> None:
    sums = np.bincount(UNEQUAL) * class_weights(UNEQUAL, 3, 1.0)
    np.testing.assert_allclose(sums, [100 / 3] * 3)


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.5, 1.0])
def test_the_mean_over_the_images_is_one(balance: float) -> None:
    weights = class_weights(UNEQUAL, 4, balance)
    assert weights[UNEQUAL].mean() == pytest.approx(1)
    assert weights[3] == 1  # which has no image
    assert (np.diff(weights[:3]) > 0).all() == (balance > 0)
    np.testing.assert_allclose(weights[1] / weights[0], (80 / 15) ** balance)


def test_equal_classes_are_left_alone() -> None:
    np.testing.assert_array_equal(class_weights(np.tile(np.arange(4, dtype=np.int32), 6), 4, 1.0), np.ones(4))


def rare(balance: float) -> Trainer:
    """A trainer on images of which one class has a twelfth of the others'."""
    engine = trainer(epochs=4, batch_size=16, loss={"name": "categorical_crossentropy", "balance": balance})
    [few] = np.nonzero(TRAINING.labels == 2)
    kept = np.sort(np.concatenate([np.nonzero(TRAINING.labels != 2)[0], few[: max(1, len(few) // 12)]]))
    samples = Samples(TRAINING.images[kept], TRAINING.labels[kept])
    return Trainer(engine.model, engine.recipe, 0, engine.strategy, samples, engine.validation)


def share_answered(engine: Trainer, label: int) -> float:
    """Return the mean probability that a trained network gives to a class on that class's own images."""
    engine.fit()
    answers = engine.model(TRAINING.images[TRAINING.labels == label], training=False).numpy()
    return float(answers[:, label].mean())


def test_a_rare_class_is_answered_more_with_balance() -> None:
    assert share_answered(rare(1.0), 2) > share_answered(rare(0.0), 2) + 0.05
