"""Start and stop the servers of this machine: S3, Prefect and a worker, all on loopback, all data under .local/.

A supervisor starts again what dies or hangs of them; .local/supervisor/supervisor.log has a line an event.

python -m infra.local up [--object-store-only]    # starts what is not running
python -m infra.local status                      # what runs, and where
python -m infra.local env                         # variables for a shell: eval "$(python -m infra.local env)"
python -m infra.local down
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from infra.automations import register
from infra.local.object_store import ObjectStore
from infra.local.prefect_server import PrefectServer
from infra.local.supervisor import Supervisor, watch
from infra.local.worker import WORK_POOL, Worker
from infra.messages import configured_messages, who_is_told
from infra.prefect_api import PrefectAPI
from infra.scheduler import NoRunsError, check_scheduler
from tasks.stage.errors import InputError, run_command
from tasks.stage.proxies import EXCEPTIONS


class Stack:
    """The three servers of this workspace, and what watches them."""

    def __init__(self) -> None:
        self.object_store = ObjectStore()
        self.prefect = PrefectServer()
        self.worker = Worker(self.prefect, Path.cwd())
        self.supervisor = Supervisor(self.prefect.folder, Path.cwd())

    def up(self, *, object_store_only: bool = False) -> None:
        """Start what is not running and say where everything is."""
        print("starting the object store …", flush=True)
        self.object_store.start()
        if not object_store_only:
            print("starting the Prefect server …", flush=True)
            self.prefect.start()
            if not self.worker.knows_server():
                self.worker.stop()
            print("starting the worker …", flush=True)
            self.worker.start()
            self.supervisor.start()
            self._check_scheduler()
            self._register_messages()
        self.status()

    def _check_scheduler(self) -> None:
        try:
            check_scheduler(PrefectAPI.from_environment(self.prefect.environment))
        except NoRunsError as error:  # everything else works
            print(f"{error}: {self.prefect.log}", file=sys.stderr)

    def _register_messages(self) -> None:
        """Have people told where a block is named; the server starts without, where that is named wrongly."""
        api = PrefectAPI.from_environment(self.prefect.environment)
        try:
            register(api, configured_messages(api, os.environ))
            print(who_is_told(os.environ))
        except InputError as error:
            print(f"nobody is told of failures: {error}", file=sys.stderr)

    def down(self) -> None:
        """Stop what is running: the worker before the servers, so that its run is told while they still listen."""
        self.supervisor.stop()
        self.worker.stop()
        self.prefect.stop()
        self.object_store.stop()
        self.status()

    def status(self) -> None:
        """Say what runs, and where."""
        store = f"{self.object_store.endpoint} (S3)" if self.object_store.is_running() else ""
        password = self.prefect.password_file.relative_to(Path.cwd())
        prefect = f"{self.prefect.url} (its UI asks for what is in {password})" if self.prefect.is_running() else ""
        worker = f"work pool {WORK_POOL}" if self.worker.is_running() else ""
        supervisor = "starts again what dies" if self.supervisor.process.lives() else ""
        servers = (("object store", store), ("Prefect", prefect), ("worker", worker), ("supervisor", supervisor))
        for name, where in servers:
            print(f"{name:<13} {where or 'not running'}")

    def supervise(self) -> None:
        """Watch what runs until stopped."""
        watch(self.object_store, self.prefect, self.worker)

    def env(self) -> None:
        """Print the variables that reach the servers, also past a proxy, as lines for a shell.

        Raises:
            InputError: None of them is running.
        """
        variables: dict[str, str] = {}
        if self.object_store.is_running():
            variables |= self.object_store.environment
        if self.prefect.is_running():
            variables |= self.prefect.environment
        if not variables:
            raise InputError("nothing is running here; start it with: make up")
        variables = {name: os.environ[name] for name in EXCEPTIONS if name in os.environ} | variables
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")


def main() -> None:
    """Read the command's arguments and do as they say."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start what is not running")
    up.add_argument("--object-store-only", action="store_true", help="without Prefect and worker")
    for name, text in (
        ("down", "stop everything; the data stays"),
        ("status", "say what runs, and where"),
        ("env", "print variables for a shell"),
        ("supervise", "start again what dies; up does so in the background"),
    ):
        commands.add_parser(name, help=text)
    arguments = parser.parse_args()
    stack = Stack()
    actions: dict[str, Callable[[], None]] = {
        "up": lambda: stack.up(object_store_only=arguments.object_store_only),
        "down": stack.down,
        "status": stack.status,
        "env": stack.env,
        "supervise": stack.supervise,
    }
    run_command("infra.local", actions[arguments.command])


if __name__ == "__main__":
    main()
