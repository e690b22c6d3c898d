import httpx
import pytest
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.interrupted import is_transient
from flows.lineage import RemoteError
from flows.stages import StageError
from flows.steps import worth_another_try
from tasks.stage.errors import InputError, OutageError


def stage(status: int | None) -> StageError:
    return StageError("train", status, ("its last words",))


REQUEST = httpx.Request("POST", "http://127.0.0.1/api/artifacts/")


@pytest.mark.parametrize(
    ("error", "again", "later"),
    [
        (stage(75), True, True),
        (stage(-9), True, True),
        (stage(137), True, True),
        (stage(69), False, True),  # waited for already
        (stage(1), False, False),
        (stage(2), False, False),
        (stage(None), False, False),
        (RemoteError("files are nowhere"), True, True),
        (RemoteError("the remote is away", is_away=True), False, True),
        (OutageError("the store is away"), False, True),
        (InputError("no such recipe"), False, False),
        (httpx.ConnectError("Prefect is away"), False, True),
        (httpx.HTTPStatusError("busy", request=REQUEST, response=httpx.Response(503)), False, True),
        (httpx.HTTPStatusError("wrong", request=REQUEST, response=httpx.Response(422)), False, False),
        (ValueError("a bug"), False, False),
    ],
)
def test_a_step_is_tried_again_and_a_run_later_where_that_can_end_better(
    error: Exception, again: bool, later: bool
) -> None:
    state: State[object] = Failed(data=error)
    assert worth_another_try(None, None, state) is again  # type: ignore[arg-type]
    assert is_transient(error) is later
