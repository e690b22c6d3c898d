"""The stage split, on real archives, as a command and as a function."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks.data.arrays import SPLITS, Fit, load_arrays, load_split_record
from tasks.data.digits import bundled_digits
from tasks.data.images import decode_image
from tasks.params.data import SplitParams
from tasks.split import split
from tasks.stage.errors import InputError
from tests.fixtures.archives import CIFAR10_FOLDER, colour_images, make_raw, wide_images, write_tar

REPOSITORY = Path(__file__).parents[2]
STRATIFIED = SplitParams(method="stratified", validation_fraction=0.1)
TAIL = SplitParams(method="tail", validation_fraction=0.1)


def command(workspace: Path, stage: str) -> subprocess.CompletedProcess[str]:
    """Run a stage as a person does, in a folder with the repository's own params.yaml unless it has one."""
    if not (workspace / "params.yaml").exists():
        (workspace / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", f"tasks.{stage}"],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_cifar10_stratified(tmp_path: Path, cifar10_archive: Path) -> None:
    raw = make_raw(tmp_path / "raw", "cifar10", cifar10_archive)
    split(STRATIFIED, raw, tmp_path / "split")
    record = load_split_record(tmp_path / "split")
    assert (record.dataset, record.image_shape, record.method, record.seed) == ("cifar10", (32, 32, 3), "stratified", 0)
    for name, count in zip(SPLITS, (4500, 500, 1000), strict=True):
        assert record.counts[name] == {"total": count * 10, "per_class": dict.fromkeys(record.classes, count)}
        assert np.bincount(load_arrays(tmp_path / "split", name).labels).tolist() == [count] * 10


def test_cifar10_tail_is_the_authors(tmp_path: Path, cifar10_archive: Path) -> None:
    raw = make_raw(tmp_path / "raw", "cifar10", cifar10_archive)
    split(TAIL, raw, tmp_path / "split")
    corners = load_arrays(tmp_path / "split", "validation").images[:, 0, 0].astype(int)
    positions = (corners[:, 0] - 1) * 10_000 + corners[:, 1] * 256 + corners[:, 2]
    assert positions.tolist() == list(range(45_000, 50_000))


@pytest.mark.cifar10
@pytest.mark.skipif("CIFAR10_ARCHIVE" not in os.environ, reason="CIFAR10_ARCHIVE does not name the real archive")
def test_real_cifar10_is_split_whole(tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "raw", "cifar10", Path(os.environ["CIFAR10_ARCHIVE"]))
    split(STRATIFIED, raw, tmp_path / "split")
    arrays = {name: load_arrays(tmp_path / "split", name) for name in SPLITS}
    assert sum(len(part.images) for part in arrays.values()) == 60_000
    given_to_train = np.concatenate([arrays["train"].labels, arrays["validation"].labels])
    assert np.bincount(given_to_train).tolist() == [5000] * 10
    assert np.bincount(arrays["test"].labels).tolist() == [1000] * 10


def test_record_vouches_for_the_arrays(tmp_path: Path, folders_archive: Path) -> None:
    split(STRATIFIED, make_raw(tmp_path / "raw", "folders", folders_archive), tmp_path / "split")
    record = load_split_record(tmp_path / "split")
    for name in SPLITS:
        arrays = load_arrays(tmp_path / "split", name)
        content = hashlib.sha256(arrays.images.tobytes() + arrays.labels.tobytes()).hexdigest()
        assert record.content_sha256[name] == content
        assert record.counts[name]["total"] == len(arrays.labels)
    assert len(set(record.index_sha256.values())) == 3
    assert [record.counts[name]["total"] for name in SPLITS] == [108, 12, 30]
    assert set(record.counts["test"]["per_class"].values()) == {10}


def test_equal_input_gives_equal_bytes_and_another_seed_does_not(tmp_path: Path, folders_archive: Path) -> None:
    raw = make_raw(tmp_path / "raw", "folders", folders_archive)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        split(STRATIFIED.model_copy(update={"seed": seed}), raw, tmp_path / name)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")
    assert folder_bytes(tmp_path / "a") != folder_bytes(tmp_path / "c")
    expected = {f"{name}_{kind}.npy" for name in SPLITS for kind in ("images", "labels")} | {
        "split.json",
        "index.csv",
        "copies.csv",
        "quarantine.csv",
        "fit_hashes.npy",
        "test_hashes.npy",
    }
    assert set(folder_bytes(tmp_path / "a")) == expected


def test_photos_are_fitted_as_is_recorded_and_it_moves_none_to_another_split(tmp_path: Path) -> None:
    files, indices = wide_images(20), set()
    raw = make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "images.tar", files))
    for fit in get_args(Fit):
        params = SplitParams(method="stable", validation_fraction=0.1, test_fraction=0.2, image_size=12, fit=fit)
        split(params, raw, tmp_path / fit)
        assert load_split_record(tmp_path / fit).fit == fit
        with (tmp_path / fit / "index.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        images = np.concatenate([load_arrays(tmp_path / fit, name).images for name in SPLITS])
        for row, image in zip(rows, images, strict=True):
            np.testing.assert_array_equal(image, decode_image(files[row["path"]], "a", 12, fit))
        indices.add((tmp_path / fit / "index.csv").read_bytes())
    assert len(indices) == 1


def test_images_that_have_a_size_of_their_own_are_not_fitted(tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "raw", "digits", bundled_digits())
    for fit in get_args(Fit):
        split(STRATIFIED.model_copy(update={"fit": fit}), raw, tmp_path / fit)
    assert folder_bytes(tmp_path / "crop") == folder_bytes(tmp_path / "pad") == folder_bytes(tmp_path / "squash")
    assert "fit" not in json.loads((tmp_path / "crop" / "split.json").read_text())


def test_duplicates_in_folders_are_kept_out_of_the_test_set(tmp_path: Path) -> None:
    files = colour_images(10, ("train",), seed=1) | colour_images(5, ("test",), seed=2)
    files["test/red/copy.png"] = files["train/red/00003.png"]
    raw = make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "a.tar", files))
    split(STRATIFIED, raw, tmp_path / "split")
    record = load_split_record(tmp_path / "split")
    assert record.counts["test"]["total"] == 15
    assert record.duplicates["across"]["train+test"] == 1
    assert record.duplicates["dropped"] == {"train": 0, "validation": 0, "test": 1}


