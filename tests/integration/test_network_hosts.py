"""Two hosts with addresses of their own that find each other by name: late, killed, replaced; they end as one does.

HOST_LATE_SECONDS says by how many seconds the second host is late: 3 here, 60 in the long form of
infra/kubernetes/README.md.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.network_hosts import NetworkHosts, kill, missing, network_hosts
from tests.fixtures.nursery import ROOT, Nursery
from tests.fixtures.train_workspace import largest_relative_gap, newest_step, saved_weights, write_workspace

LATE_SECONDS = float(os.environ.get("HOST_LATE_SECONDS", "3"))
PATIENCE = 240.0 + LATE_SECONDS
RECIPE = {"epochs": 4, "precision": "float64"}
# What the flow does with a stage that saved its work and can go on.
TRY_AGAIN = "until python -m tasks.train; do test $? -eq 75 || exit 1; sleep 1; done"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[NetworkHosts]:
    if reason := missing():
        pytest.skip(reason)
    with network_hosts(2, tmp_path) as made:
        yield made


def write_chief(folder: Path) -> Path:
    """Write a workspace that holds the code too, as a clone does, and what is nobody else's business."""
    write_workspace(folder, RECIPE, checkpoint_every_steps=5)
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copytree(ROOT / "tasks", folder / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".env").write_text("AWS_SECRET_ACCESS_KEY=secret\n")
    return folder


@pytest.mark.long  # four minutes; test_train_hosts.py has hosts that are lost on loopback
def test_hosts_that_come_late_and_are_lost_end_with_the_weights_of_a_single_one(
    hosts: NetworkHosts, nursery: Nursery, tmp_path: Path
) -> None:
    alone = nursery.start(write_workspace(tmp_path / "alone", RECIPE))
    workspace = write_chief(tmp_path / "chief")
    command = ("sh", "-c", TRY_AGAIN)

    def wait_until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            logs = [f"{log.name}:\n{log.read_text(errors='replace')}" for log in tmp_path.glob("*.log")]
            assert chief.poll() is None, "\n".join(logs)
            assert time.monotonic() < deadline, "\n".join(logs)
            time.sleep(0.1)

    chief = hosts.start_host(0, workspace, "chief.log", *command)
    time.sleep(LATE_SECONDS)
    follower = hosts.start_host(1, tmp_path / "follower", "follower.log", *command)
    wait_until(lambda: newest_step(workspace) >= 10)
    kill(follower)
    wait_until(lambda: "stopped answering" in hosts.output("chief.log"))
    saved = newest_step(workspace)
    replacement = hosts.start_host(1, tmp_path / "replacement", "replacement.log", *command)
    statuses = chief.wait(PATIENCE), replacement.wait(PATIENCE)
    assert statuses == (0, 0), hosts.output("chief.log") + hosts.output("replacement.log")
    assert alone.wait() == 0, alone.err
    assert f"({saved} in all)" in hosts.output("chief.log"), "the second try goes on from the first one's checkpoint"
    assert "2 replicas on 2 hosts" in hosts.output("chief.log")
    assert largest_relative_gap(saved_weights(workspace), saved_weights(tmp_path / "alone")) < 2e-7
    assert not (tmp_path / "follower/.env").exists(), "what the stage does not read stays with the chief"
    assert not (tmp_path / "replacement/model").exists(), "only the chief writes"
