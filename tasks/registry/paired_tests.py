"""Tests of whether one model answers worse than another, on the same images: what equal models would show by chance.

Each is exact, or resamples with a fixed seed, so that the same answers give the same p-value on every machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1999  # with what was seen, 2,000 arrangements: a p-value is a multiple of 0.0005
SEED = 20260101
AT_ONCE = 1 << 22  # elements of a block of resamples

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def mcnemar_p_value(lost: int, won: int) -> float:
    """Return the one-sided p-value of McNemar's exact test (Psychometrika 12:153-157, 1947, doi 10.1007/BF02295996).

    Images that both models answer alike say nothing of the difference. If the models were equally good, each other
    image would be as likely lost as won: the value is the chance of `lost` or more of them.
    """
    return float(_tails(np.array([lost]), np.array([won]))[0])


@dataclass(frozen=True)
class ClassTests:
    """McNemar's test of each class, and how small a p-value has to be.

    Attributes:
        p_values: One a class, float64 (C,); 1 where no image of it was lost.
        bound: A class has a significant loss where its p-value is at most that.
        tested: How many classes could have shown one.
    """

    p_values: Floats
    bound: float
    tested: int


def class_losses(lost: Counts, won: Counts, significance: float) -> ClassTests:
    """Test every class, so that K equal classes show a loss anywhere with a chance of at most `significance`.

    Holm's first step (Scand. J. Stat. 6:65-70, 1979) among the classes that can show one at all (Tarone, Biometrics
    46:515-522, 1990, doi 10.2307/2531456): a class whose images the models answer alike but for a few could not, even
    if all of these were lost, and is not counted.

    Args:
        lost: Images of each class that only the champion answers rightly, int64 (C,).
        won: Images of each class that only the release answers rightly, int64 (C,).
        significance: Of all classes together.
    """
    p_values = _tails(lost, won)
    least = 0.5 ** (lost + won).astype(np.float64)  # the p-value if every image on which they differ were lost
    for count in range(1, len(least) + 1):
        tested = int((least <= significance / count).sum())
        if tested <= count:
            break
    return ClassTests(p_values, significance / count, tested)


def _tails(lost: Counts, won: Counts) -> Floats:
    """Return the chance of `lost` or more heads in so many throws of a fair coin as the models differ on images."""
    from scipy.stats import binom  # noqa: PLC0415  takes most of a second, and few commands judge

    tails: Floats = binom.sf(lost - 1, lost + won, 0.5)
    return tails


@dataclass(frozen=True)
class Confidences:
    """How sure a model was of its answers: what calibration is made of.

    Attributes:
        confidence: Probability of the most probable class, float64 (N,).
        correct: Whether that is the right one, bool (N,).
        bins: Bins of equal width of the calibration error.
    """

    confidence: Floats
    correct: NDArray[np.bool_]
    bins: int

    def gaps(self) -> tuple[NDArray[np.intp], Floats]:
        """Return each image's bin and its confidence minus 1 where it is right, float64 (N,)."""
        edges = np.linspace(0, 1, self.bins + 1)
        which = np.clip(np.searchsorted(edges, self.confidence, side="left") - 1, 0, self.bins - 1)
        return which, self.confidence - self.correct

    @property
    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, eq. 3)."""
        which, gap = self.gaps()
        return float(np.abs(np.bincount(which, weights=gap, minlength=self.bins)).sum() / len(gap))


def calibration_p_value(ours: Confidences, theirs: Confidences, resamples: int = RESAMPLES) -> float:
    """Return how likely a rise of the calibration error like this one is if it does not matter whose answer is whose.

    A paired permutation test (Good, Permutation, Parametric, and Bootstrap Tests of Hypotheses, 2005, ch. 3): for each
    image a coin decides whether the two models change places. What was seen counts as one arrangement, so that the
    value is never 0.
    """
    images, bins = len(ours.confidence), ours.bins
    seen = ours.error - theirs.error
    (our_bin, our_gap), (their_bin, their_gap) = ours.gaps(), theirs.gaps()
    differ = np.flatnonzero((our_bin != their_bin) | (our_gap != their_gap))
    generator = np.random.default_rng(SEED)
    at_least, done, block = 1, 0, max(1, AT_ONCE // max(images, 1))
    one = np.zeros((bins, images))
    one[our_bin, np.arange(images)] += our_gap
    other = np.zeros((bins, images))
    other[their_bin, np.arange(images)] += their_gap
    both, change = (one + other).sum(axis=1), (one - other)[:, differ]
    middle = both / 2
    while done < resamples:
        count = min(block, resamples - done)
        signs = generator.integers(0, 2, (len(differ), count), dtype=np.int8).astype(np.float64) - 0.5
        moved = change @ signs  # bins × count: half the difference of the two sums in each bin
        rise = (np.abs(middle[:, None] + moved).sum(axis=0) - np.abs(middle[:, None] - moved).sum(axis=0)) / images
        at_least += int((rise >= seen - 1e-12).sum())
        done += count
    return at_least / (resamples + 1)
