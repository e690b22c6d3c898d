"""The CIFAR-10 archive, with batches of four images so that mutations reach the records."""

import io
import tarfile
from unittest.mock import patch

from tasks.data import cifar10
from tasks.stage.errors import InputError
from tests.fuzz.scratch import file_of
from tests.fuzz.tar_checksums import with_checksums

IMAGES = 4
NAMES = "airplane automobile bird cat deer dog frog horse ship truck"


def check(data: bytes) -> bool:
    """Read bytes as the archive; they give images and labels of the right shape, or an InputError."""
    try:
        with patch.multiple(cifar10, IMAGES_PER_BATCH=IMAGES, BATCH_BYTES=IMAGES * cifar10.RECORD_BYTES):
            read = cifar10.read_cifar10(file_of(with_checksums(data)))
    except InputError:
        return False
    count = len(cifar10.BATCHES) * IMAGES
    assert read.arrays.images.shape == (count, *cifar10.IMAGE_SHAPE)
    assert 0 <= read.arrays.labels.min() <= read.arrays.labels.max() < len(set(read.classes)) == cifar10.CLASSES
    return True


def seeds() -> dict[str, bytes]:
    """Return sound archives, one of them compressed, and one with a name too long for a plain header."""
    record = bytes([3]) + bytes(range(256)) * 12
    files = {f"{cifar10.FOLDER}/{name}": record * IMAGES for name in cifar10.BATCHES}
    files[f"{cifar10.FOLDER}/{cifar10.NAMES}"] = NAMES.replace(" ", "\n").encode()
    plain = _tar(files, "w")
    return {
        "plain.tar": plain,
        "compressed.tar.gz": _tar(files, "w:gz"),
        "long-name.tar": _tar({**files, f"{cifar10.FOLDER}/{'n' * 200}": b"x"}, "w"),
    }


def _tar(files: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, body in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(body)
            tar.addfile(header, io.BytesIO(body))
    return buffer.getvalue()
