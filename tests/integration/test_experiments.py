"""DVC's experiments, which run in copies of the project, reach the object store of `make up` from there."""

import os
import sys
import uuid
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from infra.local.secrets import write_private_text
from tasks.s3.client import connect
from tests.fixtures.dvc_project import REPOSITORY, command, dvc, make_project

# Ends once the store holds the files of two: that one waits for the other proves that both run at once.
MAKE = """\
import pathlib, sys, time
sys.path.insert(0, {repository!r})
from tasks.s3.client import connect
seed = open("params.yaml").read().partition("split:")[2].partition("seed: ")[2].split()[0]
client = connect()
client.put_object(Bucket="retrain", Key="{prefix}/" + seed, Body=b"")
deadline = time.monotonic() + 60
while client.list_objects_v2(Bucket="retrain", Prefix="{prefix}/")["KeyCount"] < 2:
    assert time.monotonic() < deadline, "the other experiment did not come"
    time.sleep(0.2)
folder = pathlib.Path("made")
folder.mkdir(exist_ok=True)
(folder / "numbers.txt").write_text(seed)
"""


@pytest.fixture
def prefix() -> str:
    return f"experiments-{uuid.uuid4().hex}"


@pytest.fixture
def project(tmp_path: Path, object_store: ObjectStore, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project as `make up` leaves it: credentials in .local, and none in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # As in an activated environment: DVC's queue starts its workers by the name `dvc`.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    folder = make_project(tmp_path / "project", f"s3://retrain/{prefix}-dvc")
    (folder / "make.py").write_text(MAKE.format(repository=str(REPOSITORY), prefix=prefix))
    command(folder, "git", "commit", "--quiet", "--all", "--message", "Talk to the store")
    (folder / ".local").mkdir()
    lines = "".join(f"{name}={value}\n" for name, value in object_store.environment.items())
    write_private_text(folder / ".local/object_store.env", lines)
    return folder


def experiments(project: Path) -> set[str]:
    return set(dvc(project, "exp", "list", "--name-only").split())


def test_two_queued_experiments_run_at_once_and_one_in_a_copy(
    project: Path, prefix: str, object_store: ObjectStore
) -> None:
    for seed in (101, 102):
        dvc(project, "exp", "run", "--queue", "--name", f"seed-{seed}", "--set-param", f"split.seed={seed}")
    dvc(project, "exp", "run", "--run-all", "--jobs", "2")
    assert experiments(project) == {"seed-101", "seed-102"}
    dvc(project, "exp", "run", "--temp", "--name", "seed-103", "--set-param", "split.seed=103")
    assert experiments(project) == {"seed-101", "seed-102", "seed-103"}
    found = connect(object_store.environment).list_objects_v2(Bucket="retrain", Prefix=f"{prefix}/")["Contents"]
    assert [entry["Key"].rpartition("/")[2] for entry in found] == ["101", "102", "103"]
    assert not (project / "made").exists()
