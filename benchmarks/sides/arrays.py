"""The images that every side trains on. Random: speed does not depend on what they show."""

import numpy as np
from numpy.typing import NDArray

CLASSES = 10
SHAPE = (32, 32, 3)


def random_samples(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return (count, 32, 32, 3) uint8 images and (count,) int32 labels, always the same."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return images, generator.integers(0, CLASSES, count).astype(np.int32)
