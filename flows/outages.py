"""Waiting for what is away: a step of the flow that an outage ends is tried again about every minute, for a while.

RETRAIN_OUTAGE_SECONDS says for how long (900), RETRAIN_OUTAGE_PAUSE_SECONDS how long between two tries (60).
"""

import math
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self, TypeVar

from flows.command import OnLine
from flows.failures import StepError
from flows.stages import parse_progress
from tasks.stage.errors import InputError
from tasks.stage.progress import format_duration

WAIT_VARIABLE, WAIT_SECONDS = "RETRAIN_OUTAGE_SECONDS", 900.0
PAUSE_VARIABLE, PAUSE_SECONDS = "RETRAIN_OUTAGE_PAUSE_SECONDS", 60.0
OUTAGES = 5  # of one step, each as long as may be: a bound on how long a step can go on

Result = TypeVar("Result")


@dataclass(frozen=True)
class Endurance:
    """For how long an outage is waited for, and how long between two tries; seconds."""

    wait_seconds: float = WAIT_SECONDS
    pause_seconds: float = PAUSE_SECONDS

    @classmethod
    def from_environment(cls) -> Self:
        """Return what the two variables say; raises InputError where one is no number of seconds."""
        return cls(_seconds(WAIT_VARIABLE, WAIT_SECONDS), _seconds(PAUSE_VARIABLE, PAUSE_SECONDS))


def outlast(
    attempt: Callable[[OnLine], Result], on_line: OnLine, say: OnLine, endurance: Endurance | None = None
) -> Result:
    """Return what `attempt` returns; while something that it needs is away, wait and try again.

    Args:
        attempt: The step. It gets what takes its lines, and raises a StepError that `is_outage` where it has to wait.
        on_line: Gets the step's lines, without those of a later try that only repeat an earlier one's.
        say: Gets a line when an outage begins, and one each pause as long as it lasts.
        endurance: If not given, that of the environment.

    Raises:
        StepError: It failed for another reason, or what was away did not come back.
    """
    endurance = endurance or Endurance.from_environment()
    lines, outage, count = _NewLines(on_line), None, 0
    try:
        while True:
            begun = time.monotonic()
            try:
                return attempt(lines)
            except StepError as error:
                if not error.is_outage:
                    raise
                now = time.monotonic()
                if outage is None or now - begun > endurance.wait_seconds:  # it had come back, and went again
                    count += 1
                    if outage is not None:
                        outage.end()
                    outage = _Outage(endurance, say)
                if count > OUTAGES or outage.seconds_left <= 0:
                    raise
                outage.go_on(error.reason)
                lines.hold_repeats(outage.rest)
            time.sleep(endurance.pause_seconds)
    finally:
        if outage is not None:
            outage.end()


class _Outage:
    """Something is away: says so at once and then every pause, unless the step has something new to say."""

    def __init__(self, endurance: Endurance, say: OnLine) -> None:
        self._endurance, self._say = endurance, say
        self._since, self._clock = time.monotonic(), datetime.now().astimezone()
        self._reason = ""
        self._resting, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._tell, name="outage", daemon=True)

    @property
    def seconds_left(self) -> float:
        """How long it is still waited for."""
        return self._since + self._endurance.wait_seconds - time.monotonic()

    def go_on(self, reason: str) -> None:
        """Say from now on that this is the reason."""
        self._reason = reason
        self._resting.clear()
        if not self._thread.is_alive():
            self._thread.start()

    def rest(self) -> None:
        """Say nothing for now: a try gets further than those before."""
        self._resting.set()

    def end(self) -> None:
        """Say nothing any more."""
        self._ended.set()

    def _tell(self) -> None:
        while True:
            if not self._resting.is_set():
                left = format_duration(max(0.0, self.seconds_left))
                self._say(f"waiting since {self._clock:%H:%M:%S}, for {left} more: {self._reason}")
            if self._ended.wait(self._endurance.pause_seconds):
                return


class _NewLines:
    """Hands on lines; from `hold_repeats` on only what was not said before, but for its numbers, or a greater share."""

    def __init__(self, on_line: OnLine) -> None:
        self._on_line = on_line
        self._said: dict[str, float] = {}
        self._on_new: Callable[[], None] | None = None

    def hold_repeats(self, on_new: Callable[[], None]) -> None:
        """Hold repeats back from now on, and call `on_new` with the first line that is none."""
        self._on_new = on_new

    def __call__(self, line: str) -> None:
        share, text = parse_progress(line) or (float("inf"), line)
        key = re.sub(r"\d+", "#", text)
        is_new = share > self._said.get(key, -1.0)
        if is_new:
            self._said[key] = share
        if is_new and self._on_new is not None:
            self._on_new()
        if is_new or self._on_new is None:
            self._on_line(line)


def _seconds(variable: str, default: float) -> float:
    given = os.environ.get(variable) or default
    try:
        seconds = float(given)
    except ValueError as error:
        raise InputError(f"{variable} is {given!r}, not a number of seconds") from error
    if not 0 <= seconds < math.inf:
        raise InputError(f"{variable} is {given!r}: it must be a number of seconds, 0 or more, and not endless")
    return seconds
