import threading
from pathlib import Path

import numpy as np
import pytest

from tasks.training.checkpoint import Checkpoint, CheckpointFolder
from tasks.training.saver import Saver


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, arrays={"weights": [np.zeros(3, np.float32)]})


def test_steps_decide_when_to_save(tmp_path: Path) -> None:
    saver = Saver(CheckpointFolder(tmp_path, "run"), every_steps=10)
    assert [step for step in range(1, 31) if saver.due(step)] == [10, 20, 30]


def test_seconds_decide_as_well(tmp_path: Path) -> None:
    assert not Saver(CheckpointFolder(tmp_path, "run"), every_seconds=3600).due(1)
    hasty = Saver(CheckpointFolder(tmp_path, "run"), every_seconds=0)
    assert hasty.due(1)


def test_what_stands_is_known_once_it_is_on_the_disk(tmp_path: Path) -> None:
    saver = Saver(CheckpointFolder(tmp_path, "run"))
    assert saver.standing() == "no checkpoint was saved"
    saver.save(checkpoint(3))
    standing = saver.standing()
    (path,) = saver.folder.files()
    assert standing == f"the last good checkpoint is {path}"
    saver.close()
    again = Saver(CheckpointFolder(tmp_path, "run"))
    loaded = again.load()
    assert loaded is not None
    assert again.last == path


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, value: float) -> None:
    warned: list[str] = []
    saver = Saver(CheckpointFolder(tmp_path, "run"), warn=warned.append)
    saver.save(checkpoint(3))
    saver.save(Checkpoint(4, arrays={"weights": [np.array([0, value, 0], np.float32)]}))
    saver.close()
    assert [saver.last] == saver.folder.files()
    assert "step-00000003" in str(saver.last)
    assert warned == ["step 4 is not saved: a weight or a moment is no finite number"]


def test_a_loaded_checkpoint_is_the_one_that_stands_and_unsound_ones_are_warned_of(tmp_path: Path) -> None:
    warned: list[str] = []
    saver = Saver(CheckpointFolder(tmp_path, "run"), warn=warned.append)
    saver.save(checkpoint(1))
    saver.save(checkpoint(2))
    saver.flush()
    first, second = saver.folder.files()
    second.write_bytes(b"")
    loaded = saver.load()
    assert loaded is not None
    assert (loaded.step, saver.last) == (1, first)
    assert warned == [f"checkpoint {second.name} does not match its sha256 and is passed over"]


def test_training_does_not_wait_for_the_disk_and_saves_come_one_after_the_other(tmp_path: Path) -> None:
    slow, mirrored = threading.Event(), list[Path]()

    def mirror(path: Path) -> None:
        assert slow.wait(60)
        mirrored.append(path)

    saver = Saver(CheckpointFolder(tmp_path, "run"), mirror=mirror)
    saver.save(checkpoint(1))
    assert mirrored == []
    slow.set()
    saver.save(checkpoint(2))
    saver.close()
    assert mirrored == saver.folder.files()


@pytest.mark.parametrize("obstacle", ["file in the way", "mirror that raises"])
def test_what_goes_wrong_is_a_warning(tmp_path: Path, obstacle: str) -> None:
    warned: list[str] = []

    def mirror(_path: Path) -> None:
        raise RuntimeError("out of order")

    saver = Saver(CheckpointFolder(tmp_path / "root", "run"), mirror=mirror, warn=warned.append)
    if obstacle == "file in the way":
        (tmp_path / "root").write_text("no folder")
        expected = "step 1 could not be saved: Not a directory; there is none before it"
    else:
        expected = "step 1 could not be mirrored: out of order"
    saver.save(checkpoint(1))
    saver.close()
    assert warned == [expected]
