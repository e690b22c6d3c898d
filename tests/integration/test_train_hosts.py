"""Several hosts, as processes on loopback: lost, frozen, stopped, disagreeing; and the run that goes on afterwards."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.data.arrays import Arrays, load_arrays, load_split_record, save_selected, save_split_record
from tests.fixtures.nursery import POLL, ROOT, Nursery, StageRun, cluster_environments
from tests.fixtures.train_workspace import (
    checkpoints,
    largest_relative_gap,
    newest_step,
    saved_weights,
    write_workspace,
)

MINUTE = 60.0
LONG: dict[str, Any] = {"epochs": 400}


def start_hosts(nursery: Nursery, *folders: Path) -> list[StageRun]:
    """Start one process a folder; the first is the chief."""
    environments = cluster_environments(len(folders))
    return [
        nursery.start(folder, environment=environment)
        for folder, environment in zip(folders, environments, strict=True)
    ]


def start_pair(nursery: Nursery, root: Path, recipe: dict[str, Any] = LONG, **train: Any) -> list[StageRun]:
    """Start a chief and a worker, each in its own folder, as on two machines; wait until steps are saved."""
    folders = [write_workspace(root / name, recipe, checkpoint_every_steps=5, **train) for name in ("chief", "worker")]
    runs = start_hosts(nursery, *folders)
    assert runs[0].wait_until(lambda: newest_step(folders[0]) >= 10), runs[0].err
    return runs


def last_line(run: StageRun) -> str:
    return run.err.splitlines()[-1]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_lost_worker_is_named_and_the_run_goes_on_with_any_number_of_hosts(nursery: Nursery, tmp_path: Path) -> None:
    recipe = {"epochs": 6, "precision": "float64"}
    alone = write_workspace(tmp_path / "alone", recipe)
    running = nursery.start(alone)
    chief, worker = start_pair(nursery, tmp_path, recipe)
    worker.send_signal(signal.SIGKILL)
    assert chief.wait(MINUTE) == 75
    assert re.fullmatch(
        r"train: worker 1 \(127\.0\.0\.1:\d+\) stopped answering; this host stops too\. Run it again, on the same or "
        "another number of hosts, to go on from the last checkpoint",
        last_line(chief),
    )
    assert not (tmp_path / "chief/model").exists()
    one, two = tmp_path / "chief", shutil.copytree(tmp_path / "chief", tmp_path / "two")
    saved = newest_step(one)
    # The worker's disk has no checkpoint: it takes over the chief's.
    runs = [nursery.start(one), *start_hosts(nursery, two, tmp_path / "worker")]
    for run in (running, *runs):
        assert run.wait() == 0, run.err
    for run in runs[:2]:
        assert f"({saved} in all)" in run.out
    for folder in (one, two):
        # Weights that agree to 1e-10 differ by one rounding to float32, in which the model is published.
        assert largest_relative_gap(saved_weights(folder), saved_weights(alone)) < 2e-7
    assert json.loads((two / "runtime/train.json").read_text())["hosts"] == 2
    assert names_in(tmp_path / "worker") == ["data", "logs", "params.yaml"], "only the chief writes"


def test_a_lost_chief_is_named_by_its_worker(nursery: Nursery, tmp_path: Path) -> None:
    chief, worker = start_pair(nursery, tmp_path)
    chief.send_signal(signal.SIGKILL)
    assert worker.wait(MINUTE) == 75
    assert re.match(
        r"train on 127\.0\.0\.1:\d+: worker 0 \(127\.0\.0\.1:\d+\) stopped answering; this host stops too",
        last_line(worker),
    )


def test_a_frozen_worker_is_named_within_a_minute(nursery: Nursery, tmp_path: Path) -> None:
    chief, worker = start_pair(nursery, tmp_path)
    worker.send_signal(signal.SIGSTOP)
    assert chief.wait(MINUTE) == 75
    assert re.match(r"train: worker 1 \(127\.0\.0\.1:\d+\) stopped answering", last_line(chief))
    os.kill(worker.pid, signal.SIGCONT)
    assert worker.wait(MINUTE) == 75


def test_one_stopped_worker_stops_all_at_one_saved_step(nursery: Nursery, tmp_path: Path) -> None:
    chief, worker = start_pair(nursery, tmp_path)
    worker.send_signal(signal.SIGTERM)
    assert (chief.wait(MINUTE), worker.wait(MINUTE)) == (75, 75)
    step = newest_step(tmp_path / "chief")
    newest = checkpoints(tmp_path / "chief")[-1].relative_to(tmp_path / "chief")
    again = "run it again to go on"
    assert last_line(chief) == f"train: stopped after step {step}; the last good checkpoint is {newest}; {again}"
    assert re.fullmatch(
        rf"train on 127\.0\.0\.1:\d+: stopped after step {step}; the chief has the checkpoints; {again}",
        last_line(worker),
    )
    assert names_in(tmp_path / "worker") == ["data", "logs", "params.yaml"]


@pytest.mark.parametrize(
    "differs",
    [
        "data",
        pytest.param("recipe", marks=pytest.mark.long),
        pytest.param("memory_megabytes", marks=pytest.mark.long),
        "checkpoint_every_steps",
    ],
)
def test_a_host_that_would_train_something_else_is_refused(nursery: Nursery, tmp_path: Path, differs: str) -> None:
    recipe = {**LONG, "epochs": 401} if differs == "recipe" else LONG
    # These two end launches; hosts that end them at other steps would wait for each other for ever.
    train = {differs: 7} if differs in ("memory_megabytes", "checkpoint_every_steps") else {}
    folders = write_workspace(tmp_path / "chief", LONG), write_workspace(tmp_path / "worker", recipe, **train)
    if differs == "data":
        split = folders[1] / "data/split"
        arrays, record = load_arrays(split, "train"), load_split_record(split)
        other = Arrays(np.array(arrays.images), np.roll(arrays.labels, 1))
        digest = save_selected(split, "train", other, np.arange(len(other.labels)))
        save_split_record(split, replace(record, content_sha256=record.content_sha256 | {"train": digest}))
    chief, worker = start_hosts(nursery, *folders)
    assert worker.wait(MINUTE) == 2
    assert re.fullmatch(
        r"train on (\S+): worker 1 \(\1\) has other data, parameters or code than the chief", last_line(worker)
    )
    assert chief.wait(MINUTE) == 75
    assert "worker 1" in last_line(chief)


@pytest.mark.parametrize("config", ["not json", '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"index": 0}}'])
def test_a_cluster_that_makes_no_sense_is_one_sentence(nursery: Nursery, tmp_path: Path, config: str) -> None:
    run = nursery.start(write_workspace(tmp_path), environment={"TF_CONFIG": config})
    assert run.wait() == 2
    assert len(run.err.splitlines()) == 1
    assert run.err.startswith(f"train: TF_CONFIG = {config!r}: it must name a cluster's chief and workers")


@pytest.mark.long
def test_two_hosts_from_one_command_are_stopped_and_go_on(tmp_path: Path) -> None:
    folder = write_workspace(tmp_path, {"epochs": 12}, checkpoint_every_steps=5)
    # Nothing is said of TensorFlow's log level: what a person reads is what is wanted here.
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "tasks.train", "--hosts", "2"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    launcher = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
    while launcher.poll() is None and newest_step(folder) < 5:
        time.sleep(POLL)
    launcher.send_signal(signal.SIGTERM)
    out, err = launcher.communicate(timeout=MINUTE)
    assert launcher.returncode == 75, err
    assert "2 replicas on 2 hosts (CPU:0)" in out
    steps = set(re.findall(r"^train(?: on 127\.0\.0\.1:\d+)?: stopped after step (\d+); .*", err, re.MULTILINE))
    assert steps == {str(newest_step(folder))}
    assert len(err.splitlines()) == 2, "TensorFlow's lines belong to no one"
    shorter = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (shorter.returncode, shorter.stderr) == (0, "")
    assert "resuming in epoch" in shorter.stdout
    assert (folder / "model/model.keras").exists()
