"""Run a Prefect process worker that ends its flow runs before itself: `python -m infra.worker --pool NAME …`.

A Prefect worker (3.9.1) that gets SIGTERM kills its flow runs with SIGKILL and leaves: the stage that trains is
orphaned, no checkpoint is saved, and the server shows a run that goes on for ever. This one sends SIGTERM to the flow
runs first, so that each stops its stage, which saves; it stops the worker when they have ended. How long that may
take is for the container's grace period to say.

Where the worker was killed, its flow runs live on, and nobody could cancel them: they are ended in the same way before
this command leaves, or, where it was killed too, before it starts anew. A worker of one name and folder runs once.

Beside the worker it starts again what ended for a reason that may pass (infra/restart.py) and registers the automations
(infra/automations.py). The arguments are those of `prefect worker start`; without `--name` the machine's name is taken,
so that a worker that comes back is the same worker in Prefect's UI. One more, `--metrics [HOST:]PORT`, serves metrics
(infra/monitoring/endpoint.py), on loopback where no host is named. Linux only: it reads /proc.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from infra.automations import HEARTBEAT_SECONDS, automations, register
from infra.left_behind import (
    FLOW_RUN,
    end_flow_run,
    end_left_behind,
    living_owner,
    processes_with,
    worker_environment,
)
from infra.monitoring.endpoint import serve
from infra.prefect_api import PrefectAPI
from infra.prefect_proxies import set_aside
from infra.process_group import is_dead
from infra.restart import POOL, Machine, Sweep, say_with_time
from infra.scheduler import NoRunsError, check_scheduler
from tasks.stage.errors import InputError, run_command

POLL_SECONDS = 0.2


def flow_runs(worker: int) -> set[int]:
    """Return the process ids of a worker's direct children that live, which are its flow runs."""
    found: set[int] = set()
    for children in Path(f"/proc/{worker}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread ended while we looked
            found.update(int(process) for process in children.read_text(encoding="ascii").split())
    return {process for process in found if not is_dead(process)}  # a worker that hangs never notices their end


def end_flow_runs(worker: subprocess.Popen[bytes]) -> None:
    """Send each flow run one SIGTERM, those that start meanwhile included, and return when none is left."""
    told: set[int] = set()
    while worker.poll() is None and (running := flow_runs(worker.pid)):
        for process in running - told:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.kill(process, signal.SIGTERM)
            told.add(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(POLL_SECONDS)


class WorkersSweep(Sweep):
    """A sweep that also registers the automations and has the scheduler prove itself, at first and after each outage.

    A server that was away may have come back with an empty database.
    """

    def once(self) -> None:
        """Sweep, and do what is due beside; it raises as `Sweep.once`."""
        was_away = self.heard_since is None
        super().once()
        if was_away:
            for name in register(self.api, automations()):
                self.say(f"registered: {name}")
            try:
                check_scheduler(self.api)
            except NoRunsError as error:  # everything else works
                self.say(str(error))


def start_sweeping(pool: str, name: str, stopping: threading.Event, *, runs_here: bool) -> None:
    """Sweep in the background until the worker stops, where Prefect's variables name a server.

    Args:
        pool: The work pool.
        name: The worker's name.
        stopping: Set when the worker is to stop.
        runs_here: Its flow runs are processes of this machine.
    """
    if not os.environ.get("PREFECT_API_URL"):
        say_with_time("PREFECT_API_URL is not set: what crashes here is not started again")
        return
    machine = Machine(name, lambda run: bool(processes_with(FLOW_RUN, run)), end_flow_run) if runs_here else None
    sweep = WorkersSweep(PrefectAPI.from_environment(), pool, machine=machine, say=say_with_time)
    threading.Thread(target=sweep.forever, args=[stopping], daemon=True).start()


def work(name: str, arguments: Sequence[str], stopping: threading.Event) -> int:
    """Run the worker until it ends or is to stop; return its exit status as a shell would."""
    proxies = set_aside(os.environ)
    for variable in sorted(proxies.keys() & os.environ.keys()):
        say_with_time(f"{variable} names what Prefect's client cannot use: it asks its server without")
    worker = subprocess.Popen(
        [sys.executable, "-m", "infra.prefect_worker", "start", *arguments],
        env={"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS), **os.environ}
        | proxies
        | worker_environment(name, Path.cwd()),
        start_new_session=True,  # a terminal's Ctrl-C is for this process alone
    )
    while worker.poll() is None and not stopping.wait(POLL_SECONDS):
        pass
    if stopping.is_set():
        end_flow_runs(worker)
        worker.terminate()
        worker.send_signal(signal.SIGCONT)  # one that was stopped would never see it
    status = worker.wait()
    end_left_behind(name, Path.cwd())
    return status if status >= 0 else 128 - status


def _metrics_parser() -> argparse.ArgumentParser:
    """Return the parser of the one option that is not Prefect's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--metrics", metavar="[HOST:]PORT")
    return parser


def main() -> None:
    """Start the worker with this command's arguments, stop it on SIGTERM or Ctrl-C, and exit as it does.

    Raises:
        InputError: The same worker runs already.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--name", "-n", default=socket.gethostname())
    parser.add_argument("--pool", "-p", default=POOL)
    parser.add_argument("--type", "-t", default="process")
    known, _ = parser.parse_known_args()
    metrics, arguments = _metrics_parser().parse_known_args()
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if other := living_owner(known.name, Path.cwd()):
        raise InputError(f"worker {known.name} runs already in {Path.cwd()}: process {other}")
    if count := end_left_behind(known.name, Path.cwd()):
        say_with_time(f"ended {count} processes that an earlier worker {known.name} left behind")
    start_sweeping(known.pool, known.name, stopping, runs_here=known.type == "process")
    if metrics.metrics:
        serve(metrics.metrics, PrefectAPI.from_environment() if os.environ.get("PREFECT_API_URL") else None)
    named = [] if {"--name", "-n"} & set(sys.argv) else ["--name", known.name]
    sys.exit(work(known.name, [*arguments, *named], stopping))


if __name__ == "__main__":
    run_command("infra.worker", main)
