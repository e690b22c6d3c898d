"""scikit-learn's digits, without scikit-learn."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tasks.data.digits import bundled_digits, read_digits
from tasks.stage.errors import InputError


def test_digits_are_scikit_learns() -> None:
    data, truth = read_digits(bundled_digits()), load_digits()
    np.testing.assert_array_equal(data.arrays.labels, truth.target)
    assert data.arrays.images.shape == (1797, 32, 32, 3)
    small = data.arrays.images.reshape(1797, 8, 4, 8, 4, 3).mean(axis=(2, 4, 5))
    assert np.corrcoef(small.ravel(), truth.images.ravel())[0, 1] > 0.98
    assert data.arrays.images.max() == 255


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"text", "is not scikit-learn's file of digits"),
        (gzip.compress(b"1,2,three\n", mtime=0), "is not scikit-learn's file of digits"),
        (gzip.compress(b"1,2,3\n", mtime=0), "holds 1 rows of 3 numbers"),
        (gzip.compress(b",".join([b"17"] * 65) + b"\n", mtime=0)[:-9], "is not scikit-learn's file of digits"),
        (gzip.compress((b",".join([b"17"] * 65) + b"\n") * 1797, mtime=0), "a pixel outside 0 to 16"),
    ],
)
def test_digits_that_are_wrong_are_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_digits(path)
