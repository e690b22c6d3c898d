"""Name a process for certain, and stop a whole process group: a child that outlives its parent would go on unseen."""

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
            os.killpg(leader, signal.SIGCONT)  # one that was stopped would never see the signal
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
    return any(group == leader and state not in "ZX" for state, group in map(_state_and_group, process_ids()))


def birth_of(pid: int) -> str | None:
    """Return what tells a process from every other that had or will have its number; None where it is dead."""
    if (PROCESS_FILES / "self/stat").exists():
        fields = _fields(pid)
        boot = (PROCESS_FILES / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"  # field 22 of stat(5): clock ticks since boot
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None


def command_of(pid: int) -> str:
    """Return a process's command line; empty where it is dead."""
    if (PROCESS_FILES / "self/cmdline").exists():
        try:
            return (PROCESS_FILES / f"{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            return ""
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()


def folder_of(pid: int) -> Path | None:
    """Return a process's working folder; None where it is dead, somebody else's, or there is no /proc."""
    try:
        return (PROCESS_FILES / f"{pid}/cwd").resolve(strict=True)
    except OSError:
        return None


def process_ids() -> list[int]:
    """Return the number of every process; none where there is no /proc."""
    return [int(entry.name) for entry in PROCESS_FILES.glob("[0-9]*")]


def parent_of(pid: int) -> int:
    """Return the number of a process's parent; 0 where the process is dead."""
    return int(_fields(pid)[1])


def is_dead(pid: int) -> bool:
    """Return whether a process has ended, though its parent may not have noticed."""
    return _fields(pid)[0] in "ZX"


def _state_and_group(pid: int) -> tuple[str, int]:
    state, _, group, *_ = _fields(pid)
    return state, int(group)


def _fields(pid: int) -> list[str]:
    """Return /proc/PID/stat from its third field on: state, parent, group, …; state `X`, dead, where it ended."""
    try:
        stat = (PROCESS_FILES / f"{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0", "0"]
    return stat.rpartition(")")[2].split()  # the second field, the name, may hold spaces and brackets
