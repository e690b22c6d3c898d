import pytest

from tasks.params.recipe import Recipe
from tasks.training.run import for_so_many
from tests.tasks.training.test_trainer import RECIPE


@pytest.mark.parametrize(
    ("images", "epochs", "head_epochs"),
    [
        (100, 25.0, 6.25),  # 10 steps an epoch
        (101, 23.0, 250 / 44),  # 11 steps
        (3, 250.0, 62.5),
        (650, 4.0, 1.0),
    ],
)
def test_few_images_are_seen_more_often(images: int, epochs: float, head_epochs: float) -> None:
    recipe = Recipe.model_validate(
        {**RECIPE, "epochs": 4, "batch_size": 10, "head_epochs": 1, "min_steps": 250, "drop_last": False}
    )
    adapted = for_so_many(recipe, images)
    assert (adapted.epochs, adapted.head_epochs) == (epochs, pytest.approx(head_epochs))
    assert adapted.epochs * -(-images // 10) >= 250


def test_a_recipe_that_asks_for_no_steps_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe.model_validate(RECIPE)
    assert for_so_many(recipe, 3) is recipe
    assert capsys.readouterr().out == ""
