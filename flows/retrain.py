"""The flow: every stage of dvc.yaml as a Prefect task, then the release offered, the data pushed, the run saved.

The DAG is dvc.yaml's: a stage added there is run here. What a stage needs to know is in params.yaml and in files; what
it returns is a file. So the flow passes nothing between its tasks but the order.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.tasks import Task, exponential_backoff

from flows.artifacts import ProgressArtifact, record_results
from flows.command import Limits, OnLine
from flows.commit import tag_commit
from flows.conclusion import final_state
from flows.failures import StepError
from flows.interrupted import interrupted_where_it_may_pass
from flows.lineage import push, save_experiment
from flows.look import PIN, begun_with, is_followed, look, note_pin
from flows.offer import PUBLISH, offer
from flows.outages import outlast
from flows.overrides import Overrides, apply_overrides, overridden, put_back
from flows.renewed import RENEWED, has_renewed_source
from flows.run_cache import EarlierRuns, push_runs
from flows.share import push_experiment
from flows.stages import Outcome, StageResult, is_unchanged, read_stages, run_stage
from flows.telling import Run, told
from flows.waiting import skip_what_waits
from flows.workspace import exclusive_workspace

HOUR = 3600.0
HELD_SECONDS = 150.0  # a stopped run has a minute to save, and one more to end


@dataclass(frozen=True)
class Policy:
    """How often a step that was killed, or can go on, is tried again; how long one try may take, in seconds."""

    retries: int = 3
    timeout: float = 6 * HOUR


POLICIES = {
    "download": Policy(timeout=2 * HOUR),
    "train": Policy(timeout=72 * HOUR),
    "publish": Policy(timeout=HOUR),
    "offer": Policy(timeout=HOUR),
}
PUSH = Policy()
BACKOFF_SECONDS = exponential_backoff(backoff_factor=5)
JITTER = 0.5


def worth_another_try(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tell whether another try may end better; an outage was waited for already (flows/outages.py)."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StepError) and error.passes_soon


@task(cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=worth_another_try)
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

    limits = Limits(timeout_seconds=POLICIES.get(stage, Policy()).timeout)

    def attempt(lines: OnLine) -> StageResult:
        return run_stage(stage, Path.cwd(), lines, limits, note_group, force=force)

    result = outlast(attempt, on_line, logger.warning)
    progress.finish()
    return _logged(result, logger.info)


def _logged(result: StageResult, say: OnLine) -> StageResult:
    say(f"{result.outcome} ({result.seconds:.1f} s)")
    return result


def stage_task(stage: str) -> "Task[..., StageResult]":
    """Return the task of a stage, under the stage's name and with its policy."""
    retries = POLICIES.get(stage, Policy()).retries
    return bring_up_to_date.with_options(
        name=stage,
        task_run_name=stage,
        retries=retries,
        retry_delay_seconds=BACKOFF_SECONDS,
        retry_jitter_factor=JITTER,
    )


@task(
    name="look",
    task_run_name="look",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=Policy().retries,
    retry_delay_seconds=BACKOFF_SECONDS,
    retry_jitter_factor=JITTER,
    retry_condition_fn=worth_another_try,
)
def look_at_collection(note_group: Any) -> str:
    """Look what the collection holds; return the name of its snapshot (flows/look.py)."""
    logger, limits = get_run_logger(), Limits(timeout_seconds=POLICIES["download"].timeout)
    return outlast(lambda lines: look(Path.cwd(), lines, limits, note_group), logger.info, logger.warning)


@task(
    name="offer",
    task_run_name="offer",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=POLICIES["offer"].retries,
    retry_delay_seconds=BACKOFF_SECONDS,
    retry_jitter_factor=JITTER,
    retry_condition_fn=worth_another_try,
)
def offer_release(note_group: Any) -> dict[str, Any]:
    """Offer the release for the channels; return what became of it (flows/offer.py)."""
    limits = Limits(timeout_seconds=POLICIES["offer"].timeout)
    logger = get_run_logger()
    return outlast(lambda lines: offer(Path.cwd(), lines, limits, note_group), logger.info, logger.warning)


