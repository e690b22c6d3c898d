"""Releases as the gate sees them: which images they answer rightly, and how sure they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.params.params import PublishParams
from tasks.registry.opponents import Measurement, Opponent
from tasks.registry.paired_tests import Confidences

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
