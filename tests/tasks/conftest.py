"""What is published, for tests of what publishes, promotes, reloads and predicts; TensorFlow comes only with these.

Each release is published once, and each test goes on from a copy: to reload one takes seconds.
"""

import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.local.object_store import ObjectStore

if TYPE_CHECKING:
    from tasks.registry.manifest import Finding, Manifest
    from tasks.registry.store import Store
    from tests.fixtures.published import Published, Workspace

RELOADED: "dict[tuple[object, ...], tuple[Finding, ...]]" = {}
RUNTIME = '{"seconds": 12.5, "devices": ["CPU:0"], "strategy": "MirroredStrategy"}'


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> "Published":
    """A workspace whose release is published and champion, and what became of the offer; never written to."""
    from tests.fixtures.published import RIGHT, Workspace  # noqa: PLC0415
    from tests.fixtures.stages import write_stages  # noqa: PLC0415

    root = tmp_path_factory.mktemp("published")
    write_stages(root, right=RIGHT)
    (root / "runtime").mkdir()
    (root / "runtime/train.json").write_text(RUNTIME)
    workspace = Workspace(root, f"tests/{uuid.uuid4().hex}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _enter(monkeypatch, object_store, root)
        return workspace, workspace.publish_and_offer()


@pytest.fixture(scope="session")
def published_twice(
    published: "Published", tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore
) -> "Published":
    """The same with a second release, which is better but was refused for the floor, and what became of its offer."""
    from tests.fixtures.published import RIGHT  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as monkeypatch:
        workspace = _copy(monkeypatch, object_store, published[0], tmp_path_factory.mktemp("published_twice") / "copy")
        workspace.retrain(right=RIGHT + 1)
        return workspace, workspace.publish_and_offer(minimum_top1=1.0)


@pytest.fixture
def workspace(
    published: "Published", tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> "Workspace":
    """A copy of `published`, in a folder and under a prefix of its own."""
    return _copy(monkeypatch, object_store, published[0], tmp_path / "workspace")


@pytest.fixture
def workspace_with_candidate(
    published_twice: "Published", tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> "Workspace":
    """A copy of `published_twice`, in a folder and under a prefix of its own."""
    return _copy(monkeypatch, object_store, published_twice[0], tmp_path / "workspace")


@pytest.fixture
def new_workspace(workspace: "Workspace") -> "Workspace":
    """A copy of `published` with nothing in the bucket yet."""
    return type(workspace)(workspace.root, f"tests/{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def published_classifier(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> "Workspace":
    """A workspace as `published`, whose network answers every image otherwise; never written to."""
    from tasks.registry.channels import promote, resolve  # noqa: PLC0415
    from tests.fixtures.published import NOW, Workspace  # noqa: PLC0415
    from tests.fixtures.stages import write_stages  # noqa: PLC0415

    root = tmp_path_factory.mktemp("published_classifier")
    write_stages(root)
    workspace = Workspace(root, f"tests/{uuid.uuid4().hex}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _enter(monkeypatch, object_store, root)
        release = resolve(workspace.bucket, workspace.publish()["id"])
        promote(workspace.bucket, release, None, reason="its weights are random", actor="a test", now=NOW)
    return workspace


@pytest.fixture
def classifier_workspace(
    published_classifier: "Workspace", tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of `published_classifier`'s folder, as working folder; the test may damage it."""
    root = tmp_path / "workspace"
    shutil.copytree(published_classifier.root, root)
    _enter(monkeypatch, object_store, root)
    return root


@pytest.fixture
def predict(
    classifier_workspace: Path,
    published_classifier: "Workspace",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """Run tasks.predict in this process, where TensorFlow is loaded already; return status, output and errors."""
    from tasks.predict import main  # noqa: PLC0415

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        place = ["--bucket", "retrain", "--prefix", published_classifier.prefix]
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments), *place])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        output, errors = capsys.readouterr()
        return status, output, errors

    return run


@pytest.fixture
def pictures(classifier_workspace: Path) -> Path:
    """The test images as PNG files, in the test set's order."""
    from PIL import Image  # noqa: PLC0415

    from tasks.data.arrays import load_arrays  # noqa: PLC0415

    folder = classifier_workspace / "pictures"
    folder.mkdir()
    for number, image in enumerate(load_arrays(classifier_workspace / "data/split", "test").images):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return folder


def _enter(monkeypatch: pytest.MonkeyPatch, object_store: ObjectStore, root: Path) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(root)
    monkeypatch.setattr("tasks.registry.promotion.reload_in_clean_process", _reloaded_once)


def _reloaded_once(bucket: "Store", manifest: "Manifest", allowed: float, **how: bool) -> "tuple[Finding, ...]":
    """Reload equal releases once: another Python says the same five seconds later. test_reload.py asks each time."""
    from tasks.registry.reload import reload_in_clean_process  # noqa: PLC0415

    key = (manifest.tree, allowed, bucket.trust is None, tuple(how.items()))
    if key not in RELOADED:
        RELOADED[key] = reload_in_clean_process(bucket, manifest, allowed, **how)
    return RELOADED[key]


def _copy(monkeypatch: pytest.MonkeyPatch, object_store: ObjectStore, original: "Workspace", root: Path) -> "Workspace":
    shutil.copytree(original.root, root, ignore=shutil.ignore_patterns("release"))
    _enter(monkeypatch, object_store, root)
    copy = type(original)(root, f"tests/{uuid.uuid4().hex}")
    for key in original.objects():
        target = key.replace(original.prefix, copy.prefix)
        copy.bucket.client.copy_object(Bucket="retrain", Key=target, CopySource={"Bucket": "retrain", "Key": key})
    return copy
