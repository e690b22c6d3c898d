import os
import signal
import subprocess
import sys

import pytest

from tasks.training import local_hosts
from tasks.training.local_hosts import run_hosts

# A host that ends with the status that stands at its position, or goes on for a minute where there is none.
HOST = """
import json, os, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
status = sys.argv[1].split(",")[index]
time.sleep(60) if status == "hangs" else os.kill(os.getpid(), 9) if status == "killed" else sys.exit(int(status))
"""


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ("0,0", 0),
        ("0,75", 75),
        ("75,2", 2),
        ("75,killed", 75),
        ("0,killed", 137),
        ("75,69", 69),
        ("1,0", 1),
        ("3,75,2", 2),
    ],
)
def test_the_status_says_best_what_happened(statuses: str, expected: int) -> None:
    assert run_hosts(statuses.count(",") + 1, [sys.executable, "-c", HOST, statuses]) == expected


def test_a_host_that_does_not_notice_the_others_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_hosts, "GRACE", 0.5)
    assert run_hosts(2, [sys.executable, "-c", HOST, "75,hangs"]) == 75
    assert "did not stop by itself" in capfd.readouterr().err


def test_a_signal_before_the_hosts_have_started_reaches_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    start = local_hosts._start

    def start_after_a_signal(command: list[str], addresses: list[str], index: int) -> "subprocess.Popen[bytes]":
        if index == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return start(command, addresses, index)

    monkeypatch.setattr(local_hosts, "_start", start_after_a_signal)
    assert run_hosts(2, [sys.executable, "-c", HOST, "hangs,hangs"]) == 128 + signal.SIGTERM
