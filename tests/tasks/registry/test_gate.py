"""Who becomes champion, rule by rule, against figures worked out by hand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.params.params import PublishParams
from tasks.registry.gate import (
    COMPARISONS,
    Champion,
    IncomparableChampion,
    Measurement,
    Verdict,
    is_not_significantly_worse,
    judge,
    keeps_every_class,
    mcnemar_p_value,
    reaches_floor,
    stays_calibrated,
    stays_within_tolerance,
)
from tasks.registry.manifest import Finding

CLASSES = ("ant", "bee", "cat")
ID = "0123456789abcdef"


def _params(**changes: Any) -> PublishParams:
    return PublishParams.model_validate({"bucket": "retrain", "prefix": "models", **changes})


def _measurement(
    correct: Sequence[bool], labels: Sequence[int] | None = None, calibration_error: float = 0.1
) -> Measurement:
    if labels is None:
        labels = [position % len(CLASSES) for position in range(len(correct))]
    return Measurement(np.array(correct, bool), np.array(labels, np.int32), CLASSES, calibration_error)


def _pair(both: int, lost: int, won: int, neither: int) -> tuple[Measurement, Champion]:
    """Return a release and a champion that agree and differ on so many images."""
    ours = [True] * both + [False] * lost + [True] * won + [False] * neither
    theirs = [True] * both + [True] * lost + [False] * won + [False] * neither
    return _measurement(ours), Champion(ID, _measurement(theirs))


# The floor


@pytest.mark.parametrize(("minimum", "passed"), [(0.0, True), (0.6, True), (0.60001, False), (1.0, False)])
def test_the_floor(minimum: float, passed: bool) -> None:
    finding = reaches_floor(_measurement([True] * 6 + [False] * 4), _params(minimum_top1=minimum))
    assert finding.passed is passed
    assert finding.figures == {"top1": 0.6, "minimum_top1": minimum}
    word = "reaches" if passed else "is below"
    assert finding.sentence == f"top-1 60.00 % {word} the floor of {100 * minimum:.2f} %"


# McNemar's exact test


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


@pytest.mark.parametrize(("lost", "won", "passed"), [(8, 1, False), (5, 1, True), (5, 0, False), (4, 0, True)])
def test_a_significant_loss_is_refused(lost: int, won: int, passed: bool) -> None:
    finding = is_not_significantly_worse(*_pair(50, lost, won, 10), _params())
    assert finding.passed is passed
    images = 60 + lost + won
    assert finding.figures == {
        "champion": ID,
        "evaluated_again": False,
        "images": images,
        "lost": lost,
        "won": won,
        "p_value": mcnemar_p_value(lost, won),
        "significance": 0.05,
    }
    assert f"of {images} test images {lost} are answered rightly by the champion {ID} only" in finding.sentence
    assert ("no significant loss" in finding.sentence) is passed


def test_stricter_significance_refuses_more() -> None:
    pair = _pair(50, 5, 1, 10)  # p = 7 / 64 = 0.109
    assert is_not_significantly_worse(*pair, _params(significance=0.1)).passed
    assert not is_not_significantly_worse(*pair, _params(significance=0.11)).passed


def test_one_image_of_ten_thousand_is_chance_and_many_are_not() -> None:
    """Two seeds of one recipe disagree on a few hundred images; what counts is by how much more one of them loses."""
    assert judge(*_pair(9000, 301, 300, 399), _params()).passed
    assert judge(*_pair(9000, 320, 280, 400), _params()).passed
    verdict = judge(*_pair(9000, 325, 280, 395), _params())  # 0.45 points: within the tolerance, but no chance
    assert [finding.rule for finding in verdict.findings if not finding.passed] == ["is_not_significantly_worse"]


# The tolerance


@pytest.mark.parametrize(
    ("lost", "won", "passed", "words"),
    [
        (0, 10, True, "is 1.00 points above the 90.00 % of"),
        (3, 3, True, "is equal to the 90.00 % of"),
        (5, 0, True, "is 0.50 points below the 90.00 % of"),
        (6, 0, False, "is 0.60 points below the 90.00 % of"),
    ],
)
def test_top1_may_fall_by_the_tolerance_and_no_more(lost: int, won: int, passed: bool, words: str) -> None:
    finding = stays_within_tolerance(*_pair(900 - lost, lost, won, 100 - won), _params())
    assert finding.passed is passed
    assert words in finding.sentence
    assert finding.figures["change"] == (won - lost) / 1000
    assert ("allowed" in finding.sentence) is (lost > won)


def test_without_tolerance_an_equal_model_passes_and_one_image_less_does_not() -> None:
    assert stays_within_tolerance(*_pair(10, 1, 1, 1), _params(tolerance_top1=0)).passed
    assert not stays_within_tolerance(*_pair(10, 2, 1, 1), _params(tolerance_top1=0)).passed


# Classes


@pytest.mark.parametrize(("lost", "passed"), [(0, True), (5, True), (6, False)])
def test_no_class_may_fall_by_more_than_is_allowed(lost: int, passed: bool) -> None:
    labels = [0] * 100 + [1] * 100 + [2] * 100
    theirs = [True] * 90 + [False] * 10 + [True] * 90 + [False] * 10 + [False] * 100
    ours = [True] * 90 + [False] * 10 + [True] * (90 - lost) + [False] * (10 + lost) + [True] * 100
    finding = keeps_every_class(_measurement(ours, labels), Champion(ID, _measurement(theirs, labels)), _params())
    assert finding.passed is passed
    assert finding.figures["change"] == -lost / 100
    if lost:
        assert (finding.figures["class"], finding.figures["images"]) == ("bee", 100)
        assert "bee" in finding.sentence
    assert (
        finding.sentence
        == {
            0: "no class falls",
            5: "no class falls by more than the 5.00 points allowed: most of all bee, by 5.00 points",
            6: "class bee falls by 6.00 points, more than the 5.00 points allowed",
        }[lost]
    )


def test_a_class_without_test_images_is_no_loss() -> None:
    pair = _measurement([True, True], [0, 1]), Champion(ID, _measurement([True, True], [0, 1]))
    assert keeps_every_class(*pair, _params()).passed


# Calibration


@pytest.mark.parametrize(("ours", "passed"), [(0.01, True), (0.05, True), (0.07, True), (0.0701, False)])
def test_the_calibration_error_may_rise_by_what_is_allowed(ours: float, passed: bool) -> None:
    finding = stays_calibrated(_measurement([True], calibration_error=ours), _champion(0.05), _params())
    assert finding.passed is passed
    assert finding.figures["calibration_error"] == ours
    assert finding.figures["champion_calibration_error"] == 0.05
    assert finding.figures["largest_calibration_rise"] == 0.02


def _champion(calibration_error: float) -> Champion:
    return Champion(ID, _measurement([True], calibration_error=calibration_error))


# Together


def test_an_identical_model_passes_every_rule() -> None:
    same = _measurement([True, False, True, True])
    verdict = judge(same, Champion(ID, same), _params(tolerance_top1=0, largest_class_drop=0))
    assert verdict.passed
    assert [finding.rule for finding in verdict.findings] == ["reaches_floor", *(rule.__name__ for rule in COMPARISONS)]


def test_without_a_champion_the_floor_decides_and_every_rule_is_listed() -> None:
    for minimum, passed in ((0.5, True), (0.6, False)):
        verdict = judge(_measurement([True, False]), None, _params(minimum_top1=minimum))
        assert verdict.passed is passed
        assert len(verdict.findings) == 5
        assert verdict.sentences[1:] == ("there is no champion yet",)


def test_a_champion_that_cannot_be_compared_refuses_in_its_own_words() -> None:
    verdict = judge(_measurement([True]), IncomparableChampion(ID, "it knows other classes"), _params())
    assert not verdict.passed
    assert verdict.objections == ("it knows other classes",)
    assert all(finding.figures == {"champion": ID} for finding in verdict.findings[1:])


def test_other_rules_are_part_of_the_verdict() -> None:
    further = Finding(rule="reloads", passed=False, sentence="it does not answer", figures={})
    verdict = judge(_measurement([True]), None, _params(), (further,))
    assert not verdict.passed
    assert verdict.findings[-1] == further
    assert verdict.objections == ("it does not answer",)


def test_a_champion_that_was_evaluated_again_is_spoken_of_as_such() -> None:
    same = _measurement([True])
    verdict = judge(same, Champion(ID, same, evaluated_again=True), _params())
    assert "evaluated again on this test set" in verdict.sentences[1]
    assert verdict.findings[1].figures["evaluated_again"] is True


# What cannot make a verdict worse

answers = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 2)), min_size=1, max_size=60)
thresholds = st.fixed_dictionaries(
    {
        "minimum_top1": st.sampled_from([0.0, 0.3, 0.8]),
        "significance": st.sampled_from([0.01, 0.05, 0.3]),
        "tolerance_top1": st.sampled_from([0.0, 0.05, 0.2]),
        "largest_class_drop": st.sampled_from([0.0, 0.1, 0.5]),
        "largest_calibration_rise": st.sampled_from([0.0, 0.02]),
    }
)


def _judged(images: Sequence[tuple[bool, bool, int]], values: dict[str, float], ours: float = 0.1) -> Verdict:
    labels = [label for _, _, label in images]
    candidate = _measurement([right for right, _, _ in images], labels, ours)
    champion = Champion(ID, _measurement([right for _, right, _ in images], labels, 0.1))
    return judge(candidate, champion, _params(**values))


def _passed(verdict: Verdict) -> set[str]:
    return {finding.rule for finding in verdict.findings if finding.passed}


@given(images=answers, values=thresholds, position=st.integers(0, 59))
@settings(deadline=None)
def test_one_more_right_answer_never_loses_a_rule(
    images: list[tuple[bool, bool, int]], values: dict[str, float], position: int
) -> None:
    position %= len(images)
    _, theirs, label = images[position]
    improved = [*images[:position], (True, theirs, label), *images[position + 1 :]]
    assert _passed(_judged(images, values)) <= _passed(_judged(improved, values))


@given(images=answers, values=thresholds, looser=thresholds, errors=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(deadline=None)
def test_looser_thresholds_and_better_calibration_never_lose_a_rule(
    images: list[tuple[bool, bool, int]],
    values: dict[str, float],
    looser: dict[str, float],
    errors: tuple[float, float],
) -> None:
    lower_is_looser = {"minimum_top1", "significance"}
    loose = {name: (min if name in lower_is_looser else max)(values[name], looser[name]) for name in values}
    strict_verdict = _judged(images, values, max(errors))
    assert _passed(strict_verdict) <= _passed(_judged(images, loose, min(errors)))


@given(images=answers)
@settings(deadline=None)
def test_a_model_never_loses_against_itself(images: list[tuple[bool, bool, int]]) -> None:
    same = [(right, right, label) for right, _, label in images]
    strictest = {
        "tolerance_top1": 0.0,
        "largest_class_drop": 0.0,
        "largest_calibration_rise": 0.0,
        "significance": 0.99,
    }
    assert _judged(same, strictest).passed
