"""Background processes that outlive the command that started them and are never mistaken for somebody else's.

A number alone does not name a process: after a crash or a reboot it may be anybody's. So the record beside the log also
holds when the process started, and only a process that matches both is ever signalled.
"""

import contextlib
import fcntl
import itertools
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from infra.process_group import birth_of, stop_group
from tasks.stage.files import read_json, write_json

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 15.0
# Below the ports that systems hand to outgoing connections, so that a stopped server finds its own free again.
PORT_RANGE = range(20_000, 32_000)
LOG_BYTES = 10_000_000
LOG_COPIES = 3


class BackgroundProcess:
    """One process in its own session, with `<name>.log` and `<name>.json` (who it is) in `folder`.

    Args:
        name: What the process is called in file names.
        folder: Made on the first start.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder.absolute()
        self.log = self.folder / f"{name}.log"
        self._record = self.folder / f"{name}.json"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Id of the recorded process while it lives, else None."""
        if self._child is not None:
            self._child.poll()  # a dead child stays in the process table until it is waited for
        if not self._record.exists():
            return None
        record = read_json(self._record)
        return int(record["pid"]) if birth_of(int(record["pid"])) == record["birth"] else None

    def lives(self) -> bool:
        """Return whether the recorded process lives."""
        return self.pid is not None

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], working_folder: Path, umask: int = -1
    ) -> None:
        """Start the command in a session of its own, out of reach of the terminal's Ctrl-C; its output goes to the log.

        Nothing is started where the recorded process still lives. `umask` is the process's own, or ours where negative.
        """
        if self.pid is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=working_folder,
                env=dict(environment),
                start_new_session=True,
                umask=umask,
            )
        write_json(self._record, {"pid": self._child.pid, "birth": birth_of(self._child.pid)})

    def stop(self, grace_seconds: float = STOP_SECONDS) -> bool:
        """Stop the process and all that it started: SIGTERM, a wait, SIGKILL. Return whether it was running."""
        pid = self.pid
        if pid is not None:
            stop_group(pid, grace_seconds, self._child)
        self._record.unlink(missing_ok=True)
        return pid is not None

    def rotate_log(self, limit: int = LOG_BYTES) -> bool:
        """Put a log that has grown too long aside as `<name>.log.1`, and return whether that was due.

        The process goes on writing to the same file, which is emptied: it appends, so no hole is left.
        """
        if not self.log.exists() or self.log.stat().st_size < limit:
            return False
        for number in range(LOG_COPIES, 0, -1):
            older = self.log.with_name(f"{self.log.name}.{number}")
            newer = self.log.with_name(f"{self.log.name}.{number - 1}") if number > 1 else None
            if newer is None:
                shutil.copyfile(self.log, older)
            elif newer.exists():
                newer.replace(older)
        os.truncate(self.log, 0)
        return True

    def last_words(self, count: int = 3) -> str:
        """Return the last lines of the log on one line, for an error's sentence."""
        if not self.log.exists():
            return "nothing"
        lines = [line.strip() for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        return " / ".join([line for line in lines if line][-count:]) or "nothing"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time hold the lock file; the others wait. The kernel frees it if its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on, in no particular order."""
    candidates = random.sample(PORT_RANGE, len(PORT_RANGE))
    return list(itertools.islice((port for port in candidates if is_free(port)), count))


def is_free(port: int) -> bool:
    """Return whether a server could listen on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(*preferred: int) -> int:
    """Return the first preferred port that is free, or any free one."""
    for port in preferred:
        if is_free(port):
            return port
    return free_ports(1)[0]
