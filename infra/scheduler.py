"""Is the scheduler of a Prefect server alive? `python -m infra.scheduler` asks it for proof.

A scheduler that fails does so in its server's log only: the API answers, a schedule is shown as active, and nothing is
ever started. So it is given something to do, and what it makes is looked for: a deployment that nobody runs, with a
daily schedule, for which it makes a run within seconds. Both are deleted again.
"""

import time

from infra.prefect_api import NotFoundError, PrefectAPI
from tasks.stage.errors import InputError, run_command

FLOW = "scheduler-check"
DAY = 86_400.0
PROOF_SECONDS = 90.0  # it looks at what is new every five seconds and at everything once a minute
POLL_SECONDS = 0.5


class NoRunsError(InputError):
    """The scheduler makes no runs."""


def check_scheduler(api: PrefectAPI, seconds: float = PROOF_SECONDS) -> None:
    """Wait until the scheduler has made a run.

    Raises:
        NoRunsError: It made none in time.
        InputError: The server cannot be reached, or refuses.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _has_made_a_run(api, _deployment(api)):
            _clean_up(api)
            return
        time.sleep(POLL_SECONDS)
    _clean_up(api)
    raise NoRunsError(
        f"the scheduler of the Prefect server at {api.url} makes no runs: no schedule will start anything until it "
        "does; the server's log says why"
    )


def _deployment(api: PrefectAPI) -> str:
    """Return the id of the deployment, made where it is not: another check at the same time may have deleted it."""
    try:
        return str(api.get(f"deployments/name/{FLOW}/{FLOW}")["id"])
    except NotFoundError:
        flow = api.post("flows/", {"name": FLOW})["id"]
        schedule = {"active": True, "schedule": {"interval": DAY}}
        return str(api.post("deployments/", {"name": FLOW, "flow_id": flow, "schedules": [schedule]})["id"])


def _has_made_a_run(api: PrefectAPI, deployment: str) -> bool:
    runs = api.post("flow_runs/filter", {"flow_runs": {"deployment_id": {"any_": [deployment]}}, "limit": 1})
    return any(run["auto_scheduled"] for run in runs)


def _clean_up(api: PrefectAPI) -> None:
    """Delete the flow, and with it its deployment and runs."""
    try:
        api.ask("DELETE", f"flows/{api.get(f'flows/name/{FLOW}')['id']}")
    except NotFoundError:  # another check did
        return


def main() -> None:
    """Say that it is alive, or that it is not."""
    check_scheduler(PrefectAPI.from_environment())
    print("the scheduler makes runs")


if __name__ == "__main__":
    run_command("infra.scheduler", main)
