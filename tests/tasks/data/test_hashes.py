"""What images are known by in other data sets: files, pixels, and arrays that come damaged."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tasks.data.hashes import FIT_HASHES, TEST_HASHES, are_among, load_hashes, write_hashes
from tasks.stage.errors import InputError


def sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def written(folder: Path, files: str, pixels: str) -> None:
    """Write the hashes of four images: the first two train, then one validates and one tests."""
    indices = {"train": [0, 1], "validation": [2], "test": [3]}
    places = {name: np.array(each, np.int64) for name, each in indices.items()}
    write_hashes(folder, [sha256(name) for name in files], [sha256(name) for name in pixels], places)


def test_an_image_is_known_by_its_file_and_a_copy_that_was_saved_anew_by_its_pixels(tmp_path: Path) -> None:
    (tmp_path / "then").mkdir()
    (tmp_path / "now").mkdir()
    written(tmp_path / "then", "abcd", "ABCD")
    fit = load_hashes(tmp_path / "then" / FIT_HASHES)
    assert fit.tolist() == sorted(int(sha256(name)[:16], 16) for name in "abcABC")
    for file, pixels, known in (("a", "X", True), ("x", "C", True), ("d", "D", False), ("x", "X", False)):
        written(tmp_path / "now", f"uvw{file}", f"UVW{pixels}")
        assert are_among(load_hashes(tmp_path / "now" / TEST_HASHES), fit).tolist() == [known]


def test_equal_images_give_equal_bytes(tmp_path: Path) -> None:
    for _ in range(2):
        written(tmp_path, "abcd", "ABCD")
    first = (tmp_path / FIT_HASHES).read_bytes()
    written(tmp_path, "bacd", "BACD")  # in another order
    assert (tmp_path / FIT_HASHES).read_bytes() == first


@pytest.mark.parametrize("array", [np.zeros(3, np.int64), np.zeros((2, 3), np.uint64), np.array([{}])])
def test_what_holds_no_hashes_is_refused(
    tmp_path: Path, array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"
) -> None:
    np.save(tmp_path / FIT_HASHES, array)
    with pytest.raises(InputError, match=FIT_HASHES):
        load_hashes(tmp_path / FIT_HASHES)
    (tmp_path / FIT_HASHES).write_bytes((tmp_path / FIT_HASHES).read_bytes()[:90])
    with pytest.raises(InputError, match=FIT_HASHES):
        load_hashes(tmp_path / FIT_HASHES)
    with pytest.raises(InputError, match="run the stage split again"):
        load_hashes(tmp_path / TEST_HASHES)
