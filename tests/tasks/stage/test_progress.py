import io

import pytest

from tasks.stage.progress import Progress, format_bytes, format_duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.4, "59s"), (192, "3m12s"), (7500, "2h05m")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(12, "12 B"), (170_052_171, "170.1 MB"), (2e12, "2.0 TB")])
def test_bytes_read_well(count: float, text: str) -> None:
    assert format_bytes(count) == text


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


def test_plain_lines_start_with_the_share_and_have_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    progress = Progress(800, "images", stream=stream)
    clock.now += 3
    progress.update(300, "epoch 4/10")
    progress.update(310, "too soon to be shown")
    progress.update(800, "epoch 10/10")
    first, last = stream.getvalue().splitlines()
    assert first == "[ 37.5%] epoch 4/10, 100 images/s, 5s left"
    assert last.startswith("[100.0%] epoch 10/10")


def test_a_time_left_is_not_made_of_the_first_instant() -> None:
    stream = io.StringIO()
    Progress(800, "images", stream=stream).update(1, "epoch 1/10")
    assert "left" not in stream.getvalue()


def test_a_terminal_line_is_rewritten() -> None:
    stream = Terminal()
    progress = Progress(1_000_000, "bytes", stream=stream)
    progress.update(500_000)
    progress.say("a line of its own")
    progress.update(1_000_000)
    progress.close()
    text = stream.getvalue()
    assert "500.0 kB of 1.0 MB" in text
    assert "\r\x1b[Ka line of its own\n" in text
    assert text.endswith("\n")
    assert text.count("\n") == 2


def test_resumed_work_does_not_count_towards_the_rate() -> None:
    progress = Progress(100, "images", done=90, stream=io.StringIO())
    progress.update(90)
    assert progress.rate == 0
