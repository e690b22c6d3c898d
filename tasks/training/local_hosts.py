"""A cluster on this machine: several processes on loopback, as `python -m tasks.train --hosts 2` starts them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType

from tasks.stage.errors import BAD_INPUT_STATUS, OUTAGE_STATUS, RESUMABLE_STATUS

GRACE = 60.0  # seconds that the others have to stop by themselves when one is gone
POLL = 0.1


def run_hosts(count: int, command: list[str]) -> int:
    """Run `command` in `count` processes that form one cluster; return the status that says best what happened.

    A signal to this process is passed on to all. When one of them fails, the others notice and stop by themselves;
    those that have not after GRACE seconds are killed.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _remembered() as signals:  # before the first one starts: a signal must reach them all
            for index in range(count):
                processes.append(_start(command, addresses, index))
            _wait(processes, signals)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return _status([process.returncode for process in processes])


def _start(command: list[str], addresses: list[str], index: int) -> "subprocess.Popen[bytes]":
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    # A session of its own: Ctrl-C reaches it once, from us, and not from the terminal too.
    return subprocess.Popen(command, env={**os.environ, "TF_CONFIG": json.dumps(config)}, start_new_session=True)


def _wait(processes: "list[subprocess.Popen[bytes]]", signals: list[int]) -> None:
    """Wait for all to end, pass signals on to those that run, and give up on those that do not notice a failure."""
    deadline = None
    while running := [process for process in processes if process.poll() is None]:
        while signals:
            number = signals.pop(0)
            for process in running:
                process.send_signal(number)
        if deadline is None and any(process.returncode for process in processes):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            print("train: a host did not stop by itself after another was gone, and is killed", file=sys.stderr)
            return
        time.sleep(POLL)


@contextlib.contextmanager
def _remembered() -> Iterator[list[int]]:
    """Give the list of the signals that came and that nobody has passed on yet."""
    signals: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _status(statuses: list[int]) -> int:
    """Return bad input, then an outage, then a resumable end before any other failure: the others only followed it.

    A host that a signal killed gives a shell's status for that, 128 and the signal's number.
    """
    for telling in (BAD_INPUT_STATUS, OUTAGE_STATUS, RESUMABLE_STATUS):
        if telling in statuses:
            return telling
    return next((status if status > 0 else 128 - status for status in statuses if status), 0)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
