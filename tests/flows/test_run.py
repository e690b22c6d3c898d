import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.command import run_lines
from flows.run import ended_by_signals
from tests.fixtures.dvc_project import REPOSITORY


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train.recipy=seed"], "params.yaml: train.recipy = 'seed': no such parameter"),
        (["train.recipe"], "run: 'train.recipe' is not of the form KEY=VALUE"),
        (["split.validation_fraction=0"], "split.validation_fraction = 0"),
    ],
)
def test_bad_setting_is_one_sentence_before_anything_starts(tmp_path: Path, words: list[str], sentence: str) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    before = (tmp_path / "params.yaml").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "flows.run", "--set", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml"]
    assert (tmp_path / "params.yaml").read_bytes() == before


def run_outside_git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Start a run as `make run` does, in a folder above which there is no repository either."""
    shutil.copy(REPOSITORY / "params.yaml", folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GIT_"))}
    return subprocess.run(
        [sys.executable, "-m", "flows.run", "--set", "download.dataset=digits", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_unpacked_archive_is_one_sentence_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    shutil.copy(REPOSITORY / ".dvc/config", tmp_path / ".dvc")
    done = run_outside_git(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"run: {tmp_path} is in no git repository, ")
    assert "git init" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / ".local").exists()


def test_a_folder_without_dvc_is_one_sentence_before_anything_starts(tmp_path: Path) -> None:
    done = run_outside_git(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"run: {tmp_path} is not a DVC project: it has no folder .dvc\n"
    assert not (tmp_path / ".local").exists()


def test_a_profile_that_cannot_be_used_is_said_before_anything_starts(project: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.run", "--set", "download.dataset=digits"],
        cwd=project,
        env=environment | {"PYTHONPATH": str(REPOSITORY), "AWS_PROFILE": "work", "HOME": str(project.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("run: AWS_PROFILE=work cannot be used: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (project / ".local").exists()


# The port that is chosen first is taken, as by another server that starts at the same time.
SERVER_ON_ANOTHER_PORT = """
import socket
from infra.local import prefect_server
from infra.local.process import free_port
with socket.create_server(("127.0.0.1", 0)) as taken:
    ports = iter([taken.getsockname()[1], free_port()])
    prefect_server.free_port = lambda *_: next(ports)
    from flows.run import _start_prefect
    _start_prefect()
from prefect import flow
from prefect.settings import get_current_settings
flow(lambda: None, name="nothing")()
print(get_current_settings().api.url == prefect_server.PrefectServer().environment["PREFECT_API_URL"])
"""


@pytest.mark.long  # tests/infra/test_local.py gives up a port that another server has
def test_a_server_that_had_to_take_another_port_is_found(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", SERVER_ON_ANOTHER_PORT],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True"


@pytest.fixture
def usual_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_library_makes_an_error_of_still_ends_the_run(number: int) -> None:
    with pytest.raises(SystemExit) as ended, ended_by_signals():
        try:
            signal.raise_signal(number)
        except BaseException as error:
            raise ValueError("a library's own error") from error
    assert ended.value.code == 128 + number


@pytest.mark.usefixtures("usual_handlers")
def test_a_signal_that_a_library_swallows_still_ends_the_run_and_its_command(tmp_path: Path) -> None:
    def swallow(_line: str) -> None:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)

    started: list[int] = []
    command = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
    with pytest.raises(KeyboardInterrupt), ended_by_signals():
        run_lines(command, tmp_path, swallow, on_start=started.append)
    assert not psutil.pid_exists(started[0])


@pytest.mark.usefixtures("usual_handlers")
def test_an_error_without_a_signal_is_itself() -> None:
    with pytest.raises(ValueError, match="own"), ended_by_signals():
        raise ValueError("its own")
