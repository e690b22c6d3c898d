"""Run a command in a process group of its own and hand on its lines as they come; leave nothing of it behind."""

import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows import stop_signal
from infra.leash import Leash
from infra.prefect_proxies import given_back
from infra.process_group import stop_group

KEPT_LINES = 40
GRACE_SECONDS = 60.0
POLL_SECONDS = 0.2

OnLine = Callable[[str], None]


class CommandTimeoutError(Exception):
    """A command was stopped because it took longer than it may."""


@dataclass(frozen=True)
class Limits:
    """How long a command may take, and how long it may tidy up between SIGTERM and SIGKILL; seconds."""

    timeout_seconds: float = float("inf")
    grace_seconds: float = GRACE_SECONDS


@dataclass(frozen=True)
class Finished:
    """How a command ended: its exit status (negative: the signal that killed it) and its last lines."""

    status: int
    lines: tuple[str, ...]


def run_lines(
    command: Sequence[str],
    folder: Path,
    on_line: OnLine,
    limits: Limits | None = None,
    on_start: Callable[[int], None] | None = None,
) -> Finished:
    """Run a command; call `on_line` with each line of its standard output and error, merged, as it comes.

    Whatever ends the wait (the time limit, an interrupt, a cancellation that Prefect raises here) also ends the whole
    process group, so that no grandchild goes on training unseen. So does whatever ends this process, SIGKILL included.

    Args:
        command: The program and its arguments.
        folder: Working folder.
        on_line: Called in this thread, without the line's end.
        limits: No time limit and one minute of grace where not given.
        on_start: Called once with the group's number.

    Raises:
        CommandTimeoutError: The time limit passed; the group is gone.
    """
    limits = limits or Limits()
    reading, writing = os.pipe()
    try:
        leash = Leash(reading, limits.grace_seconds)
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=command_environment(),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        leash.tie(process.pid)
        if on_start is not None:
            on_start(process.pid)
        return _follow(process, reading, on_line, limits)
    except BaseException:
        stop_signal.heed()
        stop_group(process.pid, limits.grace_seconds, process)
        raise
    finally:
        leash.let_go()


def command_environment() -> dict[str, str]:
    """Return this process's environment with its own Python first on PATH and lines that come when they are printed.

    The person's proxies are in it, also those that Prefect cannot use.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return given_back(os.environ) | {"PATH": path, "PYTHONUNBUFFERED": "1"}


def _follow(process: subprocess.Popen[bytes], output: int, on_line: OnLine, limits: Limits) -> Finished:
    """Hand on lines until the process has ended and nobody holds its output any more."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(output, lines), daemon=True).start()
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    start, ended = time.monotonic(), None
    while True:
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            line = ""
        else:
            if line is None:
                return Finished(process.wait(), tuple(kept))
            kept.append(line)
            on_line(line)
        stop_signal.end_if_asked()
        now = time.monotonic()
        if now - start > limits.timeout_seconds:
            raise CommandTimeoutError(f"took longer than {limits.timeout_seconds:g} s and was stopped")
        if process.poll() is not None:
            ended = ended or now
            if now - ended > limits.grace_seconds:  # it left a child that keeps the output open
                stop_group(process.pid, limits.grace_seconds, process)
                return Finished(process.returncode, tuple(kept))


def _read(output: int, lines: "queue.SimpleQueue[str | None]") -> None:
    """Put each line into the queue, then None; close the output."""
    with os.fdopen(output, "rb") as stream:
        for line in stream:
            lines.put(line.decode(errors="replace").rstrip("\r\n"))
    lines.put(None)