@task(
    name="push",
    task_run_name="push",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=PUSH.retries,
    retry_delay_seconds=BACKOFF_SECONDS,
    retry_jitter_factor=JITTER,
    retry_condition_fn=worth_another_try,
)
def push_to_remote() -> int:
    """Bring data, model and evaluation into DVC's remote; return how many files were missing there."""
    logger = get_run_logger()
    limits = Limits(timeout_seconds=PUSH.timeout)
    count = outlast(lambda lines: push(Path.cwd(), lines, limits), logger.info, logger.warning)
    outlast(lambda _: push_runs(Path.cwd()), logger.info, logger.warning)
    logger.info(f"{count} files pushed, all of them seen in the remote" if count else "the remote has every file")
    return count


def share_experiment(name: str, folder: Path) -> None:
    """Save the run as an experiment; push a worker's where the git remote may be written: a person's is his own."""
    say = get_run_logger().info
    if save_experiment(name, folder, say) and _is_deployed():
        push_experiment(name, folder, say)


def _is_deployed() -> bool:
    """Return whether a worker runs this flow, and not a person who watches."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None


@flow(name="retrain", persist_result=False, log_prints=False)
@interrupted_where_it_may_pass
def retrain(
    overrides: dict[str, Any] | None = None, push_data: bool = True, save_run: bool = True
) -> State[list[StageResult]]:
    """Retrain: bring every stage of dvc.yaml up to date, one after another.

    Running it twice is running it once: a stage with nothing new is left alone, and a run that was killed goes on
    where it stopped. Where the data set is a collection, the run looks first what is there, and pins it.

    Args:
        overrides: Values to set in params.yaml first, by dotted key, as {"train.recipe": "seed"}: for this run alone
            where it is a deployment's, for good where a person runs the flow.
        push_data: Push data, model and evaluation to DVC's remote afterwards.
        save_run: Save a run that changed something as a DVC experiment under the flow run's name.

    Returns:
        What became of each stage, in the state in which the run ends (flows/conclusion.py): one whose release the gate
        refuses is Completed too, under the name Refused.

    Raises:
        InputError: params.yaml is not valid, or another run is at work in this workspace.
        StageError: A stage failed; those after it did not run. Where its reason may pass, the run is Interrupted.
    """
    folder = Path.cwd()
    deployed = _is_deployed()
    patience = HELD_SECONDS if deployed else 0.0  # a person sees at once what is in the way
    warn = get_run_logger().warning
    with told(folder) as run, exclusive_workspace(folder, patience, warn) as note_group:
        if deployed:
            skip_what_waits()
        put_back(folder, warn)
        tag_commit(folder)
        values = dict(overrides or {})
        if is_followed(values):
            values[PIN] = _pinned(values, folder, deployed, note_group)
        with _set(values, folder, deployed):
            return _bring_all_up_to_date(run, note_group, push_data=push_data, save_run=save_run)


def _pinned(values: Overrides, folder: Path, deployed: bool, note_group: Any) -> str:
    """Return the snapshot for this run: what is there now, or what it began with, where it was started again."""
    run = str(flow_run.get_id())
    if (begun := begun_with(folder, run)) is not None:
        get_run_logger().info(f"goes on with snapshot {begun[:16]}, with which it began")
        return begun
    with _set(values, folder, deployed):
        snapshot = look_at_collection(note_group)
    note_pin(folder, run, snapshot)
    return snapshot


def _set(values: Overrides, folder: Path, deployed: bool) -> AbstractContextManager[None]:
    """Set values in params.yaml: for this run alone where a deployment asked for it, for good where a person did."""
    if deployed:
        return overridden(values, folder, get_run_logger().warning)
    apply_overrides(values)
    return nullcontext()


def _bring_all_up_to_date(run: Run, note_group: Any, *, push_data: bool, save_run: bool) -> State[list[StageResult]]:
    """Run the stages with the parameters that stand in params.yaml; return the state in which the run ends."""
    from tasks.s3.client import check_credentials  # noqa: PLC0415 - with boto3 a second to import

    folder = run.folder
    check_credentials()
    earlier = EarlierRuns(folder)
    for stage in read_stages(folder):
        run.results.append(stage_task(stage)(stage, note_group, earlier))
    if offer_release(note_group).get("published") is False:  # the bucket was emptied since
        again = stage_task(PUBLISH)(PUBLISH, note_group, earlier, force=True)
        run.results = [again if result.name == PUBLISH else result for result in run.results]
        offer_release(note_group)
    conclusion = run.conclude()
    record_results(run.results, folder, conclusion)
    if push_data:
        push_to_remote()
    if save_run and any(result.outcome is not Outcome.UNCHANGED for result in run.results):
        share_experiment(str(flow_run.get_name()), folder)
    return final_state(conclusion, run.results)
