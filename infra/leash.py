"""A leash on a process group: the group ends when the process that holds it dies, however it dies.

`python -I -S infra/leash.py OUTPUT GRACE_SECONDS`, started as a file and importing little, watches over the group. Its
standard input is the leash: the holder writes the group's number, and later that the group has ended. Where the holder
is gone before that, the group is stopped: SIGTERM, so that training saves, and SIGKILL after the grace.

The watch has the group's output open too, and reads it once the holder does not: a stage that prints meanwhile would
die of a broken pipe before it has saved.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

READ_BYTES = 1 << 16


class Leash:
    """The holder's end, taken before the group starts.

    Args:
        output: The reading end of the pipe that the group writes to.
        grace_seconds: How long the group may tidy up between SIGTERM and SIGKILL.
    """

    def __init__(self, output: int, grace_seconds: float) -> None:
        self._watch = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(output), str(grace_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[output],
            start_new_session=True,  # whatever stops the holder's group must not stop the watch
        )

    def tie(self, group: int) -> None:
        """Tie a process group; from now on it does not outlive this process."""
        self._tell(f"{group}\n")

    def let_go(self) -> None:
        """End the watch: the group has ended."""
        with contextlib.suppress(BrokenPipeError):  # the watch was killed
            self._tell("ended\n")
        self._watch.communicate()

    def _tell(self, line: str) -> None:
        assert self._watch.stdin is not None  # noqa: S101 - a pipe was asked for
        self._watch.stdin.write(line.encode())
        self._watch.stdin.flush()


def keep_watch(output: int, grace_seconds: float) -> None:
    """Wait for the end of standard input, and stop the group named there unless it has ended."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends the group has it end anyway; the leash goes last
    group, ended = sys.stdin.readline(), sys.stdin.readline()
    if not group.strip().isdigit() or ended:
        return
    threading.Thread(target=_drain, args=(output,), daemon=True).start()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from infra.process_group import stop_group  # noqa: PLC0415 - only where it is needed: the watch starts at once

    stop_group(int(group), grace_seconds)


def _drain(output: int) -> None:
    while os.read(output, READ_BYTES):
        pass


if __name__ == "__main__":
    keep_watch(int(sys.argv[1]), float(sys.argv[2]))
