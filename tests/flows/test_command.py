import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.command import CommandTimeoutError, Finished, Limits, run_lines
from infra.process_group import group_lives
from tests.fixtures.dvc_project import REPOSITORY

# A leader that starts a child, says so, and waits for it; the child outlives a leader that is killed alone.
FAMILY = [
    sys.executable,
    "-c",
    "import subprocess, sys; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "print('started', child.pid, flush=True); child.wait()",
]


def test_lines_come_while_the_command_runs(tmp_path: Path) -> None:
    script = "import sys, time; print('first'); sys.stderr.write('second\\n'); time.sleep(600)"
    seen: list[str] = []

    def on_line(line: str) -> None:
        seen.append(line)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_lines([sys.executable, "-c", script], tmp_path, on_line)
    assert sorted(seen) == ["first", "second"]


def test_status_and_last_lines_are_kept(tmp_path: Path) -> None:
    script = "print(*range(100), sep='\\n'); raise SystemExit(3)"
    finished = run_lines([sys.executable, "-c", script], tmp_path, lambda _: None)
    assert finished.status == 3
    assert finished.lines[-1] == "99"
    assert len(finished.lines) < 100


def test_own_python_comes_first_on_path(tmp_path: Path) -> None:
    seen: list[str] = []
    run_lines(["sh", "-c", "command -v python"], tmp_path, seen.append)
    assert seen == [str(Path(sys.executable).parent / "python")]


def test_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    groups: list[int] = []
    with pytest.raises(CommandTimeoutError, match="longer than 1 s"):
        run_lines(FAMILY, tmp_path, lambda _: None, Limits(1, 10), groups.append)
    assert not group_lives(groups[0])


def test_group_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    groups: list[int] = []
    with pytest.raises(CommandTimeoutError):
        run_lines([sys.executable, "-c", script], tmp_path, lambda _: None, Limits(1, 0.5), groups.append)
    assert not group_lives(groups[0])


def test_child_left_behind_with_the_output_open_is_stopped(tmp_path: Path) -> None:
    script = f"import subprocess; subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(600)'])"
    groups: list[int] = []
    finished = run_lines([sys.executable, "-c", script], tmp_path, lambda _: None, Limits(60, 0.5), groups.append)
    assert finished.status == 0
    assert not group_lives(groups[0])


# What trains: told to end, it takes a moment, says a lot and saves.
SAVES = [
    sys.executable,
    "-c",
    "import signal, sys, threading; "
    "told = threading.Event(); signal.signal(signal.SIGTERM, lambda *_: told.set()); "
    "print('started', flush=True)\n"
    "while not told.wait(0.01): print('.' * 4000, flush=True)\n"
    "for _ in range(100): print('.' * 4000, flush=True)\n"
    "open('saved', 'w').close()",
]
CALLER = """
import signal, sys
from pathlib import Path
from flows.command import run_lines
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
run_lines({command!r}, Path("."), print, on_start=lambda group: print("group", group, flush=True))
"""


def call(command: list[str], folder: Path) -> tuple["subprocess.Popen[str]", int]:
    """Have another process run a command; return that process and the command's group once it is at work."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", CALLER.format(command=command)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    group = int(process.stdout.readline().split()[1])
    assert process.stdout.readline().startswith("started")
    assert group_lives(group)
    return process, group


def test_sigterm_to_the_caller_leaves_no_orphan(tmp_path: Path) -> None:
    process, group = call(FAMILY, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert not group_lives(group)


@pytest.mark.parametrize("command", [FAMILY, SAVES])
def test_sigkill_of_the_caller_leaves_no_orphan_and_lets_it_save(tmp_path: Path, command: list[str]) -> None:
    process, group = call(command, tmp_path)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while group_lives(group):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (tmp_path / "saved").exists() == (command is SAVES)


def watches() -> list[int]:
    """Return the process ids of the leashes that this process holds."""
    shown = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    processes = (line.split(maxsplit=2) for line in shown.splitlines())
    return [int(pid) for pid, parent, name in processes if int(parent) == os.getpid() and "infra/leash.py" in name]


@pytest.mark.parametrize("killed", [False, True])
def test_an_ended_command_leaves_no_watch_and_a_watch_s_death_ends_nothing(tmp_path: Path, killed: bool) -> None:
    def on_line(_line: str) -> None:
        (watch,) = watches()
        if killed:
            os.kill(watch, signal.SIGKILL)

    finished = run_lines(["sh", "-c", "echo at work; exit 3"], tmp_path, on_line)
    assert finished == Finished(3, ("at work",))
    assert watches() == []
