"""An archive of labelled images, tar or zip."""

import numpy as np
from PIL import Image

from tasks.data.folders import read_folders
from tasks.stage.errors import InputError
from tests.fixtures.archives import encoded, write_tar, write_zip
from tests.fuzz.scratch import FOLDER, file_of
from tests.fuzz.tar_checksums import with_checksums

SIZE = 8


def check(data: bytes) -> bool:
    """Read bytes as an archive; they give images of one size with labels in range, or an InputError."""
    try:
        read = read_folders(file_of(with_checksums(data)), SIZE, "crop", FOLDER / "decoded")
    except InputError:
        return False
    images, labels = read.arrays.images, read.arrays.labels
    assert images.shape == (len(labels), SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    assert 0 <= labels.min() <= labels.max() < len(read.classes)
    return True


def seeds() -> dict[str, bytes]:
    """Return archives with and without splits, of several formats of image."""
    pixels = np.arange(3 * 16, dtype=np.uint8).reshape(4, 4, 3)
    flat = {"cat/a.png": encoded(pixels), "dog/b.bmp": encoded(pixels, "BMP")}
    split = {f"top/{part}/{name}": body for part in ("train", "test") for name, body in flat.items()}
    return {
        "flat.tar": write_tar(FOLDER / "flat.tar", flat, ["cat", "dog"]).read_bytes(),
        "split.tar.gz": write_tar(FOLDER / "split.tar.gz", split).read_bytes(),
        "flat.zip": write_zip(FOLDER / "flat.zip", flat, ["cat"]).read_bytes(),
        "split.zip": write_zip(FOLDER / "split.zip", split).read_bytes(),
    }


Image.init()  # all formats at once, not when the first image of each comes
