"""What equal models show by chance, against values worked out by hand and against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.calibration import calibration
from tasks.registry.paired_tests import Confidences, calibration_p_value, class_losses, mcnemar_p_value

BINS = 10


@pytest.mark.parametrize(
    ("lost", "won", "p_value"),
    [
        (0, 0, 1.0),
        (0, 9, 1.0),
        (1, 0, 1 / 2),
        (5, 0, 1 / 32),
        (5, 1, 7 / 64),  # (C(6, 5) + C(6, 6)) / 2⁶
        (8, 1, 10 / 512),
        (3, 3, 42 / 64),  # (20 + 15 + 6 + 1) / 2⁶
        (16, 6, 110056 / 4194304),  # the sum of C(22, k) for k = 16 … 22, over 2²²
    ],
)
def test_the_p_value_is_the_one_worked_out_by_hand(lost: int, won: int, p_value: float) -> None:
    assert mcnemar_p_value(lost, won) == pytest.approx(p_value, rel=1e-12)


@given(lost=st.integers(0, 300), won=st.integers(0, 300))
@settings(deadline=None)
def test_the_p_value_is_the_tail_of_fair_coins(lost: int, won: int) -> None:
    tail = sum(math.comb(lost + won, heads) for heads in range(lost, lost + won + 1))
    assert mcnemar_p_value(lost, won) == pytest.approx(tail / 2 ** (lost + won), rel=1e-9)


def test_a_class_that_could_show_no_loss_costs_the_others_nothing() -> None:
    """Of two images on which models differ not even both lost are a loss: only the first class is tested."""
    alone = class_losses(np.array([12]), np.array([1]), 0.05)
    among = class_losses(np.array([12, *[1] * 99]), np.array([1, *[1] * 99]), 0.05)
    assert (alone.bound, alone.tested) == (among.bound, among.tested) == (0.05, 1)
    assert among.p_values[0] == mcnemar_p_value(12, 1) < among.bound


def test_classes_that_could_all_show_a_loss_share_the_significance() -> None:
    tests = class_losses(np.array([20] * 10), np.array([20] * 10), 0.05)
    assert (tests.bound, tests.tested) == (0.005, 10)


@pytest.mark.parametrize(("classes", "differ"), [(2, 40), (10, 6), (100, 6), (1000, 3)])
def test_equal_classes_show_a_loss_at_most_as_often_as_stated(classes: int, differ: int) -> None:
    generator, times = np.random.default_rng(classes), 600
    refused = 0
    for _ in range(times):
        differing = generator.poisson(differ, classes)
        lost = generator.binomial(differing, 0.5)
        tests = class_losses(lost, differing - lost, 0.05)
        refused += bool((tests.p_values <= tests.bound).any())
    assert refused <= 0.05 * times + 3 * math.sqrt(0.05 * 0.95 * times)


def _confidences(generator: np.random.Generator, images: int, shift: float = 0.0) -> Confidences:
    sure = generator.uniform(0.5, 1, images)
    correct = generator.random(images) < sure
    return Confidences(np.clip(sure + shift, 0, 1), correct, BINS)


def test_the_error_is_the_one_that_metrics_report() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([0.4] * 5, 400).astype(np.float32)
    labels = generator.integers(0, 5, 400).astype(np.int32)
    correct = probabilities.argmax(axis=1) == labels
    ours = Confidences(probabilities.max(axis=1).astype(np.float64), correct, BINS)
    assert ours.error == pytest.approx(calibration(probabilities, labels, BINS).expected_error, abs=1e-12)


def test_the_same_answers_are_no_rise_and_a_shift_of_all_is() -> None:
    generator = np.random.default_rng(1)
    sound = _confidences(generator, 2000)
    assert calibration_p_value(sound, sound) == 1.0
    shifted = Confidences(np.clip(sound.confidence + 0.15, 0, 1), sound.correct, BINS)
    assert calibration_p_value(shifted, sound) == 1 / 2000
    assert calibration_p_value(sound, shifted) == 1.0
    assert calibration_p_value(shifted, sound) == calibration_p_value(shifted, sound)


def test_it_agrees_with_changing_places_one_by_one() -> None:
    generator = np.random.default_rng(2)
    ours, theirs = _confidences(generator, 60), _confidences(generator, 60)
    seen, at_least, times = ours.error - theirs.error, 1, 4000
    for _ in range(times):
        swap = generator.random(60) < 0.5
        one, other = (
            Confidences(np.where(swap, b.confidence, a.confidence), np.where(swap, b.correct, a.correct), BINS)
            for a, b in ((ours, theirs), (theirs, ours))
        )
        at_least += one.error - other.error >= seen - 1e-12
    assert calibration_p_value(ours, theirs) == pytest.approx(at_least / (times + 1), abs=0.05)


def test_equal_models_show_a_rise_as_often_as_stated() -> None:
    generator = np.random.default_rng(3)
    times = 200
    found = [calibration_p_value(_confidences(generator, 200), _confidences(generator, 200), 199) for _ in range(times)]
    assert np.mean(np.array(found) <= 0.1) <= 0.1 + 3 * math.sqrt(0.09 / times)
