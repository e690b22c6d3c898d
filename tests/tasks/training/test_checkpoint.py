import io
import pickle
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from tasks.training.checkpoint import Checkpoint, CheckpointFolder, fingerprint


def checkpoint(step: int) -> Checkpoint:
    arrays = {"weights": [np.full((2, 3), step, np.float32), np.array(step)], "slow": []}
    return Checkpoint(step, (0.1 * step, 2.0, 3.0), [{"validation_loss": 0.1 * step}], arrays)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    folder.save(checkpoint(3))
    loaded, _, problems = folder.load()
    assert loaded is not None
    assert not problems
    assert (loaded.step, loaded.totals, loaded.history) == (3, (0.1 * 3, 2.0, 3.0), [{"validation_loss": 0.1 * 3}])
    np.testing.assert_array_equal(loaded.arrays["weights"][0], np.full((2, 3), 3, np.float32))
    assert loaded.arrays["slow"] == []


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    paths = [folder.save(checkpoint(step)) for step in (1, 2, 11)]
    assert sorted(folder.path.iterdir()) == sorted(paths[1:])


@pytest.mark.parametrize("damage", ["cut", "altered", "emptied"])
def test_an_unsound_checkpoint_is_reported_and_the_one_before_it_used(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    folder.save(checkpoint(1))
    newest = folder.save(checkpoint(2))
    data = bytearray(newest.read_bytes())
    data[200] ^= 1
    newest.write_bytes({"cut": bytes(data[:100]), "altered": bytes(data), "emptied": b""}[damage])
    loaded, _, problems = folder.load()
    assert loaded is not None
    assert loaded.step == 1
    assert len(problems) == 1
    assert newest.name in problems[0]


def test_a_run_that_went_back_keeps_what_it_saves_below_unsound_ones(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    for path in [folder.save(checkpoint(step)) for step in (150, 160)]:
        path.write_bytes(b"")
    assert folder.load()[0] is None
    for step in (10, 20, 30):
        path = folder.save(checkpoint(step))
        loaded, found, _ = CheckpointFolder(tmp_path, "run").load()
        assert loaded is not None
        assert (loaded.step, found) == (step, path)
    steps = [[int(path.name[5:13]) for path in folder.files()]]
    for step in (155, 165, 175):
        folder.save(checkpoint(step))
        steps.append([int(path.name[5:13]) for path in folder.files()])
    assert steps == [[20, 30, 150, 160], [30, 155, 160], [155, 165], [165, 175]]


def test_one_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    sound, broken = folder.save(checkpoint(1)), folder.save(checkpoint(2))
    broken.unlink()
    broken.symlink_to("/proc/self/mem")  # whose first page cannot be read, like a bad sector
    loaded, path, problems = folder.load()
    assert loaded is not None
    assert (loaded.step, path, folder.newest_step()) == (1, sound, 1)
    assert problems == [f"checkpoint {broken.name} cannot be read (Input/output error) and is passed over"]


def test_a_folder_that_may_not_be_read_is_no_reason_to_start_again(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    newest = folder.save(checkpoint(1))
    newest.unlink()
    newest.mkdir()  # reading it fails with another error than a bad sector's
    with pytest.raises(IsADirectoryError):
        folder.load()


def test_another_run_has_another_folder(tmp_path: Path) -> None:
    source = tmp_path / "code.py"
    source.write_text("a = 1")
    runs = {fingerprint({"seed": 0}, {"code.py": source}), fingerprint({"seed": 1}, {"code.py": source})}
    source.write_text("a = 2")
    runs.add(fingerprint({"seed": 0}, {"code.py": source}))
    assert len(runs) == 3
    first, second, _ = (CheckpointFolder(tmp_path, run) for run in sorted(runs))
    first.save(checkpoint(1))
    assert second.load() == (None, None, [])


def test_removed_checkpoints_leave_nothing(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    folder.save(checkpoint(1))
    folder.remove()
    assert not folder.path.exists()
    folder.remove()


def under_its_sha256(folder: CheckpointFolder, step: int, data: bytes) -> Path:
    path = folder.path / f"step-{step:08d}-{sha256(data).hexdigest()}.npz"
    path.write_bytes(data)
    return path


def npz(**members: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **members)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def facts(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        pickle.dumps([1, 2]),
        npy(np.zeros(3)),
        npz(),
        npz(other=np.zeros(3)),
        npz(**{"facts.json": facts("{")}),
        npz(**{"facts.json": facts("[]")}),
        npz(**{"facts.json": facts("7")}),
        npz(**{"facts.json": facts('{"run": "run"}')}),
        npz(**{"facts.json": facts('{"run": "run", "groups": {"weights": 2}, "step": 9, "history": []}')}),
        npz(**{"facts.json": facts('{"run": "run", "groups": [], "step": 9, "history": [], "totals": [1, 2, 3]}')}),
        npz(**{"facts.json": facts('{"run": "run", "groups": {}, "step": 9, "history": [], "totals": 7}')}),
        npz(**{"facts.json": np.array(7.5)}),
    ],
)
def test_garbage_under_its_right_sha256_is_passed_over(tmp_path: Path, data: bytes) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    folder.save(checkpoint(1))
    path = under_its_sha256(folder, 9, data)
    loaded, _, problems = folder.load()
    assert loaded is not None
    assert loaded.step == 1
    assert problems == [f"checkpoint {path.name} is not a checkpoint and is passed over"]


def test_a_checkpoint_of_another_run_is_passed_over(tmp_path: Path) -> None:
    ours, theirs = CheckpointFolder(tmp_path, "run"), CheckpointFolder(tmp_path, "another")
    ours.save(checkpoint(1))
    foreign = Path(shutil.copy(theirs.save(checkpoint(9)), ours.path))
    loaded, _, problems = ours.load()
    assert loaded is not None
    assert loaded.step == 1
    assert problems == [f"checkpoint {foreign.name} belongs to another run and is passed over"]


def test_what_a_killed_save_left_is_removed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    path = folder.save(checkpoint(1))
    (folder.path / ".step-00000002.7.tmp").write_bytes(b"half")
    assert folder.load()[0] is not None
    assert list(folder.path.iterdir()) == [path]
