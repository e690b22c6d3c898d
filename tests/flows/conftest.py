"""Fixtures of the flow's tests."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.dvc_project import make_project


@pytest.fixture(scope="module", autouse=True)
def no_events_of_prefects_are_left_behind() -> Iterator[None]:
    """End Prefect's thread of events with a file's tests.

    It would ask for its server for ever, after pauses that it draws from `random`, of which Keras takes the seeds of
    its initial weights: a training in the same process would then begin otherwise each time.
    """
    yield
    if "prefect.events.worker" in sys.modules:
        from prefect.events.worker import EventsWorker  # noqa: PLC0415  most of these tests start no flow

        EventsWorker.drain_all(timeout=10)


@pytest.fixture(scope="session")
def untouched_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small DVC project that no test writes to."""
    folder = tmp_path_factory.mktemp("dvc")
    return make_project(folder / "project", str(folder / "remote"))


@pytest.fixture
def project(untouched_project: Path, tmp_path: Path) -> Path:
    """Return a copy of the small DVC project that the test may do anything to."""
    return Path(shutil.copytree(untouched_project, tmp_path / "project"))
