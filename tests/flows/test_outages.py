import time
from collections.abc import Callable

import pytest

from flows.command import OnLine
from flows.outages import Endurance, outlast
from flows.stages import StageError
from tasks.stage.errors import InputError

AWAY = StageError("publish", 69, ("publish: the store is away",))
QUICK = Endurance(wait_seconds=60, pause_seconds=0.05)


class Step:
    """A step that prints some lines and fails, a list for each try, before it succeeds."""

    def __init__(self, *tries: list[str], error: StageError = AWAY) -> None:
        self.tries, self.count, self.error = tries, 0, error

    def __call__(self, on_line: OnLine) -> int:
        self.count += 1
        if self.count > len(self.tries):
            return self.count
        for line in self.tries[self.count - 1]:
            on_line(line)
        raise self.error


def test_what_comes_back_is_waited_for_and_its_words_are_not_repeated() -> None:
    first = ["[  0.0%] uploading", "[ 50.0%] uploading", "broke off after 7 tries"]
    second = ["[  0.0%] uploading", "[ 50.0%] uploading", "broke off after 9 tries"]
    further = ["[ 50.0%] uploading", "[ 75.0%] uploading", "the other half is away"]
    lines: list[str] = []
    said: list[str] = []
    assert outlast(Step(first, second, further), lines.append, said.append, QUICK) == 4
    assert lines == [*first, "[ 75.0%] uploading", "the other half is away"]
    assert said
    assert all(line.endswith("more: publish: the store is away") for line in said)


def test_a_line_comes_each_pause_and_says_how_long_is_left() -> None:
    said: list[str] = []

    def slow(_: OnLine) -> None:
        time.sleep(0.5)
        raise AWAY

    begun = time.monotonic()
    with pytest.raises(StageError) as caught:
        outlast(slow, lambda _: None, said.append, Endurance(wait_seconds=1.2, pause_seconds=0.1))
    assert caught.value is AWAY
    assert time.monotonic() - begun >= 1.2
    assert len(said) >= 4  # not one a try: there were three
    assert said[0].split(": ")[0].startswith("waiting since ")


def test_an_outage_long_after_another_is_waited_for_anew() -> None:
    tries: list[Callable[[], None]] = [lambda: None, lambda: time.sleep(1.1), lambda: None]
    left = iter(tries)

    def attempt(_: OnLine) -> str:
        work = next(left, None)
        if work is None:
            return "done"
        work()
        raise AWAY

    assert outlast(attempt, lambda _: None, lambda _: None, Endurance(wait_seconds=1, pause_seconds=0.2)) == "done"


@pytest.mark.parametrize("status", [1, 2, 75, -9, None])
def test_what_is_no_outage_is_not_waited_for(status: int | None) -> None:
    step = Step([], error=StageError("publish", status, ()))
    said: list[str] = []
    with pytest.raises(StageError):
        outlast(step, lambda _: None, said.append, QUICK)
    assert (step.count, said) == (1, [])


def test_the_environment_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Endurance.from_environment() == Endurance(900, 60)
    monkeypatch.setenv("RETRAIN_OUTAGE_SECONDS", "7")
    monkeypatch.setenv("RETRAIN_OUTAGE_PAUSE_SECONDS", "0.5")
    assert Endurance.from_environment() == Endurance(7, 0.5)
    monkeypatch.setenv("RETRAIN_OUTAGE_SECONDS", "long")
    with pytest.raises(InputError, match="RETRAIN_OUTAGE_SECONDS is 'long', not a number of seconds"):
        Endurance.from_environment()
