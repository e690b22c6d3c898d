"""What a run leaves in DVC's remote, against a real S3 server."""

import re
import uuid
from pathlib import Path

import pytest

from flows.lineage import RemoteError, missing_in_remote, push
from flows.outages import Endurance, outlast
from infra.local.object_store import ObjectStore
from tasks.s3.client import connect
from tests.fixtures.dvc_project import copy_project, dvc, make_project
from tests.fixtures.faulty_s3 import FaultyS3

FILES = 5  # two folders' listings, and the three files in them


@pytest.fixture
def prefix() -> str:
    return f"dvc-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages ran."""
    folder = make_project(tmp_path_factory.mktemp("made") / "project", "s3://retrain/none")
    dvc(folder, "repro", "--quiet")
    return folder


@pytest.fixture
def project(
    made: Path, tmp_path: Path, object_store: ObjectStore, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return copy_project(made, tmp_path / "project", f"s3://retrain/{prefix}")


def silent(_line: str) -> None:
    """Swallow a line."""


def test_all_is_missing_then_pushed_then_there(project: Path) -> None:
    assert len(missing_in_remote(project)) == FILES
    assert push(project, silent) == FILES
    assert missing_in_remote(project) == []
    assert push(project, silent) == 0


@pytest.mark.parametrize("lost", ["listing", pytest.param("file", marks=pytest.mark.long), "all"])
def test_remote_that_lost_files_gets_them_back(
    project: Path, object_store: ObjectStore, prefix: str, lost: str
) -> None:
    push(project, silent)
    client = connect(object_store.environment)
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="retrain", Prefix=prefix)["Contents"]]
    chosen = {
        "listing": [key for key in keys if key.endswith(".dir")][:1],
        "file": [key for key in keys if not key.endswith(".dir")][:1],
        "all": keys,
    }[lost]
    for key in chosen:
        client.delete_object(Bucket="retrain", Key=key)
    assert push(project, silent) == len(chosen)
    assert missing_in_remote(project) == []


def test_unreachable_remote_is_one_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(RemoteError, match="remote cannot be asked") as caught:
        push(project, silent)
    assert caught.value.is_outage


def test_a_remote_that_comes_back_is_waited_for(
    project: Path, faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", faulty_s3.endpoint)
    faulty_s3.go_away()
    said: list[str] = []

    def say(line: str) -> None:
        if not said:
            faulty_s3.come_back()
        said.append(line)

    endurance = Endurance(wait_seconds=60, pause_seconds=0.2)
    assert outlast(lambda lines: push(project, lines), silent, say, endurance) == FILES
    assert re.match(r"waiting since \d\d:\d\d:\d\d, for 1m00s more: DVC's remote cannot be asked: ", said[0])
    assert missing_in_remote(project) == []


def test_wrong_credentials_are_one_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(RemoteError, match="does not accept the S3 credentials") as caught:
        push(project, silent)
    assert caught.value.is_final
    assert not caught.value.is_transient


def test_file_that_is_nowhere_is_named(project: Path) -> None:
    cached = next(path for path in (project / ".dvc/cache/files").rglob("*") if path.is_file() and not path.suffix)
    cached.chmod(0o644)
    cached.unlink()
    with pytest.raises(RemoteError, match=f"{cached.parent.name}{cached.name}"):
        push(project, silent)
