import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.stages import StageError, run_stage
from flows.workspace import LOCK_FILE, check_git, exclusive_workspace
from infra.process_group import birth_of, command_of, group_lives, stop_group
from tasks.stage.errors import InputError, OutageError
from tests.fixtures.dvc_project import MAKE, REPOSITORY

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from flows.workspace import exclusive_workspace
with exclusive_workspace(Path(".")) as note_group:
    stage = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    note_group(stage.pid)
    print(stage.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def hold(workspace: Path) -> tuple[subprocess.Popen[str], int]:
    """Start another process that holds the workspace and runs a stage; return it and the stage's group."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", HOLDER]
    process = subprocess.Popen(command, cwd=workspace, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_second_run_is_refused_at_once_and_the_next_one_stops_the_orphan(workspace: Path) -> None:
    process, group = hold(workspace)
    try:
        with pytest.raises(InputError, match=f"process {process.pid}"), exclusive_workspace(workspace):
            pytest.fail("two runs in one workspace")
        assert group_lives(group)
    finally:
        process.kill()
        process.wait()
    assert group_lives(group)  # the killed run could not stop its stage
    with exclusive_workspace(workspace):
        assert not group_lives(group)


def test_a_run_that_ends_is_waited_for(workspace: Path) -> None:
    process, _ = hold(workspace)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        process.kill()

    with exclusive_workspace(workspace, 60, say):
        process.wait()
    assert said == [
        f"another run (process {process.pid}) is at work in {workspace}; "
        "waiting for 1m00s at most until it has tidied up"
    ]


def test_a_run_that_does_not_end_may_do_so_later(workspace: Path) -> None:
    process, _ = hold(workspace)
    try:
        with pytest.raises(OutageError, match="is at work"), exclusive_workspace(workspace, 0.1, lambda _: None):
            pytest.fail("two runs in one workspace")
    finally:
        process.kill()
        process.wait()
    with exclusive_workspace(workspace):
        pass  # which stops its orphan


def test_what_a_killed_dvc_left_locked_is_unlocked(project: Path) -> None:
    (project / "make.py").write_text("import os\nos.kill(int(os.environ['DVC_PROCESS']), 9)")
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("cmd: python make.py", "cmd: DVC_PROCESS=$PPID python make.py"))
    with pytest.raises(StageError):
        run_stage("make", project, lambda _: None)
    locks = project / ".dvc/tmp/rwlock"
    notes = locks.read_text()
    number = re.search(r'"pid": (\d+)', notes)
    assert number is not None
    (project / "dvc.yaml").write_text(text)
    (project / "make.py").write_text(MAKE)
    for left_behind in (notes.replace(number[1], str(os.getpid())), notes[: len(notes) // 2]):  # a number used anew
        locks.write_text(left_behind)
        with pytest.raises(StageError):
            run_stage("make", project, lambda _: None)
        with exclusive_workspace(project):
            run_stage("make", project, lambda _: None)


def test_a_dvc_at_work_keeps_its_lock(project: Path) -> None:
    (project / "make.py").write_text("import time\nprint('slow', flush=True)\ntime.sleep(600)")
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "make"], cwd=project, stdout=subprocess.PIPE, start_new_session=True
    ) as dvc:
        assert dvc.stdout is not None
        assert any(b"slow" in line for line in dvc.stdout)
        with exclusive_workspace(project):
            assert (project / ".dvc/tmp/rwlock").exists()
        stop_group(dvc.pid, 10, dvc)


SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@contextlib.contextmanager
def sleeper(folder: Path, *words: str) -> Iterator[int]:
    """Give the number of a process in that folder whose command line ends with these words."""
    with subprocess.Popen([*SLEEP, *words], cwd=folder) as process:
        try:
            while not command_of(process.pid).endswith(words[-1]):  # the system shows it a moment after its start
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("locks", [".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock"])
@pytest.mark.parametrize(
    ("folder", "words"),
    [
        (".", ["another program"]),
        (".", ["--file", ".dvc/config"]),
        (".", ["-m", "dvc", "repro", "other"]),
        ("..", ["-m", "dvc", "repro", "--single-item", "make"]),  # of another workspace
    ],
)
def test_a_number_that_belongs_to_another_process_by_now_locks_nothing(
    workspace: Path, locks: str, folder: str, words: list[str]
) -> None:
    (workspace / locks).parent.mkdir(parents=True)
    with sleeper(workspace / folder, *words) as stranger:
        note = {"pid": stranger, "cmd": "/venv/bin/dvc repro --single-item make"}
        (workspace / locks).write_text(json.dumps({"write": {"/made": note}, "read": {"/make.py": [note]}}))
        with exclusive_workspace(workspace):
            assert not (workspace / locks).exists()
            assert birth_of(stranger) is not None


@pytest.mark.parametrize("program", ["dvc", "/a venv/bin/dvc", "/a venv/lib/python3.11/site-packages/dvc/__main__.py"])
def test_of_several_notes_that_of_a_living_dvc_stays(workspace: Path, program: str) -> None:
    (workspace / ".dvc/tmp").mkdir()
    with sleeper(workspace, "-m", "dvc", "repro", "make") as living:
        note, stale = ({"pid": pid, "cmd": f"{program} repro make"} for pid in (living, os.getpid()))
        notes = {"write": {"/made": note, "/other": stale}, "read": {"/a": [stale, note], "/b": [stale]}}
        (workspace / ".dvc/tmp/rwlock").write_text(json.dumps(notes))
        with exclusive_workspace(workspace):
            kept = json.loads((workspace / ".dvc/tmp/rwlock").read_text())
        assert kept == {"write": {"/made": note}, "read": {"/a": [note]}}


def test_stale_note_stops_nobody(workspace: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as stranger:
        path = workspace / LOCK_FILE
        path.parent.mkdir(parents=True)
        path.write_text(f'{{"run": 1, "group": {stranger.pid}, "birth": "another process that had this number"}}')
        with exclusive_workspace(workspace):
            assert birth_of(stranger.pid) is not None
        stranger.kill()


@pytest.mark.parametrize("text", ["", "{", '{"run": 1}'])
def test_note_that_was_cut_off_is_no_obstacle(workspace: Path, text: str) -> None:
    (workspace / LOCK_FILE).parent.mkdir(parents=True)
    (workspace / LOCK_FILE).write_text(text)
    with exclusive_workspace(workspace):
        pass


def test_workspace_is_free_again_after_a_failure(workspace: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive_workspace(workspace):
        _ = 1 / 0
    with exclusive_workspace(workspace):
        pass


def test_folder_without_dvc_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a DVC project"), exclusive_workspace(tmp_path):
        pass


def test_a_project_that_is_set_to_do_without_git_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(InputError, match="in no git repository"):
        check_git(tmp_path)
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    check_git(tmp_path)


def test_a_folder_of_a_repository_is_taken(project: Path) -> None:
    (project / "below").mkdir()
    check_git(project / "below")
    check_git(project)
