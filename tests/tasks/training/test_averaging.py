"""Averaged weights: the average itself by hand, and that validation and the model get it while training does not."""

from typing import Any

import keras
import numpy as np
import pytest

from tasks.params.recipe import AveragingParams
from tasks.training.averaging import Averaging
from tasks.training.distribute import build_strategy
from tests.tasks.training.test_trainer import VALIDATION, trained, trainer


def test_the_average_follows_the_weights_soon_and_later_as_far_as_decay_says() -> None:
    strategy = build_strategy("cpu:1")
    with strategy.scope():
        inputs = keras.Input((1,))
        model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="zeros")(inputs))
        averaging = Averaging(AveragingParams(decay=0.5), model, strategy)
        average = 0.0
        for step in range(1, 12):
            model.weights[0].assign([[step**2]])
            averaging.after_step(step)
            kept = {1: 2 / 11, 2: 3 / 12, 7: 8 / 17, 8: 9 / 18, 9: 0.5}.get(step, min(0.5, (1 + step) / (10 + step)))
            average = kept * average + (1 - kept) * step**2
            np.testing.assert_allclose(averaging.averages[0].numpy(), [[average]], rtol=1e-6)
            assert model.weights[0].numpy() == step**2


def test_the_model_gets_its_own_weights_back_whatever_happens() -> None:
    strategy = build_strategy("cpu:1")
    with strategy.scope():
        inputs = keras.Input((1,))
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        averaging = Averaging(AveragingParams(), model, strategy)
    before = model.get_weights()[0]
    model.weights[0].assign(before + 1)
    with pytest.raises(KeyError), averaging.in_place():
        np.testing.assert_array_equal(model.get_weights()[0], before)
        raise KeyError
    np.testing.assert_array_equal(model.get_weights()[0], before + 1)
    np.testing.assert_array_equal(averaging.averages[0].numpy(), before)


@pytest.mark.parametrize("select", ["last", "best"])
def test_validation_and_the_model_have_the_average_while_training_goes_on_with_the_weights(select: str) -> None:
    changes: dict[str, Any] = {"lookahead": None, "select": select, "epochs": 2}
    engine = trainer(**changes, averaging={"decay": 0.9})
    result = engine.fit()
    raw, alone = trained(**changes)
    for averaged, plain in zip(result.history, alone.history, strict=True):
        assert averaged["train_loss"] == plain["train_loss"]
        assert averaged["validation_loss"] != plain["validation_loss"]
    kept = result.history[result.best_epoch]["validation_loss"]
    assert engine.evaluate(VALIDATION)["loss"] == pytest.approx(kept, rel=1e-12)
    assert any((ours != theirs).any() for ours, theirs in zip(engine.model.get_weights(), raw, strict=True))
