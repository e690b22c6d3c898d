"""Run a Prefect process worker that ends its flow runs before itself: `python -m infra.worker --pool NAME …`.

A Prefect worker (3.9.1) that gets SIGTERM kills its flow runs with SIGKILL and leaves: the stage that trains is
orphaned, no checkpoint is saved, and the server shows a run that goes on for ever. This one sends SIGTERM to the flow
runs first, so that each stops its stage, which saves; it stops the worker when they have ended. How long that may
take is for the container's grace period to say. The arguments are those of `prefect worker start`. Linux only: it
reads /proc.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

POLL_SECONDS = 0.2


def flow_runs(worker: int) -> set[int]:
    """Return the process ids of a worker's direct children, which are its flow runs."""
    found: set[int] = set()
    for children in Path(f"/proc/{worker}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread ended while we looked
            found.update(int(process) for process in children.read_text(encoding="ascii").split())
    return found


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


def main() -> None:
    """Start the worker with this command's arguments, stop it on SIGTERM or Ctrl-C, and exit as it does."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", *sys.argv[1:]],
        start_new_session=True,  # a terminal's Ctrl-C is for this process alone
    )
    while worker.poll() is None and not stopping.wait(POLL_SECONDS):
        pass
    if stopping.is_set():
        end_flow_runs(worker)
        worker.terminate()
    status = worker.wait()
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
