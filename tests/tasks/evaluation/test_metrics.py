"""Each measure against a value worked out by hand, and against scikit-learn or Keras where they have it."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import log_loss as sklearn_log_loss

from tasks.evaluation import metrics

CLASSES = 5


@pytest.fixture(scope="module")
def answers() -> tuple[metrics.Probabilities, metrics.Labels]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, 400).astype(np.int32)
    logits = generator.normal(size=(400, CLASSES)) + 2 * np.eye(CLASSES)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels


def test_top1_by_hand() -> None:
    scores = np.array([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7]], np.float32)
    assert metrics.top1(scores, np.array([0, 1, 1, 1], np.int32)) == 0.75


def test_wilson_interval_by_hand() -> None:
    # Wilson 95 % for 81 of 263, the example of Newcombe 1998 (Statistics in Medicine 17:857-872, table I).
    low, high = metrics.wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0.0, 0.1611), (20, 0.8389, 1.0)])
def test_wilson_interval_stays_within_zero_and_one(successes: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(successes, 20) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_interval_holds_the_share(counts: tuple[int, int]) -> None:
    low, high = metrics.wilson_interval(*counts)
    assert 0 <= low <= counts[0] / counts[1] + 1e-12
    assert counts[0] / counts[1] - 1e-12 <= high <= 1


def test_binary_accuracy_by_hand() -> None:
    # Row 1: all three outputs right. Row 2: 0.5 is not above 0.5, so the label's output is wrong, the others right.
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], np.float32)
    assert metrics.binary_accuracy(probabilities, np.array([0, 0], np.int32)) == pytest.approx(5 / 6)


def test_binary_accuracy_of_an_all_zero_answer_is_ninety_percent_over_ten_classes() -> None:
    assert metrics.binary_accuracy(np.zeros((7, 10), np.float32), np.arange(7, dtype=np.int32)) == pytest.approx(0.9)


def test_binary_accuracy_is_kerass(answers: tuple[metrics.Probabilities, metrics.Labels]) -> None:
    probabilities, labels = answers
    measure = keras.metrics.BinaryAccuracy()
    measure.update_state(np.eye(CLASSES)[labels], probabilities)
    assert metrics.binary_accuracy(probabilities, labels) == pytest.approx(float(measure.result()), abs=1e-6)


def test_log_loss_by_hand_and_scikit_learns(answers: tuple[metrics.Probabilities, metrics.Labels]) -> None:
    halves = np.full((3, 2), 0.5, np.float32)
    assert metrics.log_loss(halves, np.array([0, 1, 0], np.int32)) == pytest.approx(np.log(2))
    probabilities, labels = answers
    assert metrics.log_loss(probabilities, labels) == pytest.approx(sklearn_log_loss(labels, probabilities), abs=1e-6)


def test_log_loss_of_an_impossible_answer_is_finite() -> None:
    loss = metrics.log_loss(np.array([[0.0, 1.0]], np.float32), np.array([0], np.int32))
    assert loss == pytest.approx(87.3365, abs=1e-3)


def test_confusion_and_scores_by_hand() -> None:
    confusion = metrics.confusion_matrix(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1], np.int32), 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    scores = metrics.class_scores(confusion)
    assert scores.precision == pytest.approx([1, 2 / 3, np.nan], nan_ok=True)
    assert scores.recall == pytest.approx([1 / 2, 1, np.nan], nan_ok=True)
    assert scores.f1 == pytest.approx([2 / 3, 4 / 5, np.nan], nan_ok=True)
    assert metrics.macro_f1(confusion) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert metrics.balanced_accuracy(confusion) == pytest.approx((1 / 2 + 1) / 2)
    assert metrics.unmeasured(["ant", "bee", "cat"], confusion.sum(axis=1)) == ("cat",)


def test_what_was_not_measured_is_none_and_what_was_missed_is_0() -> None:
    confusion = metrics.confusion_matrix(np.array([1, 1, 2]), np.array([0, 1, 1], np.int32), 3)
    assert metrics.class_table(["ant", "bee", "cat"], confusion) == {
        "ant": {"images": 1, "precision": None, "recall": 0.0, "f1": 0.0},
        "bee": {"images": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5},
        "cat": {"images": 0, "precision": 0.0, "recall": None, "f1": None},
    }


def test_confusion_and_scores_are_scikit_learns(answers: tuple[metrics.Probabilities, metrics.Labels]) -> None:
    probabilities, labels = answers
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(predicted, labels, CLASSES)
    assert (confusion == sklearn_confusion(labels, predicted)).all()
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted)
    scores = metrics.class_scores(confusion)
    assert scores.precision == pytest.approx(precision)
    assert scores.recall == pytest.approx(recall)
    assert scores.f1 == pytest.approx(f1)
    assert metrics.balanced_accuracy(confusion) == pytest.approx(balanced_accuracy_score(labels, predicted))
