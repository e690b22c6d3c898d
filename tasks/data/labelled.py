"""What every source of data gives: images with labels, in the archive's order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.data.arrays import Arrays

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
    """

    arrays: Arrays
    classes: tuple[str, ...]
    published: NDArray[np.int8]
    separate_duplicates: bool
