"""How a flow run ends that fails: Failed, or Interrupted where the reason may pass.

A run that is Interrupted is started again by infra/restart.py; one that is Failed waits for a person.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import httpx
from prefect.states import Failed

from flows.failures import StepError
from tasks.stage.errors import OutageError

INTERRUPTED = "Interrupted"  # the name of the state, in Prefect's list of runs
SERVER_ERRORS = 500

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def is_transient(error: Exception) -> bool:
    """Return whether the same run may succeed later: after an outage, Prefect's own included, or a kill."""
    if isinstance(error, StepError):
        return error.is_transient
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= SERVER_ERRORS
    return isinstance(error, OutageError | httpx.TransportError)


def interrupted_where_it_may_pass(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Have a flow end in the state Interrupted where it fails for a reason that may pass; its caller gets the error."""

    @functools.wraps(function)
    def run(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        try:
            return function(*arguments, **named)
        except Exception as error:
            if not is_transient(error):
                raise
            sentence = error.sentence if isinstance(error, StepError) else str(error)
            return cast(Result, Failed(name=INTERRUPTED, message=sentence, data=error))  # Prefect takes it for the end

    return run
