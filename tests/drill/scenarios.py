"""What goes wrong, one function a drill: it harms a run that is at work, and says which states are right afterwards."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.drill.processes import processes
from tests.drill.site import PREFECT, RUN_SECONDS, STATE_SECONDS, Site, wait_until

AWAY_SECONDS = 180.0
SOON = 30.0  # a stage or a server that starts
MAX_FILLED = 10 << 30  # bytes: nobody else is on so small a disk
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")  # Debian's package libfaketime

Harm = Callable[[Site, str], None]


@dataclass(frozen=True)
class Drill:
    """One thing that goes wrong.

    Attributes:
        harm: Given the site and the id of a run that has just been asked for; returns when the harm is done and, where
            a person would have to do something, that is done too.
        end: The state in which the run must end.
        resumes: Whether the run must go on from a checkpoint instead of training anew.
        next_run: Whether another run is asked for afterwards, which must complete, since this one may not.
        variables: The environment of the run's processes.
    """

    harm: Harm
    end: str = "Completed"
    resumes: bool = False
    next_run: bool = False
    variables: tuple[tuple[str, str], ...] = ()


def training_killed(site: Site, _run: str) -> None:
    """SIGKILL of the stage that trains, as the kernel does when memory runs out."""
    site.wait_for_checkpoint()
    os.kill(site.pid_of("training"), signal.SIGKILL)


def training_told_to_stop(site: Site, _run: str) -> None:
    """SIGTERM of the stage that trains: a drained node, a spot notice."""
    site.wait_for_checkpoint()
    os.kill(site.pid_of("training"), signal.SIGTERM)


def flow_run_killed(site: Site, run: str) -> None:
    """SIGKILL of the process that runs the flow; its stage must not go on by itself."""
    site.wait_for_checkpoint()
    os.kill(site.pid_of("flow run"), signal.SIGKILL)
    wait_until("the run was Crashed", lambda: "Crashed" in site.states(run) or None)


def flow_run_told_to_stop(site: Site, _run: str) -> None:
    """SIGTERM of the process that runs the flow."""
    site.wait_for_checkpoint()
    os.kill(site.pid_of("flow run"), signal.SIGTERM)


def prefect_worker_killed(site: Site, _run: str) -> None:
    """SIGKILL of Prefect's worker below ours."""
    site.wait_for_checkpoint()
    _kill_and_wait(site, "prefect worker")


def worker_killed(site: Site, _run: str) -> None:
    """SIGKILL of the worker: another is there at once, and never two."""
    site.wait_for_checkpoint()
    _kill_and_wait(site, "worker")
    time.sleep(SOON)
    assert sum(each.kind == "prefect worker" for each in processes(site.folder)) == 1


def worker_told_to_stop(site: Site, _run: str) -> None:
    """SIGTERM of the worker, as a container's end: the run saves and ends, and goes on with the next worker."""
    site.wait_for_checkpoint()
    pid = site.pid_of("worker")
    os.kill(pid, signal.SIGTERM)
    wait_until("another worker", lambda: site.pid_of("worker") != pid or None)


def worker_frozen(site: Site, _run: str) -> None:
    """SIGSTOP of the worker: it is found by its silence and replaced."""
    site.wait_for_checkpoint()
    pid = site.pid_of("prefect worker")
    os.kill(pid, signal.SIGSTOP)
    wait_until("another worker", lambda: site.pid_of("prefect worker") != pid or None, 2 * STATE_SECONDS)


def server_killed(site: Site, _run: str) -> None:
    """SIGKILL of Prefect's server."""
    site.wait_for_checkpoint()
    _kill_and_wait(site, "server")


def object_store_killed(site: Site, _run: str) -> None:
    """SIGKILL of the S3 server."""
    site.wait_for_checkpoint()
    _kill_and_wait(site, "object store")


def object_store_away_in_publish(site: Site, _run: str) -> None:
    """S3 does not answer for three minutes while the release is published; nobody does anything."""
    site.pid_of("publishing", RUN_SECONDS)
    pid = site.pid_of("object store")
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(AWAY_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)


def power_cut(site: Site, _run: str) -> None:
    """Everything dies at once; somebody types `make up`."""
    site.wait_for_checkpoint()
    until = time.monotonic() + SOON
    while living := processes(site.folder):  # what was just starting too
        for each in living:
            _kill(each.pid)
        assert time.monotonic() < until, living
    site.up()


def cancelled(site: Site, run: str) -> None:
    """A person cancels the run: it stays cancelled, and the next one goes on from its checkpoint."""
    site.wait_for_checkpoint()
    site.command(*PREFECT, "flow-run", "cancel", run)


def disk_full(site: Site, _run: str) -> None:
    """The disk of the workspace is full while training saves, and somebody makes room."""
    site.wait_for_checkpoint()
    hog = site.folder / "hog"
    free = shutil.disk_usage(site.folder).free
    assert free < MAX_FILLED, "only a small disk of its own is filled: see tests/drill/__main__.py"
    subprocess.run(["fallocate", "--length", str(free), str(hog)], check=True)
    try:
        time.sleep(SOON)
    finally:
        hog.unlink()


def clock_wrong(_site: Site, _run: str) -> None:
    """The worker's clock is a day ahead: S3 refuses, the run says so, and the next one on a right clock completes."""


def _kill_and_wait(site: Site, kind: str) -> None:
    """Kill a server or worker and wait until another is there."""
    pid = site.pid_of(kind)
    os.kill(pid, signal.SIGKILL)
    wait_until(f"another {kind}", lambda: site.pid_of(kind) != pid or None)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


DRILLS: dict[str, Drill] = {
    "training_killed": Drill(training_killed, resumes=True),
    "training_told_to_stop": Drill(training_told_to_stop, resumes=True),
    "flow_run_killed": Drill(flow_run_killed, resumes=True),
    "flow_run_told_to_stop": Drill(flow_run_told_to_stop, resumes=True),
    "prefect_worker_killed": Drill(prefect_worker_killed),
    "worker_killed": Drill(worker_killed),
    "worker_told_to_stop": Drill(worker_told_to_stop, resumes=True),
    "worker_frozen": Drill(worker_frozen),
    "server_killed": Drill(server_killed),
    "object_store_killed": Drill(object_store_killed),
    "object_store_away_in_publish": Drill(object_store_away_in_publish),
    "power_cut": Drill(power_cut, resumes=True),
    "cancelled": Drill(cancelled, end="Cancelled", next_run=True, resumes=True),
    "disk_full": Drill(disk_full),
    "clock_wrong": Drill(
        clock_wrong, end="Failed", next_run=True, variables=(("LD_PRELOAD", str(FAKETIME)), ("FAKETIME", "+1d"))
    ),
}
