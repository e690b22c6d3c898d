"""Reading an archive by the kind of data set that it is."""

from pathlib import Path

from tasks.data.arrays import Fit
from tasks.data.cifar10 import read_cifar10
from tasks.data.digits import read_digits
from tasks.data.folders import read_folders, read_snapshot
from tasks.data.labelled import LabelledImages
from tasks.data.snapshot import SNAPSHOT_NAME
from tasks.stage.errors import InputError


def read_images(
    dataset: str, archive: Path, image_size: int, fit: Fit, scratch: Path, max_quarantined: float = 0.0
) -> LabelledImages:
    """Read all images and labels of an archive.

    Args:
        dataset: `cifar10`, `folders` or `digits`.
        archive: The archive, or the table of a snapshot.
        image_size: Height and width in pixels to which images of `folders` are brought; the others have their own.
        fit: How, as tasks.data.images has it.
        scratch: A file that may be made for decoded images; it must outlive the result.
        max_quarantined: What share of people's own images may be set aside because they cannot be read.

    Raises:
        InputError: The data set is not known, or the archive is not what it should be.
    """
    if dataset == "cifar10":
        return read_cifar10(archive)
    if dataset == "folders":
        read = read_snapshot if archive.name == SNAPSHOT_NAME else read_folders
        return read(archive, image_size, fit, scratch, max_quarantined)
    if dataset == "digits":
        return read_digits(archive)
    raise InputError(f"{archive.parent} holds the data set {dataset!r}, which split does not know")
