"""A signal that asks this process to end, remembered until it is heeded.

It is raised wherever the process happens to be, and a library there may swallow what is raised, as Prefect does in the
middle of a request. Whoever waits for long asks here, so that no Ctrl-C is lost.
"""

import signal

_received: list[int] = []
_heeded: list[int] = []

STATUS = 128  # to which a shell adds the signal's number


def forget() -> None:
    """Begin anew, as in another process."""
    _received.clear()
    _heeded.clear()


def end(number: int) -> None:
    """Raise what ends the process, and remember that it was asked to."""
    _received.append(number)
    _raise(number)


def end_if_asked() -> None:
    """Raise it again where what was raised did not come through."""
    if len(_received) > len(_heeded):
        _raise(_received[-1])


def heed() -> None:
    """Say that the end is under way: what tidies up is not to be ended in its turn."""
    _heeded[:] = _received


def first_received() -> int | None:
    """Return the signal that asked first, if any did."""
    return _received[0] if _received else None


def _raise(number: int) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(STATUS + number)
