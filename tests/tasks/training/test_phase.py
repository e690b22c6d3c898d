import keras
import pytest

from tasks.models.build import build_model
from tasks.models.whitening import PixelStatistics
from tasks.params.recipe import Recipe
from tasks.training.phase import Phase, Phases, rounded_up
from tests.tasks.training.test_trainer import RECIPE


def network(recipe: Recipe) -> keras.Model:
    return build_model(recipe.model, (32, 32, 3), 4, PixelStatistics((128.0,) * 3, (64.0,) * 3))


def test_phases_follow_one_another() -> None:
    recipe = Recipe.model_validate({**RECIPE, "augment": {"shrink": {"size": 24, "share": 0.5}}})
    phases = Phases(recipe, network(recipe), steps_per_epoch=10, total_steps=90)
    assert [phases.at(step) for step in (0, 29, 30, 44, 45, 89)] == [
        Phase(24, True),
        Phase(24, True),
        Phase(24, False),
        Phase(24, False),
        Phase(None, False),
        Phase(None, False),
    ]
    assert [phases.steps_left(step) for step in (0, 29, 30, 44, 45, 89)] == [30, 1, 15, 1, None, None]


def test_a_network_without_whitening_has_one_phase() -> None:
    recipe = Recipe.model_validate({**RECIPE, "model": {"base": "vgg16", "head": "linear"}})
    phases = Phases(recipe, network(recipe), steps_per_epoch=10, total_steps=90)
    assert {phases.at(step) for step in range(90)} == {Phase(None, False)}
    assert phases.steps_left(0) is None


def test_the_head_is_trained_alone_at_first() -> None:
    recipe = Recipe.model_validate({**RECIPE, "model": {"base": "vgg16", "head": "linear"}, "head_epochs": 1.5})
    phases = Phases(recipe, network(recipe), steps_per_epoch=10, total_steps=90)
    assert [phases.at(step) for step in (0, 14, 15)] == [Phase(None, False, True)] * 2 + [Phase(None, False, False)]
    assert [phases.steps_left(step) for step in (0, 14, 15)] == [15, 1, None]


@pytest.mark.parametrize(("steps", "whole"), [(100 * 1.1, 110), (12.0, 12), (12.5, 13), (0.0, 0)])
def test_steps_are_rounded_up(steps: float, whole: int) -> None:
    assert rounded_up(steps) == whole
