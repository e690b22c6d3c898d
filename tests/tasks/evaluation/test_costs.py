"""The answer of least expected cost, and what answers have cost, against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.costs import compare_costs, least_cost, mean_costs, threshold_of
from tasks.evaluation.metrics import Floats, Labels, Probabilities

MISSED = np.array([[0.0, 10.0], [1.0, 0.0]])  # class 0 is the one that must not be missed


def answers_of(seed: int, images: int, classes: int) -> tuple[Probabilities, Labels, Floats]:
    generator = np.random.default_rng(seed)
    costs = generator.uniform(0.1, 20, (classes, classes)) * (1 - np.eye(classes))
    labels = generator.integers(0, classes, images).astype(np.int32)
    return generator.dirichlet(np.ones(classes), images).astype(np.float32), labels, costs


def test_three_classes_by_hand() -> None:
    costs = np.array([[0.0, 10, 10], [1, 0, 1], [1, 4, 0]])
    probabilities = np.array([[0.1, 0.6, 0.3], [0.05, 0.8, 0.15], [0.02, 0.53, 0.45]], np.float32)
    # Expected costs of the three answers: 0.9, 2.2, 1.6; then 0.95, 1.1, 1.3; then 0.98, 2.0, 0.73.
    assert least_cost(probabilities, costs).tolist() == [0, 0, 2]
    assert least_cost(probabilities, np.minimum(costs, 1)).tolist() == [1, 1, 1]


def test_of_two_classes_the_threshold_is_elkans() -> None:
    assert threshold_of(MISSED).sought == 0
    assert threshold_of(MISSED).value == pytest.approx(1 / 11)
    assert threshold_of(MISSED[::-1, ::-1]).sought == 1
    assert threshold_of(MISSED[::-1, ::-1]).value == pytest.approx(1 / 11)
    assert (threshold_of(1 - np.eye(2)).sought, threshold_of(1 - np.eye(2)).value) == (1, 0.5)
    around = np.array([1 / 11 - 1e-4, 1 / 11 + 1e-4])
    assert least_cost(np.stack([around, 1 - around], axis=1).astype(np.float32), MISSED).tolist() == [1, 0]


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_no_other_answer_has_a_lower_expected_cost(seed: int, classes: int) -> None:
    probabilities, _, costs = answers_of(seed, 20, classes)
    answers = least_cost(probabilities, costs)
    for row, answer in zip(probabilities.astype(float), answers, strict=True):
        expected = [sum(row[actual] * costs[actual, other] for actual in range(classes)) for other in range(classes)]
        assert expected[answer] <= min(expected) + 1e-9


@given(st.integers(0, 10_000), st.floats(0.1, 100))
def test_where_all_mistakes_cost_the_same_it_is_the_most_probable_class(seed: int, cost: float) -> None:
    probabilities, _, _ = answers_of(seed, 50, 4)
    assert least_cost(probabilities, cost * (1 - np.eye(4))).tolist() == probabilities.argmax(axis=1).tolist()


def test_what_answers_cost_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.3, 0.7], [0.05, 0.95], [0.2, 0.8], [0.01, 0.99]], np.float32)
    found = compare_costs(probabilities, np.array([0, 0, 0, 1, 1], np.int32), MISSED)
    assert found.answers.tolist() == [0, 0, 1, 0, 1]
    assert found.plain.tolist() == [[1, 2], [0, 2]]
    assert found.chosen.tolist() == [[2, 1], [1, 1]]
    assert found.mean_cost_plain == 20 / 5
    assert found.mean_cost == 11 / 5


def test_the_cost_of_each_threshold_by_hand() -> None:
    probabilities = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]], np.float32)
    labels = np.array([0, 0, 1], np.int32)
    thresholds = np.array([0, 0.25, 0.4, 0.5, 0.75, 1])  # of what is no more than a threshold, class 1 is answered
    assert (mean_costs(probabilities, labels, MISSED, thresholds) * 3).tolist() == pytest.approx(
        [1, 11, 11, 10, 20, 20]
    )


@given(st.integers(0, 10_000))
def test_the_rules_own_threshold_costs_what_the_rule_costs(seed: int) -> None:
    probabilities, labels, costs = answers_of(seed, 60, 2)
    found, rule = compare_costs(probabilities, labels, costs), threshold_of(costs)
    assert mean_costs(probabilities, labels, costs, np.array([rule.value, 0.5])) == pytest.approx(
        [found.mean_cost, found.mean_cost_plain]
    )
