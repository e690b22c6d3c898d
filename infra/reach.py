"""How far a flow run got in each of its tries: by that, and not by the time it took, a sweep knows progress."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from infra.prefect_api import PrefectAPI

PAGE = 200  # the most that Prefect's server gives at once


def reach_of_tries(api: PrefectAPI, run: str, starts: Sequence[datetime]) -> list[float]:
    """Return for each try how many steps it brought to their end, and the shares that it did of those that it did not.

    What an earlier try did, the next finds done or goes on with from its checkpoint, so that a try that got further
    reaches more.

    Args:
        api: The Prefect server.
        run: The flow run's id.
        starts: When each try began, in order.

    Raises:
        InputError: The server cannot be reached, or refuses.
    """
    of_run = {"flow_runs": {"id": {"any_": [run]}}}
    progress = {**of_run, "artifacts": {"type": {"any_": ["progress"]}}, "sort": "CREATED_DESC"}
    shares: dict[str, float] = {}
    for artifact in _all(api, "artifacts/filter", progress):
        shares[artifact["task_run_id"]] = max(float(artifact["data"] or 0.0), shares.get(artifact["task_run_id"], 0.0))
    reach = [0.0 for _ in starts]
    for task in _all(api, "task_runs/filter", {**of_run, "sort": "EXPECTED_START_TIME_ASC"}):
        if task["start_time"] is None:
            continue
        number = bisect_right(starts, datetime.fromisoformat(task["start_time"])) - 1
        if number >= 0:
            reach[number] += 1.0 if task["state_type"] == "COMPLETED" else shares.get(task["id"], 0.0) / 100
    return reach


def _all(api: PrefectAPI, path: str, question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    offset = 0
    while page := api.post(path, {**question, "limit": PAGE, "offset": offset}):
        yield from page
        if len(page) < PAGE:
            return
        offset += PAGE
