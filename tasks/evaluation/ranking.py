"""How well the probability of a class ranks the images of two classes, whatever threshold is chosen later.

The positive class is the second in label order: of `healthy` and `sick`, which is the alphabet's order, `sick`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics import Counts, Floats, Labels, Probabilities, log_probabilities

POSITIVE = 1  # position of the positive class


@dataclass(frozen=True)
class Ranking:
    """Two classes' images, from the surest positive to the surest negative; those of equal score come in together.

    Attributes:
        true_positives, false_positives: Of the images down to each distinct score, how many are of the positive class
            and how many are not; int64 (S,), the last ones being all.
    """

    true_positives: Counts
    false_positives: Counts

    @property
    def recall(self) -> Floats:
        """Share of the positive images that is found, down to each score: the true positive rate; float64 (S,)."""
        return self.true_positives / self.true_positives[-1]

    @property
    def false_positive_rate(self) -> Floats:
        """Share of the other images that is taken for positive; float64 (S,)."""
        return self.false_positives / self.false_positives[-1]

    @property
    def precision(self) -> Floats:
        """Share of the images taken for positive that is; float64 (S,)."""
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def roc_auc(self) -> float:
        """Area under recall over the false positive rate, by trapezoids.

        It is the share of pairs of a positive and another image in which the positive one has the higher score, ties
        counted half (Hanley and McNeil 1982, Radiology 143:29-36, doi 10.1148/radiology.143.1.7063747).
        """
        found, others = (np.concatenate([[0], counts]) for counts in (self.true_positives, self.false_positives))
        twice = int(np.sum((found[1:] + found[:-1]) * np.diff(others)))  # whole numbers: nothing is rounded before here
        return twice / (2 * int(found[-1]) * int(others[-1]))

    @property
    def average_precision(self) -> float:
        """Mean precision over the steps of recall, without interpolation between them."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))


def ranking(probabilities: Probabilities, labels: Labels) -> Ranking | None:
    """Return how probabilities (N, 2) rank images with labels (N,), or None unless both of two classes have images.

    Images are ranked by the logarithm of their odds: probabilities near 1 that float32 rounds to one number still
    differ by what is left to the other class.
    """
    if probabilities.shape[1] != 2 or len(np.unique(labels)) < 2:
        return None
    logarithms = log_probabilities(probabilities)
    return ranking_by(logarithms[:, POSITIVE] - logarithms[:, 1 - POSITIVE], labels == POSITIVE)


def ranking_by(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> Ranking:
    """Return how scores (N,), higher for surer, rank images of which some, but not all, are positive (N,)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each group of equal scores
    true_positives = np.cumsum(positive[order], dtype=np.int64)[last]
    return Ranking(true_positives, last + 1 - true_positives)
