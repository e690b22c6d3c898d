"""Run a Prefect process worker that hands SIGTERM on to its flow runs: `python -m infra.worker --pool NAME …`.

A Prefect worker (3.8.8) that gets SIGTERM stops polling and then waits for its flow runs without telling them, so a
container's grace period ends with SIGKILL in the middle of an epoch. This one tells them: the flow run stops its
stage, training saves a checkpoint, and the worker leaves as soon as its runs have. The arguments are those of
`prefect worker start`. Linux only: it reads /proc.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

POLL_SECONDS = 1.0


def flow_runs(worker: int) -> set[int]:
    """Return the process ids of a worker's direct children, which are its flow runs."""
    found: set[int] = set()
    for children in Path(f"/proc/{worker}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread ended while we looked
            found.update(int(process) for process in children.read_text(encoding="ascii").split())
    return found


def wait_for(worker: subprocess.Popen[bytes], stopping: threading.Event) -> int:
    """Wait until the worker ends; once `stopping` is set, pass SIGTERM on. Return its exit status (128 + signal).

    The worker gets one SIGTERM only, since it answers a second with SIGKILL. Flow runs are looked for until the worker
    ends, because it may have been starting one.
    """
    told: set[int] = set()
    while True:
        if stopping.is_set():
            for process in ({worker.pid} | flow_runs(worker.pid)) - told:
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(process, signal.SIGTERM)
                told.add(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = worker.wait(POLL_SECONDS)
            return status if status >= 0 else 128 - status


def main() -> None:
    """Start the worker with this command's arguments and exit as it does."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", *sys.argv[1:]],
        start_new_session=True,  # or Ctrl-C would reach it twice, and its second signal is SIGKILL
    )
    sys.exit(wait_for(worker, stopping))


if __name__ == "__main__":
    main()
