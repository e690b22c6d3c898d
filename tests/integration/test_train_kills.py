"""The stage train, killed and stopped at any moment: it goes on from its last checkpoint and ends in the same bits."""

import json
import random
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.nursery import Nursery, StageRun
from tests.fixtures.train_workspace import (
    RECIPE,
    checkpoints,
    contents,
    largest_relative_gap,
    newest_step,
    saved_weights,
    write_workspace,
)

STEPS_PER_EPOCH = 13
# The rate falls and training stops before its last epoch: both are decided while the kills go on.
STOPPED_EARLY: dict[str, Any] = {
    "epochs": 40,
    "optimizer": {**RECIPE["optimizer"], "batch_norm_rate_factor": 1},
    "schedule": {"name": "constant", "reduce_factor": 0.3, "reduce_patience": 1, "stop_patience": 3},
}


def finish(nursery: Nursery, folder: Path) -> StageRun:
    run = nursery.start(folder)
    assert run.wait() == 0, run.err
    return run


def wait_for_step(run: StageRun, folder: Path, step: int) -> None:
    assert run.wait_until(lambda: newest_step(folder) >= step), run.err


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".tmp", ".npz", ".old")]


def killed_again_and_again(nursery: Nursery, folder: Path, kills: int) -> None:
    moments = random.Random(0)  # noqa: S311
    for _ in range(kills):
        before = newest_step(folder)
        run = nursery.start(folder)
        # One life in five ends before its first step; a step takes some 20 ms, most of them in its save.
        steps = moments.choice([0, 1, 2, 4, 8])
        wait_for_step(run, folder, before + steps)
        time.sleep(moments.uniform(0, 0.05 if steps else 1.5))
        run.kill()
    assert leftovers(folder), "a killed run leaves its half-written model"
    assert "resuming in epoch" in finish(nursery, folder).out


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_kills_at_any_moment_change_no_bit(nursery: Nursery, tmp_path: Path, kills: int) -> None:
    def both(devices: str) -> tuple[Path, Path]:
        folders = [tmp_path / devices / name for name in ("alone", "killed")]
        alone, killed = (
            write_workspace(folder, STOPPED_EARLY, devices=devices, checkpoint_every_steps=1) for folder in folders
        )
        finish(nursery, alone)
        killed_again_and_again(nursery, killed, kills)
        return alone, killed

    # Side by side: most of a life is spent in Python, on one core.
    with ThreadPoolExecutor() as pool:
        for alone, killed in pool.map(both, ("cpu:1", "cpu:2")):
            training = json.loads((alone / "model/training.json").read_text())
            rates = json.loads((alone / "model/history.json").read_text())["columns"]["learning_rate"]
            assert training["best_epoch"] < training["epochs_run"] < STOPPED_EARLY["epochs"]
            assert rates[-1] < rates[0]
            assert contents(killed / "model") == contents(alone / "model")
            assert not leftovers(killed)


@pytest.mark.long  # test_train_hosts.py goes on with more hosts and fewer
def test_a_run_killed_on_one_device_goes_on_with_several(nursery: Nursery, tmp_path: Path) -> None:
    recipe, train = {"precision": "float64"}, {"checkpoint_every_steps": 1}
    alone = write_workspace(tmp_path / "alone", recipe, **train)
    finish(nursery, alone)
    moved = tmp_path / "moved"
    run = nursery.start(write_workspace(moved, recipe, devices="cpu:1", **train))
    wait_for_step(run, moved, 5)
    run.kill()
    assert "resuming" in finish(nursery, write_workspace(moved, recipe, devices="cpu:4", **train)).out
    # Weights that agree to 1e-10 differ by one rounding to float32, in which the model is published.
    assert largest_relative_gap(saved_weights(moved), saved_weights(alone)) < 2e-7


@pytest.fixture(scope="module")
def left_alone(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | bytes]:
    """What the run of RECIPE leaves when nothing stops it."""
    folder = write_workspace(tmp_path_factory.mktemp("left_alone"))
    finish(nursery, folder)
    return contents(folder / "model")


def assert_stopped(run: StageRun, folder: Path) -> int:
    """Check what a run that was asked to stop says and leaves; return its step."""
    assert run.wait(seconds=30) == 75
    said = re.fullmatch(
        r"train: stopped after step (\d+); the last good checkpoint is (\S+); run it again to go on\n", run.err
    )
    assert said, run.err
    assert checkpoints(folder)[-1] == folder / said[2]
    step = int(said[1])
    assert newest_step(folder) == step
    assert not (folder / "model").exists()
    return step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_has_saved_its_last_step(
    nursery: Nursery, tmp_path: Path, left_alone: dict[str, str | bytes], number: int
) -> None:
    folder = write_workspace(tmp_path)  # saved every minute, and otherwise only where it is stopped
    run = nursery.start(folder)
    assert run.wait_until(lambda: "step 1/13" in run.out), run.err
    time.sleep(0.3)  # some steps further; the first validation alone takes longer
    run.send_signal(number)
    step = assert_stopped(run, folder)
    (saved,) = checkpoints(folder)
    with np.load(saved) as archive:
        epoch = len(json.loads(archive["facts.json"].tobytes())["history"])
    within = step - epoch * STEPS_PER_EPOCH  # all of them where it was stopped in the validation
    again = finish(nursery, folder)
    assert f"resuming in epoch {epoch + 1}, after {within} steps of it ({step} in all)" in again.out
    assert contents(folder / "model") == left_alone


def test_a_run_stopped_before_its_first_step_takes_one_and_saves(nursery: Nursery, tmp_path: Path) -> None:
    folder = write_workspace(tmp_path)
    run = nursery.start(folder)
    assert run.wait_until(lambda: "parameters" in run.out), run.err
    run.send_signal(signal.SIGTERM)
    assert assert_stopped(run, folder) == 1


def test_a_run_stopped_in_its_validation_does_no_step_of_it_again(
    nursery: Nursery, tmp_path: Path, left_alone: dict[str, str | bytes]
) -> None:
    folder = write_workspace(tmp_path, checkpoint_every_steps=STEPS_PER_EPOCH)
    run = nursery.start(folder)
    # The save after an epoch's last step; the first validation, traced then, takes a second.
    wait_for_step(run, folder, STEPS_PER_EPOCH)
    run.send_signal(signal.SIGTERM)
    assert assert_stopped(run, folder) == STEPS_PER_EPOCH
    finish(nursery, folder)
    assert contents(folder / "model") == left_alone


def test_a_kill_in_the_middle_of_a_save_leaves_what_the_next_start_removes(nursery: Nursery, tmp_path: Path) -> None:
    folder = write_workspace(tmp_path, checkpoint_every_steps=1)

    def half_saved() -> list[Path]:
        return list((folder / ".cache/checkpoints").glob("*/.step-*.tmp"))

    def stopped_in_a_save() -> bool:
        if not half_saved() or newest_step(folder) < 2:
            return False
        run.send_signal(signal.SIGSTOP)
        if half_saved():
            return True
        run.send_signal(signal.SIGCONT)
        return False

    run = nursery.start(folder)
    assert run.wait_until(stopped_in_a_save), run.err
    run.kill()
    saved = newest_step(folder)
    assert half_saved()
    again = nursery.start(folder)
    assert again.wait_until(lambda: "resuming" in again.out), again.err
    assert f"({saved} in all)" in again.out
    assert again.wait() == 0
    assert again.err == ""
    assert not leftovers(folder)
