"""A Prefect process worker on this machine: it takes runs from the work pool and runs them in this workspace."""

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.left_behind import end_left_behind
from infra.local.prefect_server import PrefectServer, clean_environment
from infra.local.process import BackgroundProcess, locked
from infra.prefect_api import PrefectAPI, ServerAwayError
from tasks.stage.errors import InputError
from tasks.stage.files import read_json, write_json

WORK_POOL = "retrain"
NAME = "local"
LIMIT = 1  # two runs in one workspace would write the same files
START_SECONDS = 240.0  # what an earlier worker left behind may finish its step and save first
STOP_SECONDS = 120.0
SILENCE = timedelta(seconds=100)  # three of its heartbeats
POLL_SECONDS = 0.2


class Worker:
    """The worker of one server, with its log and process record under `folder/prefect`.

    Args:
        server: Where it asks for work.
        workspace: The repository in which it runs flows.
    """

    def __init__(self, server: PrefectServer, workspace: Path) -> None:
        self.server, self.workspace = server, workspace.absolute()
        self._home = server.folder.absolute() / "prefect"
        self._told = self._home / "worker_server.json"
        self.process = BackgroundProcess("worker", self._home)

    def is_running(self) -> bool:
        """Return whether it lives, knows the server's address, and was heard from lately, where the server can tell."""
        if not self.process.lives() or not self.knows_server():
            return False
        return self._heard_since(datetime.now(UTC) - SILENCE) is not False

    def knows_server(self) -> bool:
        """Return whether the address that the worker was started with is the server's, which may have moved."""
        return self._told.exists() and bool(read_json(self._told) == self.server.url)

    def start(self) -> bool:
        """Start the worker, make the work pool where there is none, and wait until the server has heard from it.

        Returns whether it had to be started.

        Raises:
            InputError: The server does not hear from it; the text quotes its last words.
        """
        with locked(self._home / "worker.lock"):
            if self.process.lives():
                return False
            started = datetime.now(UTC)
            command = [sys.executable, "-m", "infra.worker", "--pool", WORK_POOL, "--type", "process", "--name", NAME]
            write_json(self._told, self.server.url)
            environment = clean_environment() | self.server.environment
            self.process.start([*command, "--limit", str(LIMIT)], environment, self.workspace)
            deadline = time.monotonic() + START_SECONDS
            while not self._heard_since(started):
                if not self.process.lives() or time.monotonic() > deadline:
                    words = self.process.last_words()
                    self.process.stop()
                    raise InputError(f"the worker did not start; {self.process.log} ends: {words}")
                time.sleep(POLL_SECONDS)
            self._api.ask("PATCH", f"work_pools/{WORK_POOL}", {"concurrency_limit": LIMIT})
            return True

    def stop(self) -> bool:
        """Stop the worker; a run at work is told, saves and ends. Return whether the worker was running."""
        was_running = self.process.stop(STOP_SECONDS)
        end_left_behind(NAME, self.workspace)  # of one that was killed
        return was_running

    @property
    def _api(self) -> PrefectAPI:
        return PrefectAPI.from_environment(self.server.environment)

    def _heard_since(self, moment: datetime) -> bool | None:
        """Return whether the server has had a sign of life after `moment`; None where it cannot tell."""
        try:
            workers = self._api.post(f"work_pools/{WORK_POOL}/workers/filter", {})
        except ServerAwayError:
            return None
        except InputError:  # the work pool is not made yet
            return False
        heard = [datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in workers if worker["name"] == NAME]
        return any(time_heard > moment for time_heard in heard)
