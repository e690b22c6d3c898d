"""What a page says of an answer to an image: its classes and how probable they are; and which answers are looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics import Labels, Probabilities
from tasks.stage.shown import one_line

LONGEST_NAME = 160  # characters of a file's path; of a longer one the end is shown, where the file's own name is


@dataclass(frozen=True)
class Chance:
    """A class and how probable it was said to be; whether the image is of that class, as far as that is known."""

    name: str
    probability: float
    is_actual: bool = False


def chances(
    probabilities: Probabilities, classes: Sequence[str], count: int, actual: int | None = None
) -> tuple[Chance, ...]:
    """Return the most probable classes of one answer, best first, and the image's own class if it is not among them.

    Args:
        probabilities: float32 (C,).
        classes: Names in label order.
        count: How many classes; of equal ones the first in label order.
        actual: The image's own class, if it is known.
    """
    places = np.argsort(-probabilities, kind="stable")[:count].tolist()
    if actual is not None and actual not in places:
        places.append(actual)
    return tuple(Chance(classes[place], float(probabilities[place]), place == actual) for place in places)


def margins(probabilities: Probabilities) -> NDArray[np.float32]:
    """Return how far the best class is ahead of the next, float32 (N,), for answers (N, C); 0 where C is 1."""
    ordered = np.sort(probabilities, axis=1)
    return ordered[:, -1] - ordered[:, -2:][:, 0]


def least_sure(probabilities: Probabilities, count: int) -> NDArray[np.intp]:
    """Return positions of the answers with the lowest margin, lowest first; equal ones in test order."""
    return np.argsort(margins(probabilities), kind="stable")[:count]


def most_confident_mistakes(labels: Labels, probabilities: Probabilities, count: int) -> NDArray[np.intp]:
    """Return positions of the wrong answers with the highest probability, highest first; equal ones in test order."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:count]]


def shown_name(path: str) -> str:
    """Return a file's path as a page shows it: on one line, without what could turn it round, and not too long."""
    line = one_line(path)
    return line if len(line) <= LONGEST_NAME else f"…{line[1 - LONGEST_NAME :]}"
