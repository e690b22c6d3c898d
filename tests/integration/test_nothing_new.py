"""A run that would find nothing to do is told from one that would, on a real S3 server and without Prefect."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from flows.lineage import push
from flows.nothing_new import nothing_new
from flows.overrides import apply_overrides
from flows.run_cache import push_runs
from flows.stages import Outcome, run_stage
from infra.local.object_store import ObjectStore
from tasks.storage import retries
from tasks.storage.bucket import Bucket
from tasks.storage.client import connect
from tests.fixtures.answered import IMAGES, publish_answered
from tests.fixtures.dvc_project import REPOSITORY, dvc, make_project

NEW = None  # something is to be done, and the flow says what
NOTHING = dict.fromkeys(("make", "report"), Outcome.UNCHANGED)


@pytest.fixture
def bucket(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Where the releases of the project in the working folder are."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # of `python -m tasks.registry`
    prefix = f"releases-{uuid.uuid4().hex}"
    folder = make_project(tmp_path / "project", f"s3://retrain/dvc-{uuid.uuid4().hex}")
    monkeypatch.chdir(folder)
    apply_overrides({"publish.prefix": prefix, "publish.minimum_top1": 0.5})
    return Bucket(connect(), "retrain", prefix)


def run(bucket: Bucket, right: int) -> None:
    """Do what a run does, with a release that answers so many test images rightly."""
    folder = Path.cwd()
    for stage in NOTHING:
        run_stage(stage, folder, lambda _: None)
    publish_answered(bucket, folder, right)
    subprocess.run([sys.executable, "-m", "tasks.registry", "offer"], check=True)
    push(folder, lambda _: None)
    push_runs(folder)


def asked(**overrides: object) -> dict[str, Outcome] | None:
    results = nothing_new(overrides, Path.cwd())
    return results if results is None else {result.name: result.outcome for result in results}


def test_nothing_is_new_after_a_run_until_a_value_changes(bucket: Bucket) -> None:
    assert asked() is NEW
    run(bucket, IMAGES - 10)
    assert asked() == NOTHING
    assert asked(**{"publish.minimum_top1": 0.5}) == NOTHING
    assert asked(**{"publish.minimum_top1": 0.6}) is NEW
    Path("make.py").write_text(Path("make.py").read_text() + "# edited\n")
    assert asked() is NEW


def test_what_the_remote_lost_is_something_to_do(bucket: Bucket) -> None:
    run(bucket, IMAGES - 10)
    remote = dvc(Path.cwd(), "remote", "list").split()[1]
    prefix = remote.removeprefix("s3://retrain/")
    kept = [
        each["Key"] for each in bucket.client.list_objects_v2(Bucket="retrain", Prefix=f"{prefix}/files/")["Contents"]
    ]
    bucket.client.delete_object(Bucket="retrain", Key=kept[0])
    assert asked() is NEW
    push(Path.cwd(), lambda _: None)
    assert asked() == NOTHING


def test_a_release_that_is_not_champion_is_something_to_do(bucket: Bucket) -> None:
    run(bucket, IMAGES - 14)
    before = Path("release/receipt.json").read_bytes()
    publish_answered(bucket, Path.cwd(), IMAGES - 10)
    subprocess.run([sys.executable, "-m", "tasks.registry", "offer"], check=True)
    Path("release/receipt.json").write_bytes(before)
    assert asked() is NEW


def test_a_store_that_is_away_is_for_the_flow_to_report(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    run(bucket, IMAGES - 10)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr(retries, "SECONDS", 1.0)
    assert asked() is NEW
