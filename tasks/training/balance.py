"""How much an image's loss counts, by how many images its class has: unequal classes, brought nearer to one another."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def class_weights(labels: NDArray[np.int32], classes: int, balance: float) -> NDArray[np.float64]:
    """Return a weight for each class, (classes,), whose mean over the images is 1.

    Each is the inverse of the class's share of the images to the power `balance`: 0 leaves all images equal, 1 gives
    every class the same sum (inverse frequency, as King and Zeng 2001, Logistic Regression in Rare Events Data, weigh).

    Args:
        labels: (N,), N at least 1.
        classes: A class that has no image gets the weight 1, which nothing asks for.
        balance: 0 to 1.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.where(counts > 0, np.maximum(counts, 1) / len(labels), 1.0) ** -balance
    weights[counts == 0] = 1.0
    scaled: NDArray[np.float64] = np.where(counts > 0, weights * len(labels) / (counts @ weights), 1.0)
    return scaled


def by_label(weights: NDArray[np.float64]) -> Mapping[int, float]:
    """Return the weights as scikit-learn takes them."""
    return dict(enumerate(weights.tolist()))
