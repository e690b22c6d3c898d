"""Fixtures of the flow's tests."""

import shutil
from pathlib import Path

import pytest

from tests.fixtures.dvc_project import make_project


@pytest.fixture(scope="session")
def untouched_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small DVC project that no test writes to."""
    folder = tmp_path_factory.mktemp("dvc")
    return make_project(folder / "project", str(folder / "remote"))


@pytest.fixture
def project(untouched_project: Path, tmp_path: Path) -> Path:
    """Return a copy of the small DVC project that the test may do anything to."""
    return Path(shutil.copytree(untouched_project, tmp_path / "project"))
