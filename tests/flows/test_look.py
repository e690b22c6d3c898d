"""The flow's first step on a collection: it is looked at where it is followed, and the run gets the pin."""

from pathlib import Path

import pytest

from flows.look import PIN, begun_with, is_followed, look, note_pin
from flows.overrides import apply_overrides
from flows.stages import StageError
from tests.fixtures.archives import colour_images, write_files
from tests.fixtures.dvc_project import REPOSITORY


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    write_files(tmp_path / "photos", colour_images(4))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return tmp_path


def collection(workspace: Path, **more: object) -> dict[str, object]:
    return {"download.dataset": "folders", "download.url": f"{(workspace / 'photos').as_uri()}/", **more}


def test_a_collection_is_followed_unless_somebody_says_which_snapshot(workspace: Path) -> None:
    params = workspace / "params.yaml"
    assert not is_followed({}, params)
    assert not is_followed({"download.dataset": "folders", "download.url": "file:///photos.zip"}, params)
    assert is_followed(collection(workspace), params)
    assert not is_followed(collection(workspace, **{PIN: "0" * 64}), params)
    assert not is_followed(collection(workspace, **{"download.follow": False}), params)


def test_what_is_there_is_said_and_named(workspace: Path) -> None:
    apply_overrides(collection(workspace), workspace / "params.yaml")
    lines: list[str] = []
    name = look(workspace, lines.append)
    assert lines[-1] == f"12 images of 3 classes, snapshot {name[:16]}"
    apply_overrides({PIN: name}, workspace / "params.yaml")
    (workspace / "photos/red/00000.png").unlink()
    other = look(workspace, lines.append)
    assert other != name
    assert lines[-1] == f"0 images came, 1 went, 0 changed their class: 11 images of 3 classes, snapshot {other[:16]}"


def test_a_collection_that_is_not_there_is_bad_input(workspace: Path) -> None:
    apply_overrides(collection(workspace, **{"download.url": "file:///nowhere/"}), workspace / "params.yaml")
    with pytest.raises(
        StageError, match="the collection file:///nowhere/ could not be listed: no such folder"
    ) as caught:
        look(workspace, lambda _: None)
    assert caught.value.is_final


def test_a_run_that_is_started_again_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    assert begun_with(tmp_path, "first") is None
    for number in range(25):
        note_pin(tmp_path, f"run {number}", f"snapshot {number}")
    assert begun_with(tmp_path, "run 24") == "snapshot 24"
    assert begun_with(tmp_path, "run 5") == "snapshot 5"
    assert begun_with(tmp_path, "run 4") is None, "long ended"
    (tmp_path / ".dvc/tmp/pinned.json").write_text("{")
    assert begun_with(tmp_path, "run 24") is None
