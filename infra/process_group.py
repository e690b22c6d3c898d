"""Stop a whole process group: SIGTERM, a wait, then SIGKILL. A child that outlives its parent would go on unseen."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

POLL_SECONDS = 0.05
PROCESS_FILES = Path("/proc")


def stop_group(leader: int, grace_seconds: float, child: subprocess.Popen[bytes] | None = None) -> None:
    """Stop every process of the group that `leader` founded; return when none lives.

    Args:
        leader: Process id of the group's founder. While any member lives, no other process can get this number.
        grace_seconds: How long after SIGTERM the members may tidy up before SIGKILL.
        child: The leader where it is this process's own child, so that it is reaped.
    """
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # macOS answers EPERM where only zombies are left
            os.killpg(leader, sign)
        deadline = time.monotonic() + grace_seconds
        while time.monotonic() < deadline:
            if child is not None:
                child.poll()
            if not group_lives(leader):
                return
            time.sleep(POLL_SECONDS)


def group_lives(leader: int) -> bool:
    """Return whether a process of the group runs; zombies, which only wait for their parent, do not count."""
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if not (PROCESS_FILES / "self/stat").exists():
        return True
    return any(group == leader and state not in "ZX" for state, group in map(_state_and_group, _process_ids()))


def _process_ids() -> list[int]:
    return [int(entry.name) for entry in PROCESS_FILES.iterdir() if entry.name.isdigit()]


def _state_and_group(pid: int) -> tuple[str, int]:
    """Return a process's state letter and group from /proc; `X`, dead, where it ended meanwhile."""
    try:
        # pid (name, which may hold spaces and brackets) state parent group …
        fields = (
            (PROCESS_FILES / f"{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0], int(fields[2])