def test_digits_as_a_command(tmp_path: Path) -> None:
    make_raw(tmp_path / "data" / "raw", "digits", bundled_digits())
    done = command(tmp_path, "split")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1,374 train, 153 validation, 270 test images of 10 classes\n"
    assert load_split_record(tmp_path / "data" / "split").dataset == "digits"


GOOD = colour_images(4)
BAD_FOLDERS = {
    "one class": ({"cat/1.png": GOOD["red/00000.png"]}, "the archive holds the one class 'cat'"),
    "corrupt image": ({**GOOD, "red/00000.png": GOOD["red/00000.png"][:80]}, "red/00000.png is not an image"),
    "text": ({**GOOD, "red/notes.txt": b"red"}, "red/notes.txt is not an image that can be read: unknown format"),
    "climbing": ({**GOOD, "../evil.png": b""}, "path is absolute or climbs out of the archive: '../evil.png'"),
    "too small": ({name: GOOD[name] for name in list(GOOD)[::4]}, "no image is left for"),
}


def assert_refused(workspace: Path, stage: str, sentence: str, status: int = 2) -> str:
    """The command ends with this status and one sentence, and leaves its output as it was; return what it printed."""
    output = workspace / "data" / ("split" if stage == "split" else "raw")
    output.mkdir(parents=True, exist_ok=True)
    (output / "before").write_text("stays")
    before = folder_bytes(output)
    done = command(workspace, stage)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(f"{stage}: ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
    assert folder_bytes(output) == before
    assert {path.name for path in output.parent.iterdir()} <= {"raw", "split"}
    return done.stdout


def test_costs_of_no_class_are_refused_before_anything_is_trained(tmp_path: Path, folders_archive: Path) -> None:
    make_raw(tmp_path / "data" / "raw", "folders", folders_archive)
    text = (REPOSITORY / "params.yaml").read_text()
    assert "costs: {}" in text
    (tmp_path / "params.yaml").write_text(text.replace("costs: {}", "costs: {rde: 10}"))
    assert_refused(tmp_path, "split", "evaluate.costs: 'rde' is no class, and no two of them as 'actual > answered'; ")


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders_archive_is_refused(tmp_path: Path, name: str) -> None:
    files, sentence = BAD_FOLDERS[name]
    make_raw(tmp_path / "data" / "raw", "folders", write_tar(tmp_path / "a.tar.gz", files))
    assert_refused(tmp_path, "split", sentence)


def test_folders_archive_with_an_empty_class_is_refused(tmp_path: Path) -> None:
    make_raw(tmp_path / "data" / "raw", "folders", write_tar(tmp_path / "a.tar.gz", GOOD, ["yellow"]))
    assert_refused(tmp_path, "split", "class folder 'yellow' holds no image")


def test_folders_archive_with_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    subprocess.run(["tar", "cf", "a.tar", "link"], cwd=tmp_path, check=True)
    make_raw(tmp_path / "data" / "raw", "folders", tmp_path / "a.tar")
    assert_refused(tmp_path, "split", "link, a device or sparse: 'link'")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<html>not found</html>", "is not a .tar, .tar.gz or .zip archive"),
        (None, "is truncated"),
    ],
)
def test_bad_cifar10_archive_is_refused(
    tmp_path: Path, cifar10_archive: Path, content: bytes | None, sentence: str
) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(cifar10_archive.read_bytes()[:200_000] if content is None else content)
    make_raw(tmp_path / "data" / "raw", "cifar10", archive)
    assert_refused(tmp_path, "split", sentence)


