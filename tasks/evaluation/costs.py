"""Mistakes that cost differently: which answer costs least, and what answers have cost.

The answer is Bayes' rule on the calibrated probabilities (Elkan 2001, The Foundations of Cost-Sensitive Learning,
IJCAI, equation 1): it holds for any number of classes, and nothing is fitted. A threshold fitted on validation images
is for two classes alone, and chance where they are few: with 176 simulated ones, of calibrated normal scores and a miss
ten times as dear, it cost 0.020 to 0.026 more than the best threshold, the rule 0.006 to 0.007. Where probabilities
near 0 are not true it can do better: fitted on 176 photographs of solar cells (docs/guide.md), 0.390 a test image where
the rule costs 0.413.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics import Counts, Floats, Labels, Probabilities, confusion_matrix
from tasks.evaluation.ranking import POSITIVE


def least_cost(probabilities: Probabilities, costs: Floats) -> NDArray[np.intp]:
    """Return for each image the class j whose expected cost Σ_i p_i · costs[i, j] is least; of equal ones the first.

    Where all mistakes cost the same it is the most probable class, up to rounding.

    Args:
        probabilities: float32 (N, C).
        costs: float64 (C, C), rows actual, columns answered, 0 on the diagonal.
    """
    return (probabilities.astype(np.float64) @ costs).argmin(axis=1)


@dataclass(frozen=True)
class CostComparison:
    """The same images answered by the most probable class, and by the one of least expected cost.

    Attributes:
        costs: float64 (C, C), rows actual, columns answered.
        answers: Of least expected cost, (N,).
        plain, chosen: Confusion matrices of the two, int64 (C, C).
    """

    costs: Floats
    answers: NDArray[np.intp]
    plain: Counts
    chosen: Counts

    @property
    def mean_cost_plain(self) -> float:
        """What the most probable class costs, in the mean over the images."""
        return _mean_cost(self.plain, self.costs)

    @property
    def mean_cost(self) -> float:
        """What the answer of least expected cost costs, in the mean over the images."""
        return _mean_cost(self.chosen, self.costs)


def compare_costs(probabilities: Probabilities, labels: Labels, costs: Floats) -> CostComparison:
    """Answer images in both ways: probabilities float32 (N, C), labels (N,), costs as in least_cost."""
    answers, classes = least_cost(probabilities, costs), len(costs)
    plain = confusion_matrix(probabilities.argmax(axis=1), labels, classes)
    return CostComparison(costs, answers, plain, confusion_matrix(answers, labels, classes))


def _mean_cost(confusion: Counts, costs: Floats) -> float:
    return float((confusion * costs).sum() / confusion.sum())


@dataclass(frozen=True)
class Threshold:
    """The rule for two classes, as a threshold.

    Attributes:
        sought: Position of the class whose mistakes cost more, of equal ones the positive class.
        value: The answer is the sought class where its probability is above this.
    """

    sought: int
    value: float


def threshold_of(costs: Floats) -> Threshold:
    """Return what least_cost comes to for two classes (Elkan 2001, equation 2), costs (2, 2)."""
    sought = 1 - POSITIVE if costs[1 - POSITIVE, POSITIVE] > costs[POSITIVE, 1 - POSITIVE] else POSITIVE
    missed, false_alarm = costs[sought, 1 - sought], costs[1 - sought, sought]
    return Threshold(sought, float(false_alarm / (false_alarm + missed)))


def mean_costs(probabilities: Probabilities, labels: Labels, costs: Floats, thresholds: Floats) -> Floats:
    """Return the mean cost of answering the sought class above each threshold (T,), of two classes; float64 (T,).

    Args:
        probabilities: float32 (N, 2).
        labels: (N,).
        costs: float64 (2, 2).
        thresholds: Of the probability of the class that threshold_of(costs) names.
    """
    sought = threshold_of(costs).sought
    of_sought = labels == sought
    ascending = [np.sort(probabilities[chosen, sought].astype(np.float64)) for chosen in (of_sought, ~of_sought)]
    missed, passed = (np.searchsorted(values, thresholds, side="right") for values in ascending)
    false_alarms = len(ascending[1]) - passed
    total = missed * costs[sought, 1 - sought] + false_alarms * costs[1 - sought, sought]
    return np.asarray(total / len(labels), dtype=np.float64)
