from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.training.rows import read_rows


def mapped(path: Path, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    np.save(path, np.random.default_rng(rows).integers(0, 256, (rows, *shape), dtype=np.uint8))
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.integers(1, 40),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    start=st.integers(0, 10),
    step=st.sampled_from([1, 2]),
    data=st.data(),
)
def test_rows_are_those_of_plain_indexing(
    tmp_path: Path, rows: int, shape: list[int], start: int, step: int, data: st.DataObject
) -> None:
    whole = mapped(tmp_path / "images.npy", rows, tuple(shape))
    for array in (whole, whole[min(start, rows - 1) :: step], np.asarray(whole).copy()):
        drawn = data.draw(st.lists(st.integers(0, len(array) - 1), max_size=20))
        indices = np.array(drawn, np.int32)
        rows_read = read_rows(array, indices)
        np.testing.assert_array_equal(rows_read, array[indices])
        assert rows_read.dtype == np.uint8


def test_a_file_that_became_short_is_an_error_and_no_zeros(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    array = mapped(path, 10, (4, 4, 3))
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 1)
    read_rows(array, np.array([8], np.int32))
    with pytest.raises(OSError, match=r"images\.npy ends before its row 9"):
        read_rows(array, np.array([8, 9], np.int32))
