"""CIFAR-10's binary archive: read whole, or refused by name."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.data.cifar10 import read_cifar10
from tasks.stage.errors import InputError
from tests.fixtures.archives import CIFAR10_CLASSES, CIFAR10_FOLDER, RECORD_BYTES, cifar10_files, write_tar

Files = dict[str, bytes]
BATCH = f"{CIFAR10_FOLDER}/data_batch_3.bin"
NAMES = f"{CIFAR10_FOLDER}/batches.meta.txt"


@pytest.fixture(scope="module")
def files() -> Files:
    return cifar10_files()


def test_cifar10_planes_become_pixels(cifar10_archive: Path) -> None:
    data = read_cifar10(cifar10_archive)
    assert data.arrays.images.shape == (60_000, 32, 32, 3)
    assert data.classes == CIFAR10_CLASSES
    assert data.arrays.labels.tolist() == [index % 10 for index in range(60_000)]
    assert (data.published[:50_000] == 0).all()
    assert (data.published[50_000:] == 2).all()
    assert (data.arrays.images[:, 0, 1] == [77, 0, 0]).all()
    assert (data.arrays.images[:, 1:] == 0).all()
    corners = data.arrays.images[:, 0, 0].astype(int)
    index = np.arange(60_000)
    np.testing.assert_array_equal(corners[:, 0], index // 10_000 + 1)
    np.testing.assert_array_equal(corners[:, 1] * 256 + corners[:, 2], index % 10_000)


def test_cifar10_members_come_in_any_order(tmp_path: Path, files: Files) -> None:
    data = read_cifar10(write_tar(tmp_path / "a.tar", dict(reversed(files.items()))))
    np.testing.assert_array_equal(data.arrays.images[:, 0, 0, 0], np.arange(60_000) // 10_000 + 1)


def replaced(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: {**files, name: change(files[name])}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda files: {name: data for name, data in files.items() if name != BATCH}, "lacks the member .*batch_3"),
        (lambda files: {name: data for name, data in files.items() if name != NAMES}, "lacks the member .*meta"),
        (replaced(BATCH, lambda data: data + b"\0"), r"batch_3\.bin is too long: 30,730,001 bytes instead of"),
        (replaced(BATCH, lambda data: data[:-RECORD_BYTES]), r"batch_3\.bin is too short: 30,726,927 bytes"),
        (replaced(BATCH, lambda data: data[: 7 * RECORD_BYTES] + b"\x0a" + data[7 * RECORD_BYTES + 1 :]),
         r"batch_3\.bin gives image 7 the label 10, above 9"),
        (replaced(NAMES, lambda data: b"cat\n" * 10), "does not name 10 different classes"),
        (replaced(NAMES, lambda data: data + b"frigate\n"), "does not name 10 different classes"),
        (replaced(NAMES, lambda data: b"\xff" * 9), "is not text"),
        (replaced(NAMES, lambda data: data * 100), "too long"),
        (lambda files: {**files, f"./{BATCH}": files[BATCH]}, "batch_3.bin' twice"),
    ],
)  # fmt: skip
def test_cifar10_archive_that_is_wrong_is_named(
    tmp_path: Path, files: Files, change: Callable[[Files], Files], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        read_cifar10(write_tar(tmp_path / "a.tar", change(files)))


def test_cifar10_archive_that_is_truncated_is_named(tmp_path: Path, cifar10_archive: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(cifar10_archive.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"a\.tar\.gz is truncated"):
        read_cifar10(path)


@pytest.mark.cifar10
@pytest.mark.skipif("CIFAR10_ARCHIVE" not in os.environ, reason="CIFAR10_ARCHIVE does not name the real archive")
def test_real_cifar10_is_whole() -> None:
    data = read_cifar10(Path(os.environ["CIFAR10_ARCHIVE"]))
    assert data.classes == CIFAR10_CLASSES
    assert np.bincount(data.arrays.labels[data.published == 0]).tolist() == [5000] * 10
    assert np.bincount(data.arrays.labels[data.published == 2]).tolist() == [1000] * 10
    means = data.arrays.images[:50_000].mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.002)
