"""The flow's step where train.start is champion: the release is asked for, and pinned as a snapshot is."""

import shutil
from pathlib import Path

import pytest

from flows.look import begun_with, note_pin
from flows.overrides import apply_overrides
from flows.run import _started
from flows.stages import StageError
from flows.start import RELEASE, STARTED, ask_start, begins_from_champion
from infra.local.object_store import ObjectStore
from tasks.params.params import load_params
from tasks.registry.channels import move_pointer
from tests.fixtures.buckets import new_bucket
from tests.fixtures.dvc_project import REPOSITORY
from tests.fixtures.releases_to_begin_from import publish_to_begin_from

CHAMPION = {"train.start": "champion"}


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(REPOSITORY / "params.yaml", tmp_path / "params.yaml"))


def test_it_is_asked_where_it_is_the_champion_and_nobody_says_which(params: Path) -> None:
    assert not begins_from_champion({}, params)
    assert not begins_from_champion({"train.start": "a" * 16}, params)
    assert begins_from_champion(CHAMPION, params)
    assert not begins_from_champion({**CHAMPION, RELEASE: None}, params)


def test_the_champion_is_pinned_once_it_is_there_and_not_where_a_run_of_the_same_data_made_it(
    params: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**object_store.environment, "PYTHONPATH": str(REPOSITORY)}.items():
        monkeypatch.setenv(name, value)
    bucket, lines, folder = new_bucket(object_store), list[str](), params.parent
    monkeypatch.chdir(folder)
    chosen = {**CHAMPION, "publish.prefix": bucket.prefix}
    assert _started(chosen, folder) == {**chosen, RELEASE: None}
    assert _started({"train.start": "scratch"}, folder) == {"train.start": "scratch"}
    assert capsys.readouterr().out == "training starts from scratch: there is no champion yet\n"
    first = publish_to_begin_from(bucket, folder / "first")
    move_pointer(bucket, "champion", first, "2024-02-02T00:00:00+00:00", lambda _: "a test")
    assert ask_start(folder, lines.append) == first.id
    apply_overrides({RELEASE: first.id}, params)
    made = load_params(params).used()
    second = publish_to_begin_from(bucket, folder / "second", model=b"its successor", parameters=made)
    move_pointer(bucket, "champion", second, "2024-02-03T00:00:00+00:00", lambda _: "a test")
    assert ask_start(folder, lines.append) == first.id
    apply_overrides({"download.sha256": "0" * 64}, params)
    assert ask_start(folder, lines.append) == second.id
    assert lines[-1] == f"training starts from the champion {second.id}"
    assert not apply_overrides({RELEASE: first.id}, params), "the command says, and sets nothing"


def test_a_bucket_that_is_not_there_is_bad_input(
    params: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**object_store.environment, "PYTHONPATH": str(REPOSITORY)}.items():
        monkeypatch.setenv(name, value)
    apply_overrides({**CHAMPION, "publish.bucket": "no-such-bucket"}, params)
    with pytest.raises(StageError, match="bucket 'no-such-bucket' does not exist") as caught:
        ask_start(params.parent, lambda _: None)
    assert caught.value.is_final


def test_a_run_that_is_started_again_begins_where_it_began(tmp_path: Path) -> None:
    note_pin(tmp_path, "run", "d" * 64)
    assert begun_with(tmp_path, "run", STARTED) is None
    note_pin(tmp_path, "run", "", STARTED)
    assert begun_with(tmp_path, "run", STARTED) == "", "from scratch, which is not unknown"
    assert begun_with(tmp_path, "run") == "d" * 64
