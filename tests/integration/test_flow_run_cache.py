"""What one machine made is restored on another, from a real S3 server."""

import uuid
from pathlib import Path

import pytest

from flows.lineage import push
from flows.run_cache import EarlierRuns, push_runs
from flows.stages import Outcome, run_stage
from infra.local.object_store import ObjectStore
from tasks.s3.client import connect
from tests.fixtures.dvc_project import command, dvc, make_project

STAGES = ("make", "report")


@pytest.fixture
def project(tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return make_project(tmp_path / "project", f"s3://retrain/dvc-{uuid.uuid4().hex}")


def bring_up_to_date(folder: Path) -> tuple[list[Outcome], list[str]]:
    """Return what becomes of each stage, as the flow does it, and the warnings."""
    warnings: list[str] = []
    earlier = EarlierRuns(folder)
    outcomes = []
    for stage in STAGES:
        earlier.fetch(stage, warnings.append)
        outcomes.append(run_stage(stage, folder, lambda _: None).outcome)
    return outcomes, warnings


def clone(project: Path, name: str) -> Path:
    """Return a fresh clone of the project, on an empty disk."""
    command(project.parent, "git", "clone", "--quiet", str(project), name)
    return project.parent / name


def hand_over(project: Path) -> int:
    """Leave for others what a run leaves; return how many runs of stages the remote did not have."""
    push(project, lambda _: None)
    return push_runs(project)


def test_a_fresh_clone_restores_every_stage_and_another_parameter_runs(project: Path) -> None:
    assert bring_up_to_date(project) == ([Outcome.RAN, Outcome.RAN], [])
    assert hand_over(project) == len(STAGES)
    assert hand_over(project) == 0
    there = clone(project, "there")
    assert bring_up_to_date(there) == ([Outcome.RESTORED, Outcome.RESTORED], [])
    assert (there / "dvc.lock").read_bytes() == (project / "dvc.lock").read_bytes()
    assert (there / "evaluation/metrics.json").exists()
    assert bring_up_to_date(there) == ([Outcome.UNCHANGED, Outcome.UNCHANGED], [])

    changed = (there / "params.yaml").read_text().replace("batch_size: ", "batch_size: 1")
    (there / "params.yaml").write_text(changed)
    assert bring_up_to_date(there) == ([Outcome.UNCHANGED, Outcome.RAN], [])
    assert hand_over(there) == 1  # and not the other, which the remote has
    (project / "params.yaml").write_text(changed)
    assert bring_up_to_date(project) == ([Outcome.UNCHANGED, Outcome.RESTORED], [])


def test_a_clone_with_a_committed_lock_restores_too(project: Path) -> None:
    bring_up_to_date(project)
    hand_over(project)
    command(project, "git", "add", "dvc.lock")
    command(project, "git", "commit", "--quiet", "--message", "Record the run")
    assert bring_up_to_date(clone(project, "there")) == ([Outcome.RESTORED, Outcome.RESTORED], [])


def test_a_remote_that_is_away_or_lost_files_is_no_obstacle(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring_up_to_date(project)
    push_runs(project)  # without the files that these runs made
    assert bring_up_to_date(clone(project, "there")) == ([Outcome.RAN, Outcome.RAN], [])
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    outcomes, warnings = bring_up_to_date(clone(project, "elsewhere"))
    assert outcomes == [Outcome.RAN, Outcome.RAN]
    (warning,) = warnings
    assert "earlier runs made is not fetched from elsewhere: DVC's remote cannot be asked: " in warning


def test_runs_that_are_gone_from_the_remote_are_made_again(project: Path) -> None:
    bring_up_to_date(project)
    hand_over(project)
    runs = [path.relative_to(project / ".dvc/cache") for path in (project / ".dvc/cache/runs").glob("*/*/*")]
    address = dvc(project, "config", "remote.storage.url").strip().removeprefix("s3://retrain/")
    for run in runs:  # the store still lists their folders
        connect().delete_object(Bucket="retrain", Key=f"{address}/{run}")
    there = clone(project, "there")
    for run in runs:  # as a copy that was killed leaves it
        (there / ".dvc/cache" / run).parent.mkdir(parents=True)
    assert bring_up_to_date(there) == ([Outcome.RAN, Outcome.RAN], [])


def test_a_project_without_a_remote_says_nothing(project: Path) -> None:
    dvc(project, "remote", "remove", "storage")
    assert bring_up_to_date(project) == ([Outcome.RAN, Outcome.RAN], [])
