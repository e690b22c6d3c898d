"""Areas under the curves against values worked out by hand, against scikit-learn, and against their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from tasks.evaluation.ranking import ranking, ranking_by

scored = st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: len({positive for _, positive in pairs}) == 2
)


def test_by_hand() -> None:
    # From the surest: right, wrong, then one of each with the same score.
    found = ranking_by(np.array([0.9, 0.6, 0.4, 0.4]), np.array([True, False, True, False]))
    assert found.true_positives.tolist() == [1, 1, 2]
    assert found.false_positives.tolist() == [0, 1, 2]
    assert found.recall.tolist() == [0.5, 0.5, 1.0]
    assert found.false_positive_rate.tolist() == [0.0, 0.5, 1.0]
    assert found.precision.tolist() == [1.0, 0.5, 0.5]
    assert found.roc_auc == (1 + 1 + 0 + 0.5) / 4  # of four pairs two are in order, one is not, one is a tie
    assert found.average_precision == 0.5 * 1.0 + 0.5 * 0.5


@given(scored)
def test_they_are_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([score for score, _ in pairs], float), np.array([right for _, right in pairs])
    found = ranking_by(scores, positive)
    assert found.roc_auc == pytest.approx(roc_auc_score(positive, scores))
    assert found.average_precision == pytest.approx(average_precision_score(positive, scores))
    false_positive_rate, recall, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert found.false_positive_rate == pytest.approx(false_positive_rate[1:])
    assert found.recall == pytest.approx(recall[1:])
    precision, _, _ = precision_recall_curve(positive, scores)
    assert found.precision == pytest.approx(precision[-2::-1])


@given(scored)
def test_the_area_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([score for score, _ in pairs], float), np.array([right for _, right in pairs])
    apart = scores[positive][:, None] - scores[~positive][None]
    found = ranking_by(scores, positive)
    assert found.roc_auc == np.mean((apart > 0) + 0.5 * (apart == 0))
    assert ranking_by(-scores, positive).roc_auc == pytest.approx(1 - found.roc_auc)


def test_the_second_class_is_the_positive_one() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]], np.float32)
    labels = np.array([0, 0, 1, 1], np.int32)
    found = ranking(probabilities, labels)
    assert found is not None
    assert (found.roc_auc, found.average_precision) == (1.0, 1.0)
    turned = ranking(probabilities[:, ::-1], labels)
    assert turned is not None
    assert turned.roc_auc == 0.0


def test_probabilities_that_are_rounded_to_1_are_no_ties() -> None:
    probabilities = np.array([[1e-20, 1.0], [1e-12, 1.0]], np.float32)
    assert (probabilities[:, 1] == 1).all()
    found = ranking(probabilities, np.array([1, 0], np.int32))
    assert found is not None
    assert found.roc_auc == 1.0


@pytest.mark.parametrize(
    ("classes", "labels"), [(3, [0, 1, 2]), (3, [0, 1, 1]), (2, [1, 1, 1]), (2, [0, 0, 0])], ids=str
)
def test_nothing_is_measured_without_two_classes_that_have_images(classes: int, labels: list[int]) -> None:
    probabilities = np.full((3, classes), 1 / classes, np.float32)
    assert ranking(probabilities, np.array(labels, np.int32)) is None
