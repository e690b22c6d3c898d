"""Of several waiting runs of a schedule one is enough: the run that starts does the work of the others."""

from collections.abc import Callable

from prefect import get_run_logger
from prefect.runtime import flow_run

from infra.prefect_api import PrefectAPI
from tasks.stage.errors import InputError

SKIPPED = "Skipped"  # the name of their state, whose type is Completed


def skip_waiting(api: PrefectAPI, run_id: str, say: Callable[[str], object]) -> list[str]:
    """Mark those runs as skipped that are due, that the schedule made, and that would do the same; return their ids.

    They pile up where a run took longer than the schedule's interval, or where no worker was there for a while. Runs
    that a person asked for, or with other parameters, are left alone. A run that is started again skips none: it goes
    on with the commit with which it began, and they would take the newest.

    Args:
        api: The Prefect server.
        run_id: The run that does their work.
        say: Is given a line if there are any.

    Raises:
        InputError: The server cannot be reached, or refuses.
    """
    run = api.get(f"flow_runs/{run_id}")
    if not run["deployment_id"] or run["run_count"] > 1:
        return []
    due = {
        "deployment_id": {"any_": [run["deployment_id"]]},
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "next_scheduled_start_time": {"before_": api.now.isoformat()},
    }
    skipped = []
    for other in api.post("flow_runs/filter", {"flow_runs": due}):
        if other["id"] == run_id or not other["auto_scheduled"] or other["parameters"] != run["parameters"]:
            continue
        message = f"Flow run {run['name']} ({run_id}), which starts now, is to do the same, and both were due."
        state = {"type": "COMPLETED", "name": SKIPPED, "message": message}
        if api.post(f"flow_runs/{other['id']}/set_state", {"state": state})["status"] == "ACCEPT":
            skipped.append(str(other["id"]))
    if skipped:
        say(f"{len(skipped)} waiting runs of the schedule are skipped: this one is to do the same")
    return skipped


def skip_what_waits() -> None:
    """Do so for the flow run in this process; a server that is away costs a warning."""
    logger = get_run_logger()
    try:
        skip_waiting(PrefectAPI.from_environment(), str(flow_run.get_id()), logger.info)
    except InputError as error:
        logger.warning("what waits beside this run is not skipped: %s", error)
