"""Progress of long work: one line rewritten on a terminal, plain lines elsewhere, always with rate and time left.

A plain line starts with the share done, as in `[ 37.5%] epoch 4/10 …`; flows/stages.py reads that share.
"""

import sys
import time
from typing import TextIO

TERMINAL_INTERVAL = 0.2
PLAIN_INTERVAL = 5.0
SETTLED_SECONDS = 1.0  # before that the rate is noise, and so is any time left that is made of it


def format_duration(seconds: float) -> str:
    """Return seconds as `42s`, `3m12s` or `2h05m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_bytes(count: float) -> str:
    """Return a count of bytes in decimal units, as `170.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Progress:
    """Shows how far `total` units of work have come, at most a few times a second.

    Args:
        total: Units of work in all; 0 where it is unknown.
        unit: `bytes` is shown in MB; anything else as given, as in `images`.
        done: Units already done before this process started; they do not count towards the rate.
        stream: Where to show it, standard output if not given.
    """

    def __init__(self, total: int, unit: str, *, done: int = 0, stream: TextIO | None = None) -> None:
        self.total, self.unit, self.done = total, unit, done
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._interval = TERMINAL_INTERVAL if self._terminal else PLAIN_INTERVAL
        self._start = time.monotonic()
        self._first_done = done
        self._shown = -float("inf")

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self._first_done) / max(time.monotonic() - self._start, 1e-9)

    def update(self, done: int, text: str = "") -> None:
        """Set the units done in all and show them if it is time to, or if the work is complete."""
        self.done = done
        now = time.monotonic()
        if now - self._shown >= self._interval or done == self.total:
            self._shown = now
            self._show(text)

    def line(self, text: str = "") -> str:
        """Return the line as it would be shown now."""
        share = f"[{100 * self.done / self.total:5.1f}%] " if self.total else ""
        if self.unit == "bytes":
            amount = f"{format_bytes(self.done)}{f' of {format_bytes(self.total)}' if self.total else ''}"
            rate = f"{format_bytes(self.rate)}/s"
        else:
            amount, rate = "", f"{self.rate:,.0f} {self.unit}/s"
        parts = [text, amount, rate]
        settled = time.monotonic() - self._start > SETTLED_SECONDS
        if self.total and settled and self.rate > 0 and self.done < self.total:
            parts.append(f"{format_duration((self.total - self.done) / self.rate)} left")
        return share + ", ".join(part for part in parts if part)

    def say(self, text: str) -> None:
        """Print a line of its own, above the rewritten one on a terminal."""
        clear = "\r\x1b[K" if self._terminal else ""
        print(f"{clear}{text}", file=self._stream, flush=True)

    def close(self) -> None:
        """End the rewritten line on a terminal."""
        if self._terminal and self._shown > -float("inf"):
            print(file=self._stream, flush=True)

    def _show(self, text: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K{self.line(text)}", end="", file=self._stream, flush=True)
        else:
            print(self.line(text), file=self._stream, flush=True)
