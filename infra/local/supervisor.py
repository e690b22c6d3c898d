"""Start again whatever dies or hangs of this machine's servers, for as long as `make up` holds.

The supervisor is a process of its own, started last and stopped first. It writes one line an event to its log.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infra.local.process import BackgroundProcess, locked
from infra.restart import say_with_time
from tasks.stage.errors import InputError

LOOK_SECONDS = 1.0
ASK_SECONDS = 15.0  # between two questions whether a living process also answers
HANG_SECONDS = 60.0
MAX_PAUSE = 60.0


class Server(Protocol):
    """What is watched: an object store, a Prefect server, a worker."""

    process: BackgroundProcess

    def is_running(self) -> bool:
        """Return whether it lives and answers."""

    def start(self) -> object:
        """Start it where it does not run."""

    def stop(self) -> object:
        """Stop it."""


@dataclass
class Watched:
    """A server and what was seen of it; all times are of the monotonic clock, in seconds.

    Args:
        name: For the log.
        server: What is watched.
        answered: When it last answered.
        needs: What must live before it can be started.
        ask_every: Between two questions whether it also answers.
        patience: How long it may live without answering.
        asked: When it was last asked.
        failures: How often it was started in a row without answering in the end.
        not_before: When it may be started again.
    """

    name: str
    server: Server
    answered: float
    needs: "Watched | None" = None
    ask_every: float = ASK_SECONDS
    patience: float = HANG_SECONDS
    asked: float = 0.0
    failures: int = 0
    not_before: float = 0.0

    def look(self, say: Callable[[str], None]) -> None:
        """Look at the server once; start it again where it is dead, stop it where it has not answered for a while."""
        now = time.monotonic()
        if not self.server.process.lives():
            if now >= self.not_before and not (self.needs and not self.needs.server.process.lives()):
                self._start(say)
        elif now - self.asked > self.ask_every:
            self.asked = now
            if self.server.is_running():
                self.answered, self.failures = now, 0
            elif now - self.answered > self.patience:
                say(f"the {self.name} has not answered for {now - self.answered:.0f} s: it is stopped")
                self.server.stop()

    def _start(self, say: Callable[[str], None]) -> None:
        say(f"the {self.name} is dead; it is started again")
        began = time.monotonic()
        try:
            self.server.start()
            say(f"the {self.name} runs again, after {time.monotonic() - began:.1f} s")
        except InputError as error:
            say(str(error))
        self.answered = self.asked = time.monotonic()
        self.failures += 1
        self.not_before = self.answered + min(2.0 ** (self.failures - 1), MAX_PAUSE)


def watch(store: Server, prefect: Server, worker: Server, say: Callable[[str], None] = say_with_time) -> None:
    """Watch the servers until this process is stopped."""
    now = time.monotonic()
    server = Watched("Prefect server", prefect, now)
    watched = [Watched("object store", store, now), server, Watched("worker", worker, now, needs=server)]
    while True:
        for one in watched:
            one.look(say)
            one.server.process.rotate_log()
        time.sleep(LOOK_SECONDS)


class Supervisor:
    """The supervisor's own process, with its log and record under `folder/supervisor`."""

    def __init__(self, folder: Path, workspace: Path) -> None:
        self.workspace = workspace.absolute()
        self.process = BackgroundProcess("supervisor", folder / "supervisor")

    def start(self) -> None:
        """Start it where it does not run."""
        with locked(self.process.folder / "lock"):
            self.process.rotate_log()
            command = [sys.executable, "-m", "infra.local", "supervise"]
            self.process.start(command, os.environ, self.workspace)

    def stop(self) -> None:
        """Stop it; what it watches runs on."""
        self.process.stop()
