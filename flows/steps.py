"""The steps of the flows as Prefect tasks: the look, the stages of dvc.yaml, the questions to the registry, the push.

Each is tried again where that may end better, and waits for what is away (flows/outages.py); its lines go to the run's
log. What is not a stage runs in a process of its own all the same, so that a kill or a crash of it is one like others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from flows.artifacts import ProgressArtifact, record_drift
from flows.command import Limits, OnLine
from flows.data_report import draw
from flows.drift import measure
from flows.failures import StepError
from flows.lineage import push
from flows.look import look
from flows.offer import offer
from flows.outages import outlast
from flows.renewed import RENEWED, has_renewed_source
from flows.run_cache import EarlierRuns, push_runs
from flows.stages import Outcome, StageResult, is_unchanged, run_stage
from flows.start import ask_start

HOUR = 3600.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class Policy:
    """How often a step that was killed, or can go on, is tried again; how long one try may take, in seconds."""

    retries: int = 3
    timeout: float = 6 * HOUR


POLICIES = {
    "look": Policy(timeout=2 * HOUR),
    "download": Policy(timeout=2 * HOUR),
    "start": Policy(timeout=HOUR),
    "drift": Policy(timeout=HOUR),
    "data-report": Policy(retries=0, timeout=HOUR),
    "train": Policy(timeout=72 * HOUR),
    "publish": Policy(timeout=HOUR),
    "offer": Policy(timeout=HOUR),
}
BACKOFF_SECONDS = exponential_backoff(backoff_factor=5)
JITTER = 0.5


def worth_another_try(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tell whether another try may end better; an outage was waited for already (flows/outages.py)."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StepError) and error.passes_soon


def policy_of(name: str) -> dict[str, Any]:
    """Return what makes a task of a step: its name, and how often it is tried again."""
    return {
        "name": name,
        "task_run_name": name,
        "cache_policy": NO_CACHE,
        "persist_result": False,
        "retries": POLICIES.get(name, Policy()).retries,
        "retry_delay_seconds": BACKOFF_SECONDS,
        "retry_jitter_factor": JITTER,
        "retry_condition_fn": worth_another_try,
    }


@task
def bring_up_to_date(stage: str, note_group: Any, earlier: EarlierRuns, force: bool = False) -> StageResult:
    """Run one stage, if only by force; its lines go to the log, its progress to an artifact; wait for what is away."""
    logger = get_run_logger()
    start = time.monotonic()
    if not force and is_unchanged(stage, Path.cwd()):
        force = has_renewed_source(stage, logger.warning)
        if not force:
            return _logged(StageResult(stage, Outcome.UNCHANGED, time.monotonic() - start), logger.info)
        logger.info(RENEWED)
    earlier.fetch(stage, logger.warning)
    progress = ProgressArtifact(stage)

    def on_line(line: str) -> None:
        logger.info(line)
        progress.see(line)

    def attempt(lines: OnLine) -> StageResult:
        return run_stage(stage, Path.cwd(), lines, _limits(stage), note_group, force=force)

    result = outlast(attempt, on_line, logger.warning)
    progress.finish()
    return _logged(result, logger.info)


def _logged(result: StageResult, say: OnLine) -> StageResult:
    say(f"{result.outcome} ({result.seconds:.1f} s)")
    return result


def stage_task(stage: str) -> "Task[..., StageResult]":
    """Return the task of a stage, under the stage's name and with its policy."""
    return bring_up_to_date.with_options(**policy_of(stage))


@task(**policy_of("look"))
def look_at_collection(note_group: Any) -> str:
    """Look what the collection holds; return the name of its snapshot (flows/look.py)."""
    return _in_time("look", lambda lines, limits: look(Path.cwd(), lines, limits, note_group))


@task(**policy_of("start"))
def choose_start(note_group: Any) -> str | None:
    """Return the release that training begins from (flows/start.py)."""
    return _in_time("start", lambda lines, limits: ask_start(Path.cwd(), lines, limits, note_group))


@task(**policy_of("drift"))
def ask_champion(note_group: Any) -> dict[str, Any]:
    """Ask the champion about what came; return whether to train, and why (flows/drift.py)."""
    found = _in_time("drift", lambda lines, limits: measure(Path.cwd(), lines, limits, note_group))
    record_drift(found)
    return found


@task(**policy_of("data-report"))
def draw_data(note_group: Any) -> None:
    """Draw what the data set holds and what came (flows/data_report.py); a failure costs a warning."""
    logger = get_run_logger()
    if not draw(Path.cwd(), logger.info, _limits("data-report"), note_group):
        logger.warning("data/report.html was not drawn; the run goes on without it")


@task(**policy_of("offer"))
def offer_release(note_group: Any) -> dict[str, Any]:
    """Offer the release for the channels; return what became of it (flows/offer.py)."""
    return _in_time("offer", lambda lines, limits: offer(Path.cwd(), lines, limits, note_group))


@task(**policy_of("push"))
def push_to_remote() -> int:
    """Bring data, model and evaluation into DVC's remote; return how many files were missing there."""
    count = _in_time("push", lambda lines, limits: push(Path.cwd(), lines, limits))
    _in_time("push", lambda _lines, _limits: push_runs(Path.cwd()))
    told = f"{count} files pushed, all of them seen in the remote" if count else "the remote has every file"
    get_run_logger().info(told)
    return count


def _limits(name: str) -> Limits:
    return Limits(timeout_seconds=POLICIES.get(name, Policy()).timeout)


def _in_time(name: str, work: Callable[[OnLine, Limits], Result]) -> Result:
    """Do what a step does, within its policy's time; wait for what is away."""
    logger = get_run_logger()
    return outlast(lambda lines: work(lines, _limits(name)), logger.info, logger.warning)
