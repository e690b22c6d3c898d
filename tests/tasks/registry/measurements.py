"""Releases as the gate sees them: which images they answer rightly, and how sure they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.params.params import PublishParams
from tasks.registry.paired_tests import Confidences
from tasks.registry.rules import Measurement, Opponent

CLASSES = ("ant", "bee", "cat")
ID, BEST = "0123456789abcdef", "fedcba9876543210"
BINS = 15


def publish_params(**changes: Any) -> PublishParams:
    return PublishParams.model_validate({"bucket": "retrain", "prefix": "models", **changes})


def measurement(
    correct: Sequence[bool], labels: Sequence[int] | None = None, classes: tuple[str, ...] = CLASSES, sure: float = 1.0
) -> Measurement:
    """Return a release that answers these images rightly, always with the confidence `sure`."""
    if labels is None:
        labels = [position % len(classes) for position in range(len(correct))]
    right = np.array(correct, bool)
    confidences = Confidences(np.full(len(right), sure), right, BINS)
    return Measurement(right, np.array(labels, np.int32), classes, confidences)


def pair(both: int, lost: int, won: int, neither: int) -> tuple[Measurement, Opponent]:
    """Return a release and a champion that agree and differ on so many images."""
    ours = [True] * both + [False] * lost + [True] * won + [False] * neither
    theirs = [True] * both + [True] * lost + [False] * won + [False] * neither
    return measurement(ours), Opponent(ID, measurement(theirs))


def drawn(
    generator: np.random.Generator, images: int, classes: int, *, drop: float = 0.0, of_class: int | None = None
) -> tuple[Measurement, Opponent]:
    """Draw what two seeds of one recipe answer: each right on 90 %, they differ on 6 %.

    Args:
        generator: Of the draws.
        images: In the test set, as many of each class as of any other.
        classes: How many.
        drop: By how much the release is worse.
        of_class: On the images of this class only.
    """
    labels = np.arange(images) % classes
    worse = drop * (np.ones(images) if of_class is None else labels == of_class)
    where = generator.random(images)
    lost, won = where < 0.03 + worse, (where >= 0.03 + worse) & (where < 0.06 + worse)
    both = ~lost & ~won & (generator.random(images) < 0.87 / 0.94)
    hard = generator.random(images)
    names = tuple(map(str, range(classes)))

    def one(correct: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Measurement:
        sure = np.where(correct, 1 - 0.4 * hard**2, 0.4 + 0.5 * hard) + generator.normal(0, 0.03, images)
        confidences = Confidences(np.clip(sure, 1 / classes, 1), correct, BINS)
        return Measurement(correct, labels.astype(np.int32), names, confidences)

    return one(both | won), Opponent(ID, one(both | lost))
