import pytest
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.retrain import worth_another_try
from flows.stages import StageError


@pytest.mark.parametrize(
    ("stage", "status", "again"),
    [
        ("download", 1, True),
        ("download", None, True),
        ("download", 2, False),
        ("train", 75, True),
        ("train", 1, False),
        ("train", 2, False),
        ("a stage of one's own", 75, True),
        ("a stage of one's own", 1, False),
    ],
)
def test_a_stage_is_tried_again_where_that_can_end_better(stage: str, status: int | None, again: bool) -> None:
    state: State[object] = Failed(data=StageError(stage, status, ("its last words",)))
    assert worth_another_try(None, None, state) is again  # type: ignore[arg-type]


def test_an_error_of_our_own_is_not_tried_again() -> None:
    assert not worth_another_try(None, None, Failed(data=ValueError("a bug")))  # type: ignore[arg-type]
