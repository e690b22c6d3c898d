"""Fixtures of the stage publish and of what publishes, promotes and reloads; TensorFlow comes only with their tests."""

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.local.object_store import ObjectStore

if TYPE_CHECKING:
    from tests.fixtures.published import Published, Workspace

RUNTIME = '{"seconds": 12.5, "devices": ["CPU:0"], "strategy": "MirroredStrategy"}'


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> "Published":
    """A workspace whose release is published and champion, and its receipt; copied by `workspace`, never written to."""
    from tests.fixtures.published import RIGHT, Workspace  # noqa: PLC0415
    from tests.fixtures.stages import write_stages  # noqa: PLC0415

    root = tmp_path_factory.mktemp("published")
    write_stages(root, right=RIGHT)
    (root / "runtime").mkdir()
    (root / "runtime/train.json").write_text(RUNTIME)
    workspace = Workspace(root, f"tests/{uuid.uuid4().hex}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in object_store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(root)
        return workspace, workspace.publish()


@pytest.fixture
def workspace(
    published: "Published", tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> "Workspace":
    """The published workspace in a folder of its own, and what it published under a prefix of its own."""
    original = published[0]
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "workspace"
    shutil.copytree(original.root, root, ignore=shutil.ignore_patterns("release"))
    monkeypatch.chdir(root)
    copy = type(original)(root, f"tests/{uuid.uuid4().hex}")
    for key in original.objects():
        target = key.replace(original.prefix, copy.prefix)
        copy.bucket.client.copy_object(Bucket="retrain", Key=target, CopySource={"Bucket": "retrain", "Key": key})
    return copy


@pytest.fixture
def new_workspace(workspace: "Workspace") -> "Workspace":
    """The same, with nothing published yet."""
    return type(workspace)(workspace.root, f"tests/{uuid.uuid4().hex}")
