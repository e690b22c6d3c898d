"""Stopping a run from outside: after SIGTERM or Ctrl-C the launch in progress is finished, and the run is saved."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interruption:
    """Remembers the signal that asked the run to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self._before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

    def requested(self) -> bool:
        """Tell whether the run was asked to stop."""
        return self.signal is not None

    def listen(self) -> None:
        """Remember the next signal; one after it acts as it did before."""
        for number in self._before:
            signal.signal(number, self._remember)

    def restore(self) -> None:
        """Let signals act as they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, self._before[self.signal])


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Give an Interruption that the first SIGTERM or SIGINT sets; a second one acts as it did before."""
    interruption = Interruption()
    interruption.listen()
    try:
        yield interruption
    finally:
        interruption.restore()
