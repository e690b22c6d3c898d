"""What the gate's rules look at: a release's answers, its opponents', and on which images they are compared."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.registry.manifest import Figures
from tasks.registry.paired_tests import Confidences


@dataclass(frozen=True)
class Measurement:
    """How a model answered all test images.

    Attributes:
        correct: Whether its most probable class is the right one, bool (N,).
        labels: The right classes as positions in `classes`, int32 (N,).
        classes: Their names.
        confidences: How sure it was of each answer.
    """

    correct: NDArray[np.bool_]
    labels: NDArray[np.int32]
    classes: tuple[str, ...]
    confidences: Confidences

    @property
    def top1(self) -> float:
        """Share of images that it answered rightly."""
        return float(self.correct.mean())


@dataclass(frozen=True)
class Opponent:
    """A release to compare with.

    Attributes:
        id: The release's.
        measurement: Its answers to the candidate's test images.
        evaluated_again: Whether it gave them for this comparison only.
        role: `champion` or `best`.
        chosen_from: Of how many releases these test images chose it: the luckiest of many equals looks better.
        against: The release's answers to the images that its opponent answers; None where these are all.
        scope: Which images these are; None likewise.
    """

    id: str
    measurement: Measurement
    evaluated_again: bool = False
    role: str = "champion"
    chosen_from: int = 1
    against: Measurement | None = None
    scope: "Scope | None" = None

    @property
    def name(self) -> str:
        """How sentences speak of it."""
        what = "the champion" if self.role == "champion" else "the best release"
        return f"{what} {self.id}{', evaluated again on this test set' if self.evaluated_again else ''}"

    @property
    def figures(self) -> Figures:
        """Which release it is, for a finding."""
        return {self.role: self.id, "evaluated_again": self.evaluated_again}


@dataclass(frozen=True)
class Incomparable:
    """A release that cannot answer this test set, and why, in a sentence."""

    id: str
    sentence: str


@dataclass(frozen=True)
class Cohort:
    """A part of the images compared, and how many of it each release answers rightly.

    Attributes:
        name: `core` for images that the opponent's data set had, `came` for those that came since.
        images: How many.
        ours, theirs: Of them answered rightly.
    """

    name: str
    images: int
    ours: int
    theirs: int


@dataclass(frozen=True)
class NewClass:
    """A class that the opponent does not know, and what the release does with it on all test images.

    Attributes:
        name: The class's.
        images: Of it.
        right: Of them answered rightly.
        others: Images of other classes.
        mistaken: Of them taken for this class.
    """

    name: str
    images: int
    right: int
    others: int
    mistaken: int


@dataclass(frozen=True)
class Scope:
    """On which of the test images a release is compared with an opponent.

    Attributes:
        images: Test images in all.
        compared: Of them in the comparison.
        seen: Left out because one of the two trained on them or chose by them.
        of_unknown_classes: Left out because the opponent does not know their class.
        is_recorded: Whether it is known what the opponent trained on.
        new_classes: Those that the opponent does not know.
        lost_classes: Those that only the opponent knows.
        cohorts: The images compared, by whether the opponent's data set had them; empty where that divides nothing.
    """

    images: int
    compared: int
    seen: int = 0
    of_unknown_classes: int = 0
    is_recorded: bool = True
    new_classes: tuple[NewClass, ...] = ()
    lost_classes: tuple[str, ...] = ()
    cohorts: tuple[Cohort, ...] = ()
