"""A run that would find nothing to do is told from one that would, on a real S3 server and without Prefect."""

import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.lineage import push
from flows.nothing_new import nothing_new
from flows.overrides import apply_overrides
from flows.run_cache import push_runs
from flows.stages import Outcome, run_stage
from infra.local.object_store import ObjectStore
from tasks.registry.store import Store
from tasks.s3 import retries
from tasks.s3.client import connect
from tests.fixtures.answered import IMAGES, publish_answered
from tests.fixtures.dvc_project import REPOSITORY, make_project

NEW = None  # something is to be done, and the flow says what
NOTHING = dict.fromkeys(("make", "report"), Outcome.UNCHANGED)
REMOTE = f"dvc-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def environment(object_store: ObjectStore) -> Iterator[pytest.MonkeyPatch]:
    """The store's variables, and where `python -m tasks.registry` is found."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**object_store.environment, "PYTHONPATH": str(REPOSITORY)}.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
def bucket(environment: pytest.MonkeyPatch) -> Store:
    return Store(connect(), "retrain", f"releases-{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def finished(environment: pytest.MonkeyPatch, bucket: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after a run whose release became champion and whose data are in the remote."""
    folder = make_project(tmp_path_factory.mktemp("finished") / "project", f"s3://retrain/{REMOTE}")
    environment.chdir(folder)
    assert nothing_new({}, folder) is NEW
    apply_overrides({"publish.prefix": bucket.prefix, "publish.minimum_top1": 0.5})
    for stage in NOTHING:
        run_stage(stage, folder, lambda _: None)
    publish_answered(bucket, folder, IMAGES - 10)
    subprocess.run([sys.executable, "-m", "tasks.registry", "offer"], check=True)
    push(folder, lambda _: None)
    push_runs(folder)
    return folder


@pytest.fixture(autouse=True)
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a copy of the finished project the working folder."""
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")


def asked(**overrides: object) -> dict[str, Outcome] | None:
    results = nothing_new(overrides, Path.cwd())
    return results if results is None else {result.name: result.outcome for result in results}


def test_nothing_is_new_after_a_run_until_a_value_or_a_file_changes() -> None:
    assert asked() == NOTHING
    assert asked(**{"publish.minimum_top1": 0.5}) == NOTHING
    assert asked(**{"publish.minimum_top1": 0.6}) is NEW
    Path("make.py").write_text(Path("make.py").read_text() + "# edited\n")
    assert asked() is NEW


@pytest.mark.parametrize("kind", ["files", "runs"])
def test_what_the_remote_lost_is_something_to_do(bucket: Store, kind: str) -> None:
    listed = bucket.client.list_objects_v2(Bucket="retrain", Prefix=f"{REMOTE}/{kind}/")["Contents"]
    bucket.client.delete_object(Bucket="retrain", Key=next(each["Key"] for each in listed if each["Size"]))
    assert asked() is NEW
    push(Path.cwd(), lambda _: None)
    push_runs(Path.cwd())
    assert asked() == NOTHING


def test_a_release_that_is_not_champion_is_something_to_do(bucket: Store) -> None:
    publish_answered(bucket, Path.cwd(), IMAGES)
    assert asked() is NEW


def test_a_store_that_is_away_is_for_the_flow_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr(retries, "SECONDS", 1.0)
    assert asked() is NEW
