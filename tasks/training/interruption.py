"""Stopping a run from outside: after SIGTERM or Ctrl-C the launch in progress is finished, and the run is saved."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interruption:
    """Remembers the signal that asked the run to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def requested(self) -> bool:
        """Tell whether the run was asked to stop."""
        return self.signal is not None


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Give an Interruption that the first SIGTERM or SIGINT sets; a second one acts as it did before."""
    interruption = Interruption()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def remember(number: int, _frame: FrameType | None) -> None:
        interruption.signal = signal.Signals(number)
        signal.signal(number, before[signal.Signals(number)])

    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, remember)
    try:
        yield interruption
    finally:
        for number in caught:
            signal.signal(number, before[number])
