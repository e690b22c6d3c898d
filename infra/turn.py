"""One process at a time, the others wait; what a killed one left running is stopped before the next begins."""

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from infra.process_group import birth_of, stop_group

POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0


@contextlib.contextmanager
def turn(path: Path, seconds: float, on_wait: Callable[[], None]) -> Iterator[Callable[[int], None]]:
    """Hold a lock file; the kernel lets go of it when this process ends, however it ends.

    Yields a function that notes the process group at work, by which the next holder finds it where it was left alive.

    Args:
        path: The file, made where it is not; it stays.
        seconds: How long the holder is waited for.
        on_wait: Called once where there is one.

    Raises:
        TimeoutError: It was not free in time.
    """
    deadline = time.monotonic() + seconds
    with path.open("a+", encoding="utf-8") as stream:
        if not locked(stream):
            on_wait()
            while not locked(stream):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has held {path} for {seconds:g} s")
                time.sleep(POLL_SECONDS)
        record = _read(stream)
        if "group" in record and birth_of(record["group"]) == record["birth"]:
            stop_group(record["group"], GRACE_SECONDS)
        yield lambda group: _write(stream, {"group": group, "birth": birth_of(group)})


def locked(stream: IO[str]) -> bool:
    """Take the lock of an open file unless another process has it; return whether it is ours."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(stream: IO[str]) -> dict[str, Any]:
    """Return the last holder's note; nothing where it was cut off in the middle of it."""
    stream.seek(0)
    with contextlib.suppress(json.JSONDecodeError):
        return dict(json.loads(stream.read() or "{}"))
    return {}


def _write(stream: IO[str], record: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a full disk; the note is for what may go wrong later
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(record))
        stream.flush()
