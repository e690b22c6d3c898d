"""Where a release comes from is read from git, dvc.lock and the installed libraries."""

import subprocess
from pathlib import Path

import numpy as np

from tasks.registry.lineage import dvc_lock, environment_versions, git_state


def _git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_and_whether_the_tree_is_dirty(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    _git(tmp_path, "init")
    assert git_state(tmp_path) is None
    (tmp_path / "file").write_text("1")
    _git(tmp_path, "add", "file")
    _git(tmp_path, "commit", "-m", "first")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_a_file_that_is_not_committed_makes_it_dirty(tmp_path: Path) -> None:
    _git(tmp_path, "init")
    _git(tmp_path, "commit", "--allow-empty", "-m", "first")
    (tmp_path / "new").write_text("1")
    state = git_state(tmp_path)
    assert state is not None
    assert state["dirty"]


def test_what_is_recorded_itself_does_not_make_it_dirty(tmp_path: Path) -> None:
    _git(tmp_path, "init")
    (tmp_path / "params.yaml").write_text("train: {seed: 0}")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-m", "first")
    (tmp_path / "params.yaml").write_text("train: {seed: 1}")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'")
    state = git_state(tmp_path)
    assert state is not None
    assert not state["dirty"]


def test_the_lock_without_the_stages_own_entry(tmp_path: Path) -> None:
    assert dvc_lock(tmp_path, without="publish") is None
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  train: {cmd: a}\n  publish: {cmd: b}\n")
    assert dvc_lock(tmp_path, without="publish") == {"schema": "2.0", "stages": {"train": {"cmd": "a"}}}


def test_versions_are_those_installed() -> None:
    versions = environment_versions()
    assert versions["numpy"] == np.__version__
    assert versions["python"].count(".") == 2
