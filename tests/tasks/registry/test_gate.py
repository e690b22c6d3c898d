"""Who becomes champion: what all rules say together, and how often they refuse an equal model."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gate_power import Line, drawn, refused
from tasks.registry.gate import AGAINST_THE_CHAMPION, SHARES, Verdict, judge
from tasks.registry.manifest import Finding
from tasks.registry.opponents import Incomparable, Opponent
from tasks.registry.rules import stays_near_the_best
from tests.tasks.registry.measurements import BEST, ID, measurement, pair, publish_params


def test_the_shares_of_the_significance_are_no_more_than_all_of_it() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)


# Equals, and what is worse


@pytest.mark.parametrize(
    ("images", "classes"), [(200, 2), (200, 10), (270, 10), (1_000, 10), (10_000, 10), (10_000, 100), (10_000, 1_000)]
)
def test_an_equal_model_is_refused_at_most_as_often_as_stated(images: int, classes: int) -> None:
    assert refused(images, classes, 60) <= 0.05 + 3 * (0.05 * 0.95 / 60) ** 0.5


def test_what_is_two_points_worse_on_ten_thousand_images_is_refused() -> None:
    assert refused(10_000, 10, 60, drop=0.02) == 1


def test_a_class_that_falls_by_fifteen_points_is_mostly_seen_at_a_hundred_of_its_images() -> None:
    assert refused(1_000, 10, 100, drop=0.15, of_class=3) >= 0.7  # 0.8 is expected


def test_no_line_of_small_losses_ends_far_below_its_best() -> None:
    """Each release is exactly 0.4 points worse than the last: within the tolerance against the champion, every time."""
    images, right, params = 10_000, 9_000, publish_params()
    best = measurement([True] * right + [False] * (images - right))
    champion = Opponent(ID, best)
    for _ in range(100):
        right -= 40
        release = measurement([True] * right + [False] * (images - right))
        verdict = judge(release, champion, Opponent(BEST, best, role="best", chosen_from=100), params)
        if not verdict.passed:
            break
        champion = Opponent(ID, release)
    assert [finding.rule for finding in verdict.findings if not finding.passed] == ["stays_near_the_best"]
    assert best.top1 - champion.measurement.top1 <= params.tolerance_below_best


def test_the_best_of_many_is_no_harder_to_equal() -> None:
    """Of fifty equal models the luckiest stands high; what equals them all is refused no more often for that."""
    generator, params, refusals = np.random.default_rng(4), publish_params(), 0
    for _ in range(100):
        lucky = max((drawn(generator, 270, 10)[0] for _ in range(50)), key=lambda one: one.top1)
        best = Opponent(BEST, lucky, role="best", chosen_from=50)
        share = SHARES[stays_near_the_best] * params.significance / best.chosen_from
        refusals += not stays_near_the_best(drawn(generator, 270, 10)[0], best, params, share).passed
    assert refusals <= 5


@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_nights_of_a_tenth_of_a_point_cost_the_bound_and_little_more(seed: int) -> None:
    lost = Line(np.random.default_rng(seed), 10_000, drift=0.001).lost(nights=100)
    assert 0.001 <= lost <= publish_params().tolerance_below_best + 0.01


# Together


def test_an_identical_model_passes_every_rule() -> None:
    same = measurement([True, False, True, True])
    params = publish_params(tolerance_top1=0, largest_class_drop=0, largest_calibration_rise=0)
    verdict = judge(same, Opponent(ID, same), None, params)
    assert verdict.passed
    rules = [finding.rule for finding in verdict.findings]
    assert rules == ["reaches_floor", *(rule.__name__ for rule in AGAINST_THE_CHAMPION)]


def test_without_a_champion_floor_and_largest_class_decide() -> None:
    for right, minimum, passed in ((30, 0.5, True), (30, 1.0, False), (10, 0.0, False)):
        verdict = judge(
            measurement([True] * right + [False] * (33 - right)), None, None, publish_params(minimum_top1=minimum)
        )
        assert verdict.passed is passed
        assert [finding.rule for finding in verdict.findings] == ["reaches_floor", "beats_the_largest_class"]


def test_a_champion_that_cannot_be_compared_refuses_in_its_own_words() -> None:
    verdict = judge(measurement([True]), Incomparable(ID, "it knows other classes"), None, publish_params())
    assert not verdict.passed
    assert verdict.objections == ("it knows other classes",)
    assert all(finding.figures == {"champion": ID} for finding in verdict.findings[1:])


def test_other_rules_are_part_of_the_verdict() -> None:
    further = Finding(rule="reloads", passed=False, sentence="it does not answer", figures={})
    verdict = judge(measurement([True] * 9), None, None, publish_params(), (further,))
    assert not verdict.passed
    assert verdict.findings[-1] == further
    assert verdict.objections == ("it does not answer",)


def test_a_champion_that_was_evaluated_again_is_spoken_of_as_such() -> None:
    same = measurement([True])
    verdict = judge(same, Opponent(ID, same, evaluated_again=True), None, publish_params())
    assert "evaluated again on this test set" in verdict.sentences[1]
    assert verdict.findings[1].figures["evaluated_again"] is True


def test_stricter_significance_refuses_more() -> None:
    numbers = pair(900, 30, 18, 52)  # 1.2 points, p = 0.056
    assert judge(*numbers, None, publish_params(significance=0.05)).passed
    assert not judge(*numbers, None, publish_params(significance=0.6)).passed


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


def _judged(images: Sequence[tuple[bool, bool, int]], values: dict[str, float]) -> Verdict:
    labels = [label for _, _, label in images]
    candidate = measurement([right for right, _, _ in images], labels)
    champion = Opponent(ID, measurement([right for _, right, _ in images], labels))
    return judge(candidate, champion, None, publish_params(**values))


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


@given(images=answers, values=thresholds, looser=thresholds)
@settings(deadline=None)
def test_looser_thresholds_never_lose_a_rule(
    images: list[tuple[bool, bool, int]], values: dict[str, float], looser: dict[str, float]
) -> None:
    lower_is_looser = {"minimum_top1", "significance"}
    loose = {name: (min if name in lower_is_looser else max)(values[name], looser[name]) for name in values}
    assert _passed(_judged(images, values)) <= _passed(_judged(images, loose))


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
