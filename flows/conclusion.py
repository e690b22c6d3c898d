"""How a run ended, in the words that its state, its events and its metrics share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed

from flows.decision import Decision, Line, decide, read_line
from flows.offer import read_offer
from flows.stages import Outcome, StageResult
from flows.summary import headline, read_metrics
from tasks.stage.errors import InputError

REFUSED = "Refused"  # names of states, in Prefect's list of runs
NOT_NEEDED = "NotNeeded"


class Ending(StrEnum):
    """How a run ended."""

    CHAMPION = "champion"
    REFUSED = "refused"
    NOTHING_NEW = "nothing new"
    NOT_NEEDED = "not needed"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Conclusion:
    """What a run came to.

    Attributes:
        ending: In a word.
        message: In a sentence.
        decision: About its release; None where there is none.
        line: The champions; None where the store is away.
        metrics: evaluation/metrics.json.
    """

    ending: Ending
    message: str
    decision: Decision | None = None
    line: Line | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


def conclude(results: Sequence[StageResult], folder: Path) -> Conclusion:
    """Return what a run whose stages are through came to; a store that is away costs a warning."""
    try:
        line = read_line()
    except InputError as error:
        get_run_logger().warning("the champions are not known for now: %s", error)
        line = None
    started, first_try = _start()
    decision, metrics = decide(read_offer(folder), line, started), read_metrics(folder)
    ending, message = judge(results, decision, metrics, first_try)
    return Conclusion(ending, message, decision, line, metrics)


def final_state(conclusion: Conclusion, results: list[StageResult]) -> State[list[StageResult]]:
    """Return the state in which the run ends: Completed, with a name of its own where no new model is champion."""
    name = {Ending.REFUSED: REFUSED, Ending.NOT_NEEDED: NOT_NEEDED}.get(conclusion.ending, "Completed")
    return Completed(name=name, message=conclusion.message, data=results)


def judge(
    results: Sequence[StageResult], decision: Decision | None, metrics: dict[str, Any], first_try: bool
) -> tuple[Ending, str]:
    """Return how a run ends, and the sentence that says so.

    A try after another may find every stage up to date that the first one ran, so only a first try has nothing new.
    """
    if decision is not None and decision.changed:
        place = f" in the place of {decision.former}" if decision.former else ""
        return Ending.CHAMPION, f"release {decision.release} is the new champion{place}: {headline(metrics)}"
    is_new = any(result.outcome is Outcome.RAN for result in results) or (decision is not None and decision.is_new)
    if first_try and not is_new:
        return Ending.NOTHING_NEW, f"no stage had anything new: {headline(metrics)}"
    if decision is None:
        return Ending.COMPLETED, headline(metrics)
    if decision.refused:
        return Ending.REFUSED, "; ".join(decision.reasons)
    return Ending.COMPLETED, f"release {decision.release}: {decision.outcome}"


def _start() -> tuple[datetime, bool]:
    """Return when the flow run first started, and whether this is its first try."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.start_time is None:
        return datetime.now(UTC), True
    return run.start_time, run.run_count <= 1
