"""An experiment goes to the git remote that may be written, and stays where it is otherwise, in one line."""

import shutil
from pathlib import Path

import pytest

from flows.lineage import save_experiment
from flows.share import push_experiment
from tests.fixtures.dvc_project import command, dvc
from tests.fixtures.git_host import GitHost

NAME = "keen-fox"


@pytest.fixture(scope="module")
def saved(untouched_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a saved experiment, to be copied."""
    folder = tmp_path_factory.mktemp("saved") / "project"
    shutil.copytree(untouched_project, folder)
    dvc(folder, "repro", "--quiet")
    assert save_experiment(NAME, folder, print)
    return folder


@pytest.fixture
def project(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "project"))


def push(project: Path) -> tuple[bool, str]:
    """Push the experiment and return whether it is there, and the one line."""
    lines: list[str] = []
    arrived = push_experiment(NAME, project, lines.append)
    (line,) = lines
    return arrived, line


def test_a_clone_of_the_remote_gets_it_with_dvc(project: Path, tmp_path: Path) -> None:
    command(tmp_path, "git", "clone", "--quiet", "--bare", str(project), "upstream.git")
    command(project, "git", "remote", "add", "origin", str(tmp_path / "upstream.git"))
    assert push(project) == (True, f"experiment {NAME} is in git remote origin: dvc exp pull origin {NAME}")
    assert push(project)[0]  # again, as a run that is started again does
    command(tmp_path, "git", "clone", "--quiet", "upstream.git", "laptop")
    dvc(tmp_path / "laptop", "exp", "pull", "--quiet", "--no-cache", "origin", NAME)
    assert NAME in dvc(tmp_path / "laptop", "exp", "list", "--name-only").split()


def test_no_remote_is_one_line(project: Path) -> None:
    assert push(project) == (False, f"experiment {NAME} stays in this repository, which has no git remote")


@pytest.mark.parametrize("case", ["read-only", "password", "away", "missing"])
def test_a_remote_that_does_not_take_it_is_one_line(
    project: Path, tmp_path: Path, git_host: GitHost, case: str
) -> None:
    git_host.password = "secret" if case == "password" else None
    port = git_host.server_address[1]
    address = {"away": "http://127.0.0.1:9/project", "missing": str(tmp_path / "nowhere.git")}
    reading = f"http://127.0.0.1:{port}/project"
    command(project, "git", "remote", "add", "origin", address.get(case, reading))
    arrived, line = push(project)
    assert not arrived
    assert line.startswith(f"experiment {NAME} stays in this repository; its git remote did not take it: ")
    assert "\n" not in line
