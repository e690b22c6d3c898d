"""Whether confidence can be believed: how often answers are right against how sure they were said to be."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy in bins of equal width.

    Attributes:
        edges: (bins + 1,), from 0 to 1.
        counts: Images in each bin (bins,).
        confidence: Mean top probability in each bin (bins,); 0 where it is empty.
        accuracy: Top-1 in each bin (bins,); 0 where it is empty.
        expected_error: Mean of |accuracy - confidence|, each bin weighted by its images.
    """

    edges: Floats
    counts: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    expected_error: float


def calibration(probabilities: NDArray[np.float32], labels: NDArray[np.int32], bins: int) -> Calibration:
    """Return confidence against accuracy and the expected calibration error (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    Bin m holds the images whose top probability is in ((m - 1)/bins, m/bins].
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    filled = np.maximum(counts, 1)
    mean_confidence = np.bincount(which, weights=confidence, minlength=bins) / filled
    accuracy = np.bincount(which, weights=correct, minlength=bins) / filled
    error = float(np.sum(counts * np.abs(accuracy - mean_confidence)) / len(labels))
    return Calibration(edges, counts, mean_confidence, accuracy, error)
