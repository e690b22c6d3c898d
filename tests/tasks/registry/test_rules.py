"""The gate's rules one by one, against figures worked out by hand."""

import numpy as np
import pytest

from tasks.registry.opponents import Measurement, Opponent
from tasks.registry.paired_tests import Confidences, mcnemar_p_value
from tasks.registry.rules import (
    beats_the_largest_class,
    is_not_worse,
    keeps_every_class,
    reaches_floor,
    stays_calibrated,
    stays_near_the_best,
)
from tests.tasks.registry.measurements import BEST, CLASSES, ID, measurement, pair, publish_params

STRICT = 0.05  # significance of one rule


# The floor


@pytest.mark.parametrize(("minimum", "passed"), [(0.0, True), (0.6, True), (0.60001, False), (1.0, False)])
def test_the_floor(minimum: float, passed: bool) -> None:
    finding = reaches_floor(measurement([True] * 6 + [False] * 4), publish_params(minimum_top1=minimum))
    assert finding.passed is passed
    assert finding.figures == {"top1": 0.6, "minimum_top1": minimum}
    word = "reaches" if passed else "is below"
    assert finding.sentence == f"top-1 60.00 % {word} the floor of {100 * minimum:.2f} %"


# The larger class


@pytest.mark.parametrize(
    ("right", "passed"), [(106, False), (198, False), (207, False), (215, True), (264, True)]
)  # of 304, of which always answering "fine" gets 198: p = 0.515 for 198, 0.055 for 212
def test_a_first_champion_beats_always_answering_the_largest_class(right: int, passed: bool) -> None:
    labels = [0] * 198 + [1] * 106
    found = beats_the_largest_class(
        measurement([True] * right + [False] * (304 - right), labels, ("fine", "defect")), publish_params()
    )
    assert found.passed is passed
    assert found.figures["class"] == "fine"
    assert "of always answering fine" in found.sentence


# Top-1 against the champion, and against the best


def test_a_loss_is_refused_where_it_is_more_than_allowed_and_more_than_chance() -> None:
    cases = {
        (8990, 300, 260, 450): (True, 0.05),  # 0.4 points: within the tolerance, though hardly chance
        (9000, 320, 180, 500): (False, 1e-9),  # 1.4 points, and no chance
        (180, 6, 4, 10): (True, 0.3),  # 1 point of 200 images: chance
    }
    for numbers, (passed, p_below) in cases.items():
        finding = is_not_worse(*pair(*numbers), publish_params(), STRICT)
        assert finding.passed is passed
        assert finding.figures["p_value"] == mcnemar_p_value(numbers[1], numbers[2])
        assert finding.figures["p_value"] < max(p_below, 0.4)
        assert (finding.figures["lost"], finding.figures["won"]) == numbers[1:3]


@pytest.mark.parametrize(
    ("lost", "won", "words"),
    [
        (0, 10, "is 1.00 points above the 90.00 % of the champion"),
        (3, 3, "is equal to the 90.00 % of the champion"),
        (5, 0, "is 0.50 points below the 90.00 % of the champion 0123456789abcdef, within the 0.50 points allowed"),
        (20, 0, "which is hardly chance, and more than the 0.50 points allowed: 20 of 1,000 images are lost and 0 won"),
    ],
)
def test_its_sentence_has_the_figures(lost: int, won: int, words: str) -> None:
    finding = is_not_worse(*pair(900 - lost, lost, won, 100 - won), publish_params(), STRICT)
    assert words in finding.sentence
    assert finding.passed is (lost < 20)


def test_the_best_release_has_a_bound_of_its_own() -> None:
    release, champion = pair(9000, 260, 180, 560)  # 0.8 points below
    best = Opponent(BEST, champion.measurement, role="best")
    assert stays_near_the_best(release, best, publish_params(), STRICT).passed
    finding = stays_near_the_best(release, best, publish_params(tolerance_below_best=0.005), STRICT)
    assert not finding.passed
    assert (
        f"of the best release {BEST}, which is hardly chance, and more than the 0.50 points allowed" in finding.sentence
    )
    assert finding.figures["best"] == BEST


# Classes


def _class_pair(lost: int) -> tuple[Measurement, Opponent]:
    labels = [0] * 100 + [1] * 100 + [2] * 100
    theirs = [True] * 90 + [False] * 10 + [True] * 90 + [False] * 10 + [False] * 100
    ours = [True] * 90 + [False] * 10 + [True] * (90 - lost) + [False] * (10 + lost) + [True] * 100
    return measurement(ours, labels), Opponent(ID, measurement(theirs, labels))


@pytest.mark.parametrize(
    ("lost", "passed", "sentence"),
    [
        (0, True, "no class falls"),
        (5, True, "no class falls by more than the 5.00 points allowed: most of all bee, by 5.00 points"),
        (6, False, "class bee falls by 6.00 points, more than the 5.00 points allowed and than chance may take"),
    ],
)
def test_no_class_may_fall_by_more_than_is_allowed(lost: int, passed: bool, sentence: str) -> None:
    finding = keeps_every_class(*_class_pair(lost), publish_params(), STRICT)
    assert finding.passed is passed
    assert finding.sentence == sentence
    assert finding.figures["change"] == -lost / 100


def test_what_may_be_chance_is_no_fall() -> None:
    labels = [0] * 10 + [1] * 10
    theirs, ours = [True] * 20, [True] * 18 + [False] * 2  # 20 points of ten images
    names = ("ant", "bee")
    finding = keeps_every_class(
        measurement(ours, labels, names), Opponent(ID, measurement(theirs, labels, names)), publish_params(), STRICT
    )
    assert finding.passed
    assert finding.sentence == "no class falls beyond chance: most of all bee, by 20.00 points of 10 images"


def test_a_class_without_test_images_is_said_to_be_not_measured() -> None:
    same = measurement([True, True], [0, 1])
    finding = keeps_every_class(same, Opponent(ID, same), publish_params(), STRICT)
    assert finding.passed
    assert finding.sentence == f"no class falls; without a test image, so not measured: {CLASSES[2]}"
    assert finding.figures["classes_unmeasured"] == 1


# Calibration


@pytest.mark.parametrize(("sure", "passed"), [(0.9, True), (0.95, True), (0.97, True), (0.8, False), (0.99, False)])
def test_the_calibration_error_may_rise_by_what_is_allowed(sure: float, passed: bool) -> None:
    right = [True] * 900 + [
        False
    ] * 100  # so that an error is how far the confidence is from 0.9; the champion's is 0.05
    champion = Opponent(ID, measurement(right, sure=0.95))
    finding = stays_calibrated(measurement(right, sure=sure), champion, publish_params(), STRICT)
    assert finding.passed is passed
    assert finding.figures["calibration_error"] == pytest.approx(abs(sure - 0.9))
    assert finding.figures["champion_calibration_error"] == pytest.approx(0.05)


def test_a_rise_that_may_be_chance_is_none() -> None:
    generator = np.random.default_rng(5)
    right = generator.random(40) < 0.7
    sure = generator.uniform(0.5, 1, (2, 40))
    errors = [Confidences(one, right, 15).error for one in sure]
    ours, theirs = (sure[0], sure[1]) if errors[0] > errors[1] else (sure[1], sure[0])
    labels = np.zeros(40, np.int32)

    def one(confidence: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Measurement:
        return Measurement(right, labels, CLASSES, Confidences(confidence, right, 15))

    params = publish_params(largest_calibration_rise=0)
    finding = stays_calibrated(one(ours), Opponent(ID, one(theirs)), params, STRICT)
    assert finding.passed
    assert "may be chance" in finding.sentence
