"""The gate of a storm: the real rules, on answers that follow from a release's id: no process loads a model."""

import numpy as np

from tasks.params.params import PublishParams
from tasks.registry.gate import judge
from tasks.registry.manifest import Manifest
from tasks.registry.opponents import Measurement, Opponent
from tasks.registry.paired_tests import Confidences

IMAGES = 1000
CLASSES = tuple("abcdefghij")
PARAMS = PublishParams(bucket="retrain", prefix="models")


def passes(release: Manifest, champion: Manifest | None) -> str | None:
    """Return what the rules say where they let the release take the champion's place, or nothing."""
    opponent = None if champion is None else Opponent(champion.id, answers_of(champion))
    verdict = judge(answers_of(release), opponent, None, PARAMS)
    return "; ".join(verdict.sentences) if verdict.passed else None


def answers_of(release: Manifest) -> Measurement:
    """Return how the release answers the test images: the same for everybody who asks."""
    correct = np.random.default_rng(int(release.id, 16)).random(IMAGES) < release.top1
    confidences = Confidences(np.full(IMAGES, 0.9), correct, bins=15)
    return Measurement(correct, np.arange(IMAGES, dtype=np.int32) % len(CLASSES), CLASSES, confidences)
