"""A Prefect process worker on this machine: it takes runs from the work pool and runs them in this workspace."""

import json
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from infra.local.prefect_server import PrefectServer, clean_environment
from infra.local.process import BackgroundProcess, locked
from tasks.errors import InputError

WORK_POOL = "retrain"
NAME = "local"
START_SECONDS = 60.0
STOP_SECONDS = 120.0  # a stage that trains may finish its step and save
POLL_SECONDS = 0.2


class Worker:
    """The worker of one server, with its log and process record under `folder/prefect`.

    Args:
        server: Where it asks for work.
        workspace: The repository in which it runs flows.
    """

    def __init__(self, server: PrefectServer, workspace: Path) -> None:
        self.server, self.workspace = server, workspace
        self._home = server.folder.absolute() / "prefect"
        self._process = BackgroundProcess("worker", self._home)

    def is_running(self) -> bool:
        """Return whether the recorded process lives."""
        return self._process.pid is not None

    def start(self) -> bool:
        """Start the worker, make the work pool where there is none, and wait until the server has heard from it.

        Returns whether it had to be started.

        Raises:
            InputError: The server does not hear from it; the text quotes its last words.
        """
        with locked(self._home / "worker.lock"):
            if self.is_running():
                return False
            started = datetime.now(UTC)
            command = [sys.executable, "-m", "infra.worker", "--pool", WORK_POOL, "--type", "process", "--name", NAME]
            environment = clean_environment() | self.server.environment
            self._process.start(command, environment, self.workspace.absolute())
            deadline = time.monotonic() + START_SECONDS
            while not self._heard_since(started):
                if not self.is_running() or time.monotonic() > deadline:
                    words = self._process.last_words()
                    self._process.stop()
                    raise InputError(f"the worker did not start; {self._process.log} ends: {words}")
                time.sleep(POLL_SECONDS)
            return True

    def stop(self) -> bool:
        """Stop the worker; a run at work is told, saves and ends. Return whether the worker was running."""
        return self._process.stop(STOP_SECONDS)

    def _heard_since(self, moment: datetime) -> bool:
        """Return whether the worker has sent the server a sign of life after `moment`."""
        address = f"{self.server.url}/api/work_pools/{WORK_POOL}/workers/filter"
        request = urllib.request.Request(address, b"{}", {"Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback HTTP
                workers = json.load(answer)
        except (urllib.error.URLError, TimeoutError, ConnectionError):  # also 404: the work pool is not made yet
            return False
        heard = [datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in workers if worker["name"] == NAME]
        return any(time_heard > moment for time_heard in heard)
