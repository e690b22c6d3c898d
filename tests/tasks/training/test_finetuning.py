"""Fine-tuning by the engine: the head first, then all layers, on any number of replicas, however often stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.models import convnext, efficientnet_lite, efficientnet_v2, mobilenet_v3
from tasks.models.heads import backbone_weights
from tasks.stage.errors import ResumableError
from tasks.training.checkpoint import CheckpointFolder
from tasks.training.optimizer import falling_rates
from tasks.training.saver import Saver
from tests.tasks.training.test_draws import EVERYTHING
from tests.tasks.training.test_trainer import StopAfter, largest_relative_gap, one_step_a_launch, trained, trainer

# Without its weights from a file the network knows nothing, but it is the same network.
FINETUNE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 20,
    "model": {
        "base": "efficientnet_lite0",
        "head": "linear",
        "weights": "imagenet",
        "scaling": "imagenet",
        "frozen_stages": 5,
    },
    "optimizer": {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.05, "input_rate_factor": 0.1},
    "schedule": {"name": "cosine", "start": 0, "warmup": 0.2, "end": 0},
    "augment": EVERYTHING,
    "head_epochs": 1,
    "lookahead": None,
}


@pytest.fixture(autouse=True)
def _one_block_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the network keep its kinds of layers and lose those that come again: tracing is what takes the time."""
    shallow = tuple(replace(stage, repeats=1) for stage in efficientnet_lite.STAGES)
    monkeypatch.setattr(efficientnet_lite, "STAGES", shallow)
    monkeypatch.setattr(efficientnet_v2, "STAGES", tuple(replace(it, repeats=1) for it in efficientnet_v2.STAGES))
    monkeypatch.setattr(mobilenet_v3, "STAGES", tuple(blocks[:1] for blocks in mobilenet_v3.STAGES))
    monkeypatch.setattr(convnext, "DEPTHS", (1, 1, 1, 1))


def test_two_replicas_walk_as_one() -> None:
    one, alone = trained(**FINETUNE)
    two, together = trained("cpu:2", **FINETUNE)
    assert largest_relative_gap(two, one) < 1e-9
    assert together.history[-1] == pytest.approx(alone.history[-1], rel=1e-9)


def test_a_run_stopped_in_both_phases_ends_in_the_same_bits(tmp_path: Path) -> None:
    changes = {**FINETUNE, "precision": "float32"}
    alone, expected = trained(**changes)
    for launches in (1, 2):
        engine, saver = one_step_a_launch(trainer(**changes)), Saver(CheckpointFolder(tmp_path, "run"))
        engine.resume(saver)
        engine.stop_requested = StopAfter(launches)
        with pytest.raises(ResumableError):
            engine.fit(saver)
    engine, saver = trainer(**changes), Saver(CheckpointFolder(tmp_path, "run"))
    resumed = engine.resume(saver)
    assert resumed is not None
    assert resumed.step == 4  # the first three are the head's alone
    assert engine.fit(saver).history == expected.history
    for ours, theirs in zip(engine.model.get_weights(), alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_backbone_rests_while_the_head_begins_and_frozen_stages_for_good() -> None:
    engine = trainer(**{**FINETUNE, "epochs": 1, "head_epochs": 1})
    resting = set(backbone_weights(engine.model))
    before = {weight.path: weight.numpy() for weight in engine.model.weights}
    engine.fit()
    changed = {path for weight in engine.model.weights if (weight.numpy() != before[path := weight.path]).any()}
    assert changed == {"unscaled_logits/kernel"}
    assert len(resting) > 15
    engine = trainer(**{**FINETUNE, "epochs": 1, "head_epochs": 0})
    before = {weight.path: weight.numpy() for weight in engine.model.weights}
    engine.fit()
    changed = {path for weight in engine.model.weights if (weight.numpy() != before[path := weight.path]).any()}
    assert changed == {weight.path for weight in engine.model.trainable_weights}
    assert not any(path.startswith(("stem", "stage1", "stage5")) for path in changed)


BASES = ["mobilenet_v3_large", "convnext_tiny"] + [
    pytest.param(base, marks=pytest.mark.long) for base in ("efficientnet_v2_b0", "resnet50", "vgg16")
]


def one_step_of(base: str) -> dict[str, Any]:
    model = {**FINETUNE["model"], "base": base, "frozen_stages": 1}
    return {**FINETUNE, "epochs": 1, "batch_size": 60, "head_epochs": 0, "model": model, "schedule": {}}


@pytest.mark.parametrize("base", BASES)
def test_a_step_moves_what_is_trained_of_a_network_of_keras_and_nothing_else(base: str) -> None:
    engine = trainer(**one_step_of(base))
    rates = falling_rates(engine.model, 0.1)
    assert set(rates) == {weight.path for weight in engine.model.trainable_weights}
    assert min(rates.values()) == pytest.approx(0.1)
    assert rates["unscaled_logits/kernel"] == 1
    before = {weight.path: weight.numpy() for weight in engine.model.weights}
    engine.fit()
    changed = {path for weight in engine.model.weights if (weight.numpy() != before[path := weight.path]).any()}
    assert changed == {weight.path for weight in engine.model.trainable_weights}
    assert len(changed) < len(engine.model.weights)


@pytest.mark.long
@pytest.mark.parametrize("base", BASES)
def test_two_replicas_take_the_same_step_in_a_network_of_keras(base: str) -> None:
    alone, _ = trained(**one_step_of(base))
    together, _ = trained("cpu:2", **one_step_of(base))
    assert largest_relative_gap(together, alone) < 1e-6
