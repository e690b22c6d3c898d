"""On which test images two releases are compared, and what both answer there.

Not on images that one of them has trained on or chosen by: a data set that grew may have brought such into the test
set. And not on those of a class that one of them does not know, for which it has no answer: of the others both choose
among the classes that both know, so that none is worse for having learnt more.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.data.arrays import Indices
from tasks.data.hashes import Hashes, are_among
from tasks.registry.opponents import Cohort, Measurement, NewClass, Scope
from tasks.registry.paired_tests import Confidences
from tasks.registry.recorded_answers import Labels
from tasks.registry.reload import PROBABILITIES, Probabilities
from tasks.stage.errors import InputError


@dataclass(frozen=True)
class Answers:
    """How a release answers the present test images, and which images it knew before.

    Attributes:
        probabilities: float32 (N, C).
        classes: The names of the C classes.
        fit: Hashes of the images that it trained on and chose by, uint64 (M,); None where they were not recorded.
        tested: Hashes of the test images that it was published with, uint64 (K, 2); None likewise.
    """

    probabilities: Probabilities
    classes: tuple[str, ...]
    fit: Hashes | None = None
    tested: Hashes | None = None


@dataclass(frozen=True)
class JudgedImages:
    """The images on which a release is judged.

    Attributes:
        labels: Right classes, as positions in the release's, int32 (N,).
        hashes: Of the images, uint64 (N, 2); None where they were not recorded.
    """

    labels: Labels
    hashes: Hashes | None = None


@dataclass(frozen=True)
class Comparison:
    """What two releases answer to the images on which they can be compared.

    Attributes:
        ours, theirs: On the same images, in the same order; of the classes that both know.
        scope: Which images these are.
    """

    ours: Measurement
    theirs: Measurement
    scope: Scope


def measure(probabilities: Probabilities, labels: Labels, classes: tuple[str, ...], bins: int) -> Measurement:
    """Return how well answers, float32 (N, C), fit the labels, int32 (N,); raises InputError on other shapes."""
    if probabilities.shape != (len(labels), len(classes)):
        raise InputError(
            f"{PROBABILITIES} holds answers of shape {probabilities.shape} to {len(labels)} test images of "
            f"{len(classes)} classes"
        )
    correct = np.asarray(probabilities.argmax(axis=1) == labels)
    confidence = probabilities.max(axis=1).astype(np.float64)
    return Measurement(correct, np.asarray(labels), classes, Confidences(confidence, correct, bins))


def compare_fairly(ours: Answers, theirs: Answers, test: JudgedImages, bins: int) -> Comparison | None:
    """Return what both answer where both can be judged; None where there is no such image.

    Args:
        ours: Of the release that is judged; its classes are those of the labels.
        theirs: Of another release, to the same images.
        test: The images.
        bins: Of the calibration error.
    """
    seen = _seen(ours, test) | _seen(theirs, test)
    both = tuple(name for name in ours.classes if name in theirs.classes)
    known = np.isin(test.labels, _positions(ours, both))
    fair = known & ~seen
    if not fair.any() or len(both) < 2:
        return None
    labels = np.searchsorted(_positions(ours, both), test.labels[fair]).astype(np.int32)
    our, their = (measure(_among(each, both, fair), labels, both, bins) for each in (ours, theirs))
    scope = Scope(
        images=len(test.labels),
        compared=int(fair.sum()),
        seen=int((seen & known).sum()),
        of_unknown_classes=int((~known).sum()),
        is_recorded=theirs.fit is not None and test.hashes is not None,
        new_classes=tuple(_new_class(ours, test, name) for name in ours.classes if name not in both),
        lost_classes=tuple(name for name in theirs.classes if name not in both),
        cohorts=_cohorts(theirs, test, fair, (our.correct, their.correct)),
    )
    return Comparison(our, their, scope)


def _seen(answers: Answers, test: JudgedImages) -> NDArray[np.bool_]:
    """Return which test images a release has trained on or chosen by, as far as that was recorded; bool (N,)."""
    if answers.fit is None or test.hashes is None:
        return np.zeros(len(test.labels), np.bool_)
    return are_among(test.hashes, answers.fit)


def _positions(answers: Answers, classes: tuple[str, ...]) -> Indices:
    return np.array([answers.classes.index(name) for name in classes], np.int64)


def _among(answers: Answers, classes: tuple[str, ...], images: NDArray[np.bool_]) -> Probabilities:
    """Return a release's probabilities of some classes for some images, as if it knew no others; float32 (n, c)."""
    chosen: Probabilities = answers.probabilities[images]
    if classes == answers.classes:
        return chosen
    shares = chosen[:, _positions(answers, classes)].astype(np.float64)
    total = shares.sum(axis=1, keepdims=True)
    even = np.full_like(shares, 1 / len(classes))  # of one that is sure of another class
    return np.asarray(np.divide(shares, total, out=even, where=total > 0), np.float32)


def _new_class(ours: Answers, test: JudgedImages, name: str) -> NewClass:
    position = ours.classes.index(name)
    of_it, said = test.labels == position, ours.probabilities.argmax(axis=1) == position
    return NewClass(name, *(int(each.sum()) for each in (of_it, of_it & said, ~of_it, ~of_it & said)))


def _cohorts(
    theirs: Answers, test: JudgedImages, fair: NDArray[np.bool_], correct: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> tuple[Cohort, ...]:
    """Return the images that the other release's data set had, and those that came since; nothing where one is all."""
    if theirs.fit is None or theirs.tested is None or test.hashes is None:
        return ()
    known = are_among(test.hashes[fair], np.concatenate([theirs.fit, theirs.tested.ravel()]))
    if known.all() or not known.any():
        return ()
    parts = {"core": known, "came": ~known}
    return tuple(
        Cohort(name, int(part.sum()), *(int(each[part].sum()) for each in correct)) for name, part in parts.items()
    )
