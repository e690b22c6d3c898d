"""Measures of a classifier, each from its definition: probabilities (N, C) and labels (N,) in, plain numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int32]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# The smallest normal float32: softmax in float32 can underflow to 0, whose logarithm is not a number to average.
MIN_PROBABILITY = float(np.finfo(np.float32).tiny)
# Shares are quotients of whole numbers: a loss of exactly what is allowed is allowed, whatever its last bit says.
ROUNDING = 1e-9


@dataclass(frozen=True)
class ClassScores:
    """One value a class, in label order, each float64 (C,); NaN where it was not measured: nothing to divide by."""

    precision: Floats
    recall: Floats
    f1: Floats


def log_probabilities(probabilities: Probabilities) -> Floats:
    """Return natural logarithms, zeros clipped to the smallest normal float32; float64, same shape."""
    return np.log(np.maximum(probabilities.astype(np.float64), MIN_PROBABILITY))


def top1(scores: NDArray[np.floating], labels: Labels) -> float:
    """Return the share of images whose highest score (probability or logit) is the label's."""
    return float(np.mean(scores.argmax(axis=1) == labels))


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson 1927, JASA 22:209-212, doi 10.1080/01621459.1927.10502953).

    Unlike p ± z·√(p(1 - p)/n) it keeps its coverage near 0 and 1 and stays within them.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, float((centre - half) / scale)), min(1.0, float((centre + half) / scale))


def binary_accuracy(probabilities: Probabilities, labels: Labels, threshold: float = 0.5) -> float:
    """Return Keras 2's reading of `accuracy` under binary cross-entropy.

    Each of the N × C outputs counts as one yes-or-no answer: right if it is above the threshold exactly where the
    one-hot label is 1. An all-zero answer scores 1 - 1/C.
    """
    one_hot = np.arange(probabilities.shape[1]) == labels[:, None]
    return float(np.mean((probabilities > threshold) == one_hot))


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean of -ln(probability of the label), in nats, zeros clipped to the smallest normal float32."""
    return float(-np.mean(log_probabilities(probabilities[np.arange(len(labels)), labels])))


def confusion_matrix(predicted: NDArray[np.integer], labels: Labels, classes: int) -> Counts:
    """Return how many images of each actual class (row) were given each class (column); int64 (C, C)."""
    flat = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def class_scores(confusion: Counts) -> ClassScores:
    """Return precision, recall and F1 of each class from a confusion matrix (C, C).

    A class without an image has no recall and no F1, and one that no image was given has no precision.
    """
    hits = np.diag(confusion).astype(np.float64)
    actual, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        recall = hits / actual
        f1 = np.where(actual > 0, 2 * hits / (actual + predicted), np.nan)
        return ClassScores(precision=hits / predicted, recall=recall, f1=f1)


def balanced_accuracy(confusion: Counts) -> float:
    """Return the mean recall of the classes that have an image: top-1 as if every class had equally many."""
    return float(np.nanmean(class_scores(confusion).recall))


def macro_f1(confusion: Counts) -> float:
    """Return the mean F1 of the classes that have an image."""
    return float(np.nanmean(class_scores(confusion).f1))


def unmeasured(classes: Sequence[str], images: Sequence[int] | Counts) -> tuple[str, ...]:
    """Return the classes of which there is no image."""
    return tuple(name for name, count in zip(classes, images, strict=True) if not count)


def class_table(classes: Sequence[str], confusion: Counts) -> dict[str, dict[str, float | None]]:
    """Return for each class its images and scores, in label order; None for what was not measured."""
    scores = class_scores(confusion)
    return {
        name: {
            "images": int(confusion[index].sum()),
            "precision": _measured(scores.precision[index]),
            "recall": _measured(scores.recall[index]),
            "f1": _measured(scores.f1[index]),
        }
        for index, name in enumerate(classes)
    }


def _measured(score: float) -> float | None:
    return None if np.isnan(score) else float(score)