def test_cifar10_archive_without_a_member_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "cifar-10-binary.tar.gz", {f"{CIFAR10_FOLDER}/readme.html": b""})
    make_raw(tmp_path / "data" / "raw", "cifar10", archive)
    assert_refused(tmp_path, "split", f"lacks the member {CIFAR10_FOLDER}/batches.meta.txt")


def test_missing_download_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path, "split", "data/raw/source.json does not exist; run the stage download first")


@pytest.mark.parametrize("value", [0, 1])
def test_fraction_out_of_range_is_named(tmp_path: Path, value: int) -> None:
    params = YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text())
    params["split"]["validation_fraction"] = value
    with (tmp_path / "params.yaml").open("w") as stream:
        YAML().dump(params, stream)
    assert_refused(tmp_path, "split", f"split.validation_fraction = {value}")


def test_disk_that_is_full_before_all_is_decoded_leaves_what_was_there(small_disk: Path) -> None:
    archive = write_tar(small_disk.parent / "a.tar.gz", colour_images(150, side=4))
    make_raw(small_disk / "data" / "raw", "folders", archive)
    assert "[100.0%]" not in assert_refused(small_disk, "split", "No space left on device")


def test_disk_that_is_full_before_all_is_written_leaves_what_was_there(small_disk: Path) -> None:
    archive = write_tar(small_disk.parent / "a.tar.gz", colour_images(60, side=4))
    make_raw(small_disk / "data" / "raw", "folders", archive)
    assert "[100.0%] decoding" in assert_refused(small_disk, "split", "No space left on device")


def test_a_class_without_a_test_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = colour_images(6, splits=("train", "test"))
    files = {name: data for name, data in files.items() if not name.startswith("test/red/")}
    raw = make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "images.tar", files))
    split(STRATIFIED, raw, tmp_path / "split")
    assert "no test image of red: not measured there\n" in capsys.readouterr().out


def test_all_bad_files_are_named_at_once_up_to_ten(tmp_path: Path) -> None:
    files = colour_images(20)
    for number in range(14):
        files[f"red/{number:05d}.png"] = b"" if number % 2 else files["red/00000.png"][:90]
    raw = make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "images.tar", files))
    with pytest.raises(InputError) as caught:
        split(STRATIFIED, raw, tmp_path / "split")
    text = str(caught.value)
    assert [f"red/{number:05d}.png is not an image" in text for number in range(14)] == [True] * 10 + [False] * 4
    assert (
        "; and 4 more; 14 of the 20 images of class 'red' cannot be read, and split.max_quarantined = 0.01 is" in text
    )
    assert not (tmp_path / "split").exists()
