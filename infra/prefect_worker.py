"""`prefect worker` that waits for its server however long it is away: `python -m infra.prefect_worker start …`.

Prefect's own worker (3.9.1) gives up some eight minutes after its server went away, and kills its flow runs when it
leaves, though their training is sound. This one asks again and again, at its usual pace.
"""

import functools
import sys
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import httpx
import prefect.workers.base
from prefect.cli import app
from prefect.utilities.services import critical_service_loop

Workload = Callable[[], Coroutine[Any, Any, Any]]


def patient(workload: Workload) -> Workload:
    """Return a workload that leaves it at one line where the server is away: its loop calls it again soon."""

    @functools.wraps(workload)
    async def wrapped() -> None:
        try:
            await workload()
        except httpx.TransportError as error:
            print(f"the Prefect server is away: {error or type(error).__name__}", flush=True)
        except httpx.HTTPStatusError as error:
            if error.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            print(f"the Prefect server is in trouble: {error.response.status_code}", flush=True)

    return wrapped


async def patient_service_loop(workload: Workload, interval: float, **options: Any) -> None:
    """Run Prefect's loop around a workload that waits for its server."""
    await critical_service_loop(patient(workload), interval, **options)


if __name__ == "__main__":
    prefect.workers.base.critical_service_loop = patient_service_loop  # type: ignore[attr-defined,assignment]
    sys.argv = ["prefect", "worker", *sys.argv[1:]]
    app()
