"""Run a command as a container's first process does: pass signals on, and leave only when nothing of it is at work."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import FrameType

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2): orphans among the descendants become this process's children
ORPHAN_SECONDS = 120.0  # a stage saves its checkpoint in less
POLL_SECONDS = 0.1


def run_with_descendants(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command; return its exit status as a shell would, once its orphans have ended too.

    SIGTERM and SIGINT go to the command. A container ends with its first process: a stage that is still saving after
    its flow run has left would be killed then, so it is waited for, ORPHAN_SECONDS at most.
    """
    signals: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, remember)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None:
        while signals:
            process.send_signal(signals.pop(0))
        time.sleep(POLL_SECONDS)
    wait_for_orphans(ORPHAN_SECONDS)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def wait_for_orphans(seconds: float) -> bool:
    """Reap every child of this process; return whether none is left within so many seconds."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(POLL_SECONDS)
        return False
    return True
