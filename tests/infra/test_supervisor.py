"""A server that dies or hangs is started again, and one that cannot start is tried less and less often."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.process import BackgroundProcess
from infra.local.supervisor import Watched
from tasks.stage.errors import InputError


class Sleeper:
    """A server that answers as long as its process is not stopped."""

    def __init__(self, folder: Path) -> None:
        self.process = BackgroundProcess("sleeper", folder)
        self.broken = False

    def is_running(self) -> bool:
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it died since it was seen to live
            return False
        return stat.rpartition(")")[2].split()[0] != "T"

    def start(self) -> None:
        if self.broken:
            raise InputError("no disk")
        self.process.start([sys.executable, "-c", "import time; time.sleep(600)"], os.environ, self.process.folder)

    def stop(self) -> None:
        self.process.stop()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Sleeper]:
    sleeper = Sleeper(tmp_path)
    sleeper.start()
    yield sleeper
    sleeper.stop()


def look_until(watched: Watched, words: str) -> list[str]:
    """Look again and again until a line has been said; return all lines."""
    lines: list[str] = []
    for _ in range(600):
        watched.look(lines.append)
        if any(words in line for line in lines):
            return lines
        time.sleep(0.05)
    raise AssertionError(f"{words!r} was not said, but {lines}")


def pid(sleeper: Sleeper) -> int:
    assert sleeper.process.pid is not None
    return sleeper.process.pid


def test_a_dead_server_is_started_again(sleeper: Sleeper) -> None:
    before = pid(sleeper)
    os.kill(before, signal.SIGKILL)
    lines = look_until(Watched("sleeper", sleeper, time.monotonic()), "runs again")
    assert lines[0] == "the sleeper is dead; it is started again"
    assert pid(sleeper) != before


def test_a_server_that_hangs_is_replaced(sleeper: Sleeper) -> None:
    before = pid(sleeper)
    os.kill(before, signal.SIGSTOP)
    watched = Watched("sleeper", sleeper, time.monotonic(), ask_every=0, patience=0.3)
    lines = look_until(watched, "runs again")
    assert "has not answered" in lines[0]
    assert pid(sleeper) != before


def test_a_server_that_cannot_start_is_tried_less_and_less_often(sleeper: Sleeper) -> None:
    sleeper.stop()
    sleeper.broken = True
    watched = Watched("sleeper", sleeper, time.monotonic())
    for failures in (1, 2, 3):
        watched.not_before = 0
        assert look_until(watched, "no disk")
        assert watched.failures == failures
        assert watched.not_before == watched.answered + 2 ** (failures - 1)
    again: list[str] = []
    watched.look(again.append)
    assert again == []


def test_what_needs_a_dead_server_waits_for_it(sleeper: Sleeper, tmp_path: Path) -> None:
    needed = Sleeper(tmp_path / "needed")
    sleeper.stop()
    watched = Watched("sleeper", sleeper, time.monotonic(), needs=Watched("needed", needed, time.monotonic()))
    lines: list[str] = []
    watched.look(lines.append)
    assert lines == []
    needed.start()
    try:
        assert look_until(watched, "runs again")
    finally:
        needed.stop()
