"""Find and end what a worker left behind when it was killed: its Prefect worker, its flow runs, their stages.

A killed process cannot tell its children, and a flow run's processes are in groups of their own. But what a worker
starts inherits its environment, so that /proc names them all, whoever became their parent. Linux only.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from infra.process_group import birth_of, parent_of, process_ids

WORKER = "RETRAIN_WORKER"  # whose processes they are: a name and the folder in which it works
OWNER = "RETRAIN_WORKER_PROCESS"  # the process that looks after them: its id and birth
FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # Prefect's own, in the environment of a flow run and all that it starts
GRACE_SECONDS = 90.0  # a stage that trains may finish its step and save
POLL_SECONDS = 0.2


def worker_environment(name: str, folder: Path) -> dict[str, str]:
    """Return the variables by which all that this process starts as a worker is known."""
    return {WORKER: f"{name} in {folder.absolute()}", OWNER: f"{os.getpid()} {birth_of(os.getpid())}"}


def living_owner(name: str, folder: Path) -> int | None:
    """Return the id of a process that looks after this worker now and is not this one; None where there is none."""
    for process in processes_with(WORKER, f"{name} in {folder.absolute()}"):
        owner, _, birth = _environment(process).get(OWNER, "0 ").partition(" ")
        if int(owner) != os.getpid() and birth_of(int(owner)) == birth:
            return int(owner)
    return None


def end_left_behind(name: str, folder: Path, grace_seconds: float = GRACE_SECONDS) -> int:
    """End every process of a worker that nobody looks after any more; return how many there were.

    Its Prefect worker goes first, so that it starts nothing; the flow runs get SIGTERM and time to stop their stages,
    which save; what is left then gets SIGKILL.
    """
    return _end(WORKER, f"{name} in {folder.absolute()}", grace_seconds)


def end_flow_run(flow_run: str, grace_seconds: float = GRACE_SECONDS) -> int:
    """End every process of a flow run on this machine: SIGTERM, a wait, SIGKILL; return how many there were."""
    return _end(FLOW_RUN, flow_run, grace_seconds)


def processes_with(variable: str, value: str) -> set[int]:
    """Return the processes that were started with a variable of this value, as far as this user may look."""
    wanted = f"{variable}={value}".encode()
    found = set()
    for process in process_ids():
        with contextlib.suppress(OSError):  # it ended while we looked, or is somebody else's
            if wanted in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                found.add(process)
    return found - {os.getpid()}


def _end(variable: str, value: str, grace_seconds: float) -> int:
    processes = processes_with(variable, value)
    for process in processes:
        if FLOW_RUN not in _environment(process):  # the Prefect worker itself
            _signal(process, signal.SIGKILL)
    for process in processes:
        if parent_of(process) not in processes:  # a flow run, or a stage whose flow run is dead
            _signal(process, signal.SIGTERM)
            _signal(process, signal.SIGCONT)  # one that was stopped would never see it
    deadline = time.monotonic() + grace_seconds
    while (left := processes_with(variable, value)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for process in left:
        _signal(process, signal.SIGKILL)
    return len(processes)


def _environment(process: int) -> dict[str, str]:
    try:
        entries = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def _signal(process: int, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        os.kill(process, sign)
