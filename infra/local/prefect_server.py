"""A Prefect server with its UI on this machine, on loopback only, its database (SQLite) in one folder."""

import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infra.automations import HEARTBEAT_SECONDS
from infra.local.process import LOOPBACK, BackgroundProcess, free_port, locked
from infra.local.secrets import private_folder, write_private_text
from infra.prefect_api import PrefectAPI
from infra.prefect_proxies import set_aside
from tasks.stage.errors import InputError
from tasks.stage.files import read_json, write_json

DEFAULT_FOLDER = Path(".local")
USUAL_PORT = 4200
LOGIN_FILE = "password"
START_SECONDS = 300.0  # the first start creates the database; a machine that trains takes its time
START_ATTEMPTS = 3
POLL_SECONDS = 0.2


def prefect_environment(folder: Path = DEFAULT_FOLDER) -> dict[str, str]:
    """Return the variables that keep Prefect's files in `folder` and Prefect silent about its users and itself.

    So are those that set proxies aside which would end it (infra/prefect_proxies.py).

    Who may start a run can run any command as its worker: so the server asks for a password, of other users of the
    machine and of web pages that reach loopback through a browser. It is in `folder/prefect/password`, and another one
    once another program has taken the server's port.
    """
    home = folder.absolute() / "prefect"
    private_folder(folder)
    private_folder(home)  # a run's own server starts in it and makes it too late
    password = _password(home)
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        # In the server's memory, where it looks for them else, leases die with it, and their runs at the next renewal.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        # A machine that trains at the same time needs more than Prefect's 20 seconds to start a run's own server.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        **set_aside(os.environ),
    }


def _password(home: Path) -> str:
    """Return the server's user and password, made once."""
    path = home / LOGIN_FILE
    if not path.exists():
        with locked(home / "password.lock"):
            if not path.exists():
                write_private_text(path, f"retrain:{secrets.token_urlsafe(24)}")
    return path.read_text(encoding="utf-8").strip()


class PrefectServer:
    """The server, with its log, process record and port under `folder/prefect`."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = folder
        self._home = folder.absolute() / "prefect"
        self._port = self._home / "port.json"
        self.process = BackgroundProcess("server", self._home)

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.process.log

    @property
    def url(self) -> str:
        """Address of the UI, as `http://127.0.0.1:4200`; raises InputError where it was never started."""
        if not self._port.exists():
            raise InputError(f"{self._port} does not exist: the Prefect server was never started")
        return f"http://{LOOPBACK}:{read_json(self._port)}"

    @property
    def password_file(self) -> Path:
        """Holds the user and the password that the UI asks for, as `user:password`."""
        return self._home / LOGIN_FILE

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which `prefect` and flows reach this server."""
        return prefect_environment(self.folder) | {"PREFECT_API_URL": f"{self.url}/api"}

    def is_running(self) -> bool:
        """Return whether the recorded process lives and its API answers."""
        return self.process.lives() and self._answers()

    def start(self, meanwhile: Callable[[], None] | None = None) -> bool:
        """Start the server and wait until its API answers; return whether it had to be started.

        Args:
            meanwhile: Called once while the server starts, which takes it ten seconds, with its address chosen.

        Raises:
            InputError: It does not come up; the text quotes its last words.
        """
        private_folder(self.folder)
        private_folder(self._home)
        with locked(self._home / "server.lock"):
            if self.is_running():
                return False
            self.process.stop()
            known = int(read_json(self._port)) if self._port.exists() else None
            for _ in range(START_ATTEMPTS):
                port = free_port(known or USUAL_PORT, USUAL_PORT)
                if known not in (
                    None,
                    port,
                ):  # whoever listens there now was sent the password by all that looked for us
                    (self._home / LOGIN_FILE).unlink(missing_ok=True)
                known = port
                self._launch(port)
                if meanwhile is not None:
                    meanwhile()
                    meanwhile = None
                if self._wait_until_it_answers():
                    return True
                self.process.stop()  # another server may have taken the port between the choice and the start
            raise InputError(f"the Prefect server did not start; {self.log} ends: {self.process.last_words()}")

    def stop(self) -> bool:
        """Stop the server; return whether it was running."""
        return self.process.stop()

    def _launch(self, port: int) -> None:
        write_json(self._port, port)
        self.process.start(
            [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)],
            clean_environment() | prefect_environment(self.folder) | self._pages,
            self._home,
        )

    @property
    def _pages(self) -> dict[str, str]:
        """What the server tells browsers: where its pages are, and to whom they send the password."""
        return {"PREFECT_UI_URL": self.url, "PREFECT_UI_API_URL": f"{self.url}/api"}

    def _wait_until_it_answers(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while self.process.lives() and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _answers(self) -> bool:
        """Return whether the server at the address is the one of our folder; another may be there."""
        try:
            settings = PrefectAPI.from_environment(self.environment).get("admin/settings")
            return bool(settings["home"] == str(self._home))
        except (InputError, KeyError, TypeError):  # another server refuses our password
            return False


def clean_environment() -> dict[str, str]:
    """Return this process's environment without another server's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
