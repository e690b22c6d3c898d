"""The flow that looks for new data on a cheap machine, and asks for `retrain` only where there is a reason.

So no GPU starts for nothing. It looks at the collection as `retrain` does, and asks for one run a snapshot at most: who
asks Prefect for the same run again, by the same idempotency key, gets the run that there is. With `retrain.when:
needed` it also brings the data up to date and asks the champion about what came, all of which a CPU can do.
"""

from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.states import Completed

from flows.conclusion import NOT_NEEDED
from flows.drift import TRAIN
from flows.fitting import fitting
from flows.interrupted import interrupted_where_it_may_pass
from flows.look import PIN, is_followed
from flows.overrides import overridden, put_back
from flows.run_cache import EarlierRuns
from flows.stages import read_stages
from flows.steps import ask_champion, look_at_collection, stage_task
from flows.waiting import skip_what_waits
from flows.workspace import exclusive_workspace
from tasks.params.params import load_params

NOTHING_NEW = "NothingNew"  # names of states, in Prefect's list of runs
ASKED = "Asked"
HELD_SECONDS = 150.0  # as in flows/retrain.py
WEIGHTS = "weights"


@flow(name="watch", persist_result=False, log_prints=False)
@interrupted_where_it_may_pass
def watch(deployment: str = "retrain/retrain", overrides: dict[str, Any] | None = None) -> State[str]:
    """Look at the collection; ask for a run of a deployment where there is a reason.

    Args:
        deployment: The one that retrains, as FLOW/NAME.
        overrides: Values to set in params.yaml for this run, by dotted key; those with which that deployment runs.

    Returns:
        What was found, in a state of type Completed: NothingNew, NotNeeded or Asked, each with a sentence.

    Raises:
        InputError: params.yaml is not valid, or another run is at work in this workspace.
        StageError: The look or a stage failed.
    """
    folder, warn = Path.cwd(), get_run_logger().warning
    with exclusive_workspace(folder, HELD_SECONDS, warn) as note_group:
        skip_what_waits()
        put_back(folder, warn)
        values = fitting(overrides or {}, get_run_logger().info)
        if not is_followed(values):
            nothing = "there is nothing to watch: download.url is no collection, or download.follow is false"
            return Completed(name=NOTHING_NEW, message=nothing, data=nothing)
        with overridden(values, folder, warn):
            snapshot = look_at_collection(note_group)
        with overridden({**values, PIN: snapshot}, folder, warn):
            answer = _answer(snapshot, folder, note_group)
    if answer is not None:
        return answer
    asked = _ask(deployment, dict(overrides or {}), snapshot)
    return Completed(name=ASKED, message=asked, data=asked)


def _answer(snapshot: str, folder: Path, note_group: Any) -> State[str] | None:
    """Return why no run is wanted on a snapshot, with the parameters that stand in params.yaml; None where one is."""
    if (release := _made_of(snapshot)) is not None:
        known = f"release {release} was made of snapshot {snapshot[:16]}, which the collection still holds"
        return Completed(name=NOTHING_NEW, message=known, data=known)
    if load_params().retrain.when == "changed":
        return None
    earlier = EarlierRuns(folder)
    for stage in read_stages(folder):
        if stage == TRAIN:
            break
        if stage == WEIGHTS:  # nothing is trained here, and what a run begins with is that run's to ask
            continue
        stage_task(stage)(stage, note_group, earlier)
    need = ask_champion(note_group)
    return None if need["retrain"] else Completed(name=NOT_NEEDED, message=need["sentence"], data=need["sentence"])


def _made_of(snapshot: str) -> str | None:
    """Return the champion or the candidate if it was made of a snapshot."""
    from tasks.registry.channels import read_channel  # noqa: PLC0415 - with boto3 a second to import
    from tasks.registry.store import configured_bucket  # noqa: PLC0415

    bucket = configured_bucket()
    releases = (read_channel(bucket, channel) for channel in ("champion", "candidate"))
    return next((each.id for each in releases if each and each.parameters["download"]["sha256"] == snapshot), None)


def _ask(deployment: str, overrides: dict[str, Any], snapshot: str) -> str:
    """Ask for one run on a snapshot, and wait for nothing; return a sentence that names it."""
    parameters = {"overrides": overrides} if overrides else {}  # else the deployment's own
    key = f"{deployment} {snapshot} {_champion()}"
    run = cast(
        FlowRun, run_deployment(deployment, parameters=parameters, timeout=0, as_subflow=False, idempotency_key=key)
    )
    state = run.state.name if run.state else "Scheduled"
    return f"snapshot {snapshot[:16]} is new: {deployment} has the run {run.name}, which is {state}"


def _champion() -> str:
    """Return the champion's id: after another one, a snapshot of before is a reason again."""
    from tasks.registry.channels import read_pointer  # noqa: PLC0415 - as above
    from tasks.registry.store import configured_bucket  # noqa: PLC0415

    pointer = read_pointer(configured_bucket(), "champion")
    return "none" if pointer is None else pointer.current.release
