"""Image folders in archives: every pixel, in order, or a sentence."""

from pathlib import Path

import numpy as np
import pytest

from tasks.data.folders import read_folders
from tasks.data.labelled import UNASSIGNED
from tasks.stage.errors import InputError
from tests.fixtures.archives import colour_images, encoded, write_tar, write_zip


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_folders_keep_every_pixel_in_sorted_order(tmp_path: Path, suffix: str) -> None:
    stream = np.random.default_rng(0)
    pixels = {f"{label}/{n}.png": stream.integers(0, 256, (16, 16, 3), dtype=np.uint8) for label in "ba" for n in "21"}
    write = write_zip if suffix == ".zip" else write_tar
    archive = write(tmp_path / f"a{suffix}", {name: encoded(image) for name, image in pixels.items()})
    data = read_folders(archive, 16, "squash", tmp_path / "scratch")
    assert data.classes == ("a", "b")
    assert data.arrays.labels.tolist() == [0, 0, 1, 1]
    assert (data.published == UNASSIGNED).all()
    np.testing.assert_array_equal(data.arrays.images, [pixels[name] for name in sorted(pixels)])
    assert isinstance(data.arrays.images, np.memmap)


def test_folders_with_splits(tmp_path: Path, folders_archive: Path) -> None:
    data = read_folders(folders_archive, 8, "squash", tmp_path / "scratch")
    assert data.arrays.images.shape == (150, 8, 8, 3)
    assert np.bincount(data.published + 1).tolist() == [0, 120, 0, 30]
    assert data.separate_duplicates


def test_folders_with_a_corrupt_image_name_it(tmp_path: Path) -> None:
    files = colour_images(3)
    files["red/00001.png"] = files["red/00001.png"][:100]
    archive = write_tar(tmp_path / "a.tar.gz", files)
    with pytest.raises(InputError, match=r"a\.tar\.gz: red/00001\.png is not an image that can be read"):
        read_folders(archive, 32, "squash", tmp_path / "scratch")


def test_folders_with_a_bad_layout_say_so_before_decoding(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar.gz", {"cat/1.png": b"no image"})
    with pytest.raises(InputError, match=r"a\.tar\.gz: the archive holds the one class 'cat'"):
        read_folders(archive, 32, "squash", tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_a_few_files_that_cannot_be_read_are_set_aside(tmp_path: Path) -> None:
    files = colour_images(60)
    sound = read_folders(write_tar(tmp_path / "sound.tar", files), 16, "squash", tmp_path / "a")
    bad = {"blue/00030b.png": b"\x89PNG\r\n\x1a\n", "red/zz.png": b"no image", "red/00000a.png": b""}
    read = read_folders(
        write_tar(tmp_path / "bad.tar", files | bad), 16, "squash", tmp_path / "b", max_quarantined=0.05
    )
    assert np.array_equal(read.arrays.images, sound.arrays.images)
    assert np.array_equal(read.arrays.labels, sound.arrays.labels)
    assert (read.paths, read.sha256) == (sound.paths, sound.sha256)
    assert [path for path, _ in read.quarantine] == sorted(bad)
    assert read.quarantine[2][1] == "red/zz.png is not an image that can be read: unknown format"


def test_more_than_may_be_set_aside_of_a_class_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", colour_images(60) | {"red/a.png": b"x", "red/b.png": b"y"})
    sentence = r"2 of the 62 images of class 'red' cannot be read, and split.max_quarantined = 0.03 is the share"
    with pytest.raises(InputError, match=sentence):
        read_folders(archive, 16, "squash", tmp_path / "b", max_quarantined=0.03)
    assert len(read_folders(archive, 16, "squash", tmp_path / "b", max_quarantined=0.04).quarantine) == 2
    none = write_tar(tmp_path / "none.tar", colour_images(4) | {"void/a.png": b"x"})
    with pytest.raises(InputError, match="1 of the 1 images of class 'void' cannot be read"):
        read_folders(none, 16, "squash", tmp_path / "b", max_quarantined=1)
