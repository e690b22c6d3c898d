"""The format between the stages."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tasks.data.arrays import (
    IMAGES_AT_ONCE,
    Arrays,
    Fit,
    SplitRecord,
    load_arrays,
    load_split_record,
    save_arrays,
    save_selected,
    save_split_record,
)
from tasks.stage.errors import InputError
from tasks.stage.files import read_json, write_json

COUNT = IMAGES_AT_ONCE + 7
STREAM = np.random.default_rng(0)
ARRAYS = Arrays(STREAM.integers(0, 256, (COUNT, 4, 5, 3), dtype=np.uint8), STREAM.integers(0, 9, COUNT, dtype=np.int32))
RECORD = SplitRecord("digits", ("a", "b"), (4, 5, 3), "stratified", 3, {}, {}, {}, {})


def test_arrays_come_back_memory_mapped_and_read_only(tmp_path: Path) -> None:
    save_arrays(tmp_path, "test", ARRAYS)
    loaded = load_arrays(tmp_path, "test")
    np.testing.assert_array_equal(loaded.images, ARRAYS.images)
    np.testing.assert_array_equal(loaded.labels, ARRAYS.labels)
    assert isinstance(loaded.images, np.memmap)
    assert not loaded.images.flags.writeable


def test_file_is_what_numpy_itself_writes(tmp_path: Path) -> None:
    save_arrays(tmp_path, "test", ARRAYS)
    np.save(tmp_path / "numpy.npy", ARRAYS.images)
    assert (tmp_path / "test_images.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_selection_is_written_in_the_order_asked_for(tmp_path: Path) -> None:
    content = save_selected(tmp_path, "train", ARRAYS, np.array([5, 2, COUNT - 1]))
    loaded = load_arrays(tmp_path, "train")
    np.testing.assert_array_equal(loaded.images, ARRAYS.images[[5, 2, COUNT - 1]])
    np.testing.assert_array_equal(loaded.labels, ARRAYS.labels[[5, 2, COUNT - 1]])
    assert content == save_selected(tmp_path, "test", loaded, np.arange(3))
    assert content != save_selected(tmp_path, "test", loaded, np.array([0, 2, 1]))


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train_images\.npy does not exist; run the stage split first"):
        load_arrays(tmp_path, "train")


@pytest.mark.parametrize("length", [0, 5, 100, 5000])
def test_cut_array_is_named(tmp_path: Path, length: int) -> None:
    save_arrays(tmp_path, "train", ARRAYS)
    path = tmp_path / "train_images.npy"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"train_images\.npy is not a complete array"):
        load_arrays(tmp_path, "train")


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (ARRAYS.images.astype(np.float32), "holds float32"),
        (ARRAYS.images[0], "instead of uint8 with 4 axes"),
        (ARRAYS.images[..., :1].copy(), "has 1 channels"),
        (np.asfortranarray(ARRAYS.images), "C order"),
        (ARRAYS.images[1:], "has 1030 train images but 1031 train labels"),
        (np.array([{"pickled": 1}], dtype=object), "is not a complete array"),
    ],
)
def test_array_of_another_form_is_named(tmp_path: Path, images: np.ndarray, sentence: str) -> None:
    save_arrays(tmp_path, "train", ARRAYS)
    np.save(tmp_path / "train_images.npy", images)
    with pytest.raises(InputError, match=sentence):
        load_arrays(tmp_path, "train")


def test_record_comes_back(tmp_path: Path) -> None:
    save_split_record(tmp_path, RECORD)
    assert load_split_record(tmp_path) == RECORD


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_fit_travels_with_the_record(tmp_path: Path, fit: Fit) -> None:
    save_split_record(tmp_path, replace(RECORD, fit=fit))
    assert read_json(tmp_path / "split.json")["fit"] == fit
    assert load_split_record(tmp_path).fit == fit


def test_a_record_without_fit_means_squash_and_has_the_bytes_that_it_had(tmp_path: Path) -> None:
    save_split_record(tmp_path, RECORD)
    written = (tmp_path / "split.json").read_bytes()
    older = {name: value for name, value in asdict(RECORD).items() if name != "fit"}
    write_json(tmp_path / "split.json", older)
    assert (tmp_path / "split.json").read_bytes() == written
    assert load_split_record(tmp_path).fit == "squash"


def test_a_fit_that_is_not_known_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "split.json", {**asdict(RECORD), "fit": "zoom"})
    with pytest.raises(InputError, match=r"split\.json says fit = 'zoom': known are crop, pad, squash"):
        load_split_record(tmp_path)


def test_record_that_is_missing_or_of_another_form_is_named(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    with pytest.raises(InputError, match=r"split\.json does not exist"):
        load_split_record(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"split\.json is not JSON"):
        load_split_record(tmp_path)
    write_json(path, {**asdict(RECORD), "extra": 1})
    with pytest.raises(InputError, match=r"split\.json does not have exactly the fields"):
        load_split_record(tmp_path)
