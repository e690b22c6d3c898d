"""The flow: every stage of dvc.yaml as a Prefect task, then the release offered, the data pushed, the run saved.

The DAG is dvc.yaml's: a stage added there is run here. What a stage needs to know is in params.yaml and in files; what
it returns is a file. So the flow passes nothing between its tasks but the order.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from flows.artifacts import record_results
from flows.commit import tag_commit
from flows.conclusion import final_state
from flows.drift import TRAIN
from flows.fitting import fitting
from flows.interrupted import interrupted_where_it_may_pass
from flows.lineage import save_experiment
from flows.look import PIN, begun_with, is_followed, note_pin
from flows.offer import PUBLISH
from flows.overrides import Overrides, apply_overrides, overridden, put_back
from flows.run_cache import EarlierRuns
from flows.share import push_experiment
from flows.stages import Outcome, StageResult, is_unchanged, read_stages
from flows.start import RELEASE, STARTED, begins_from_champion
from flows.steps import (
    ask_champion,
    choose_start,
    draw_data,
    look_at_collection,
    offer_release,
    push_to_remote,
    stage_task,
)
from flows.telling import Run, told
from flows.waiting import skip_what_waits
from flows.workspace import exclusive_workspace

HELD_SECONDS = 150.0  # a stopped run has a minute to save, and one more to end


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
    where it stopped. Where the data set is a collection, the run looks first what is there, and pins it; where
    train.start is champion, it pins the release to begin from.

    Args:
        overrides: Values to set in params.yaml first, by dotted key, as {"train.recipe": "seed"}: for this run alone
            where it is a deployment's, for good where a person runs the flow.
        push_data: Push data, model and evaluation to DVC's remote afterwards.
        save_run: Save a run that changed something as a DVC experiment under the flow run's name.

    Returns:
        What became of each stage, in the state in which the run ends (flows/conclusion.py): one whose release the gate
        refuses is Completed too, under the name Refused, and one that found no reason to train under NotNeeded.

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
        values = fitting(overrides or {}, get_run_logger().info)
        if is_followed(values):
            values[PIN] = _pinned(values, folder, deployed, note_group)
        if begins_from_champion(values):
            values[RELEASE] = _started(values, folder, deployed, note_group)
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


def _started(values: Overrides, folder: Path, deployed: bool, note_group: Any) -> str | None:
    """Return the release that this run begins from: as the champion is now, or as the run began; None: from scratch."""
    run = str(flow_run.get_id())
    if (begun := begun_with(folder, run, STARTED)) is not None:
        get_run_logger().info(f"goes on with {f'release {begun}' if begun else 'scratch'}, from which it began")
        return begun or None
    with _set(values, folder, deployed):
        release = choose_start(note_group)
    note_pin(folder, run, release or "", STARTED)
    return release


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
        if stage == TRAIN and not is_unchanged(stage, folder):
            answer = ask_champion(note_group)
            draw_data(note_group)
            if not answer["retrain"]:
                return final_state(run.end_untrained(answer["sentence"]), run.results)
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
