"""What every source of data gives: images with labels, in the archive's order."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tasks.data.arrays import SQUASH, Arrays, Fit
from tasks.data.stable import group_of

UNASSIGNED = -1


@dataclass(frozen=True)
class LabelledImages:
    """A data set as its archive holds it.

    Attributes:
        arrays: All images and labels, in the archive's order; the images may be memory-mapped.
        classes: Names in label order.
        published: int8 (N,): position in SPLITS of the split that the archive puts an image in, UNASSIGNED for none.
        separate_duplicates: Whether byte-identical images are kept out of validation and test. Not so for a published
            benchmark, whose test set must stay whole for its figures to be comparable.
        paths: Of the images' files in the archive; empty where they have none.
        file_sha256: Of the bytes of those files; empty where there are none.
        groups: Who belongs together, where labels.csv says it: a name each, empty for none; empty where there is none.
        quarantine: Files that could not be read and are no part of the set: the path of each, and why.
        fit: How images of files were brought to their size.
    """

    arrays: Arrays
    classes: tuple[str, ...]
    published: NDArray[np.int8]
    separate_duplicates: bool
    paths: tuple[str, ...] = ()
    file_sha256: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    quarantine: tuple[tuple[str, str], ...] = ()
    fit: Fit = SQUASH

    @property
    def sha256(self) -> tuple[str, ...]:
        """What each image is known by: the sha256 of its file, or of its pixels where it has none."""
        return self.file_sha256 or self.pixel_sha256

    def group_names(self, expression: str | None) -> list[str]:
        """Return of each image the group that labels.csv gives it, or else that an expression finds in its name."""
        given = self.groups or ("",) * len(self.sha256)
        names = [PurePosixPath(path).name for path in self.paths] or [""] * len(self.sha256)
        return [one or group_of(name, expression) or "" for one, name in zip(given, names, strict=True)]

    @cached_property
    def pixel_sha256(self) -> tuple[str, ...]:
        """The sha256 of each image's pixels, as the arrays have them."""
        return tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in self.arrays.images)
