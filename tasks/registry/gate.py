"""The rules that a release must pass to become champion: each a function that answers in a sentence with its figures.

A release may take the champion's place when all of them hold. Both models answered the same test images, and are
compared image by image:

- `reaches_floor`: top-1 is at least `publish.minimum_top1`;
- `is_not_significantly_worse`: McNemar's exact test does not show a loss, at `publish.significance`;
- `stays_within_tolerance`: top-1 is at most `publish.tolerance_top1` lower;
- `keeps_every_class`: no class loses more than `publish.largest_class_drop` of its images;
- `stays_calibrated`: the calibration error rises by at most `publish.largest_calibration_rise`;
- `was_not_rolled_back`, `was_not_beaten` (tasks/registry/history_rules.py): a release that was champion and lost its
  place comes back by a person's word only;
- `reloads` and `serves` (tasks/registry/reload.py): what is in the bucket answers as it was recorded.

So an equal model passes, and so does one whose few lost images are chance. Two rules share the work: on a small test
set, where chance hides a loss from the test, the tolerance refuses; on a large one, where the tolerance is many images,
the test does. Several releases in a row may each lose a little: what they may lose together is bounded by the floor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.params.params import PublishParams
from tasks.registry.manifest import Figures, Finding

# Shares are quotients of whole numbers: a loss of exactly what is allowed is allowed, whatever its last bit says.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Measurement:
    """How a model answered all test images.

    Attributes:
        correct: Whether its most probable class is the right one, bool (N,).
        labels: The right classes as positions in `classes`, int32 (N,).
        classes: Their names.
        calibration_error: Expected calibration error, 0 to 1.
    """

    correct: NDArray[np.bool_]
    labels: NDArray[np.int32]
    classes: tuple[str, ...]
    calibration_error: float

    @property
    def top1(self) -> float:
        """Share of images that it answered rightly."""
        return float(self.correct.mean())


@dataclass(frozen=True)
class Champion:
    """The release to compare with: its id, its answers, and whether it gave them for this comparison only."""

    id: str
    measurement: Measurement
    evaluated_again: bool = False

    @property
    def name(self) -> str:
        """How sentences speak of it."""
        return f"the champion {self.id}{', evaluated again on this test set' if self.evaluated_again else ''}"

    @property
    def figures(self) -> Figures:
        """Which release it is, for a finding."""
        return {"champion": self.id, "evaluated_again": self.evaluated_again}


@dataclass(frozen=True)
class IncomparableChampion:
    """A champion that cannot answer this test set, and why, in a sentence."""

    id: str
    sentence: str


Opponent: TypeAlias = Champion | IncomparableChampion | None  # None: there is no champion
Comparison: TypeAlias = Callable[[Measurement, Champion, PublishParams], Finding]


@dataclass(frozen=True)
class Verdict:
    """What all rules say together."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether every rule is passed."""
        return all(finding.passed for finding in self.findings)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Every rule's sentence; what several say in the same words once."""
        return tuple(dict.fromkeys(finding.sentence for finding in self.findings))

    @property
    def objections(self) -> tuple[str, ...]:
        """The sentences of the rules that are not passed."""
        return tuple(dict.fromkeys(finding.sentence for finding in self.findings if not finding.passed))


def judge(
    candidate: Measurement, champion: Opponent, params: PublishParams, further: tuple[Finding, ...] = ()
) -> Verdict:
    """Judge a release against the champion.

    Args:
        candidate: The release's answers.
        champion: The champion's, to the same test images.
        params: The thresholds.
        further: What rules say that look at something else than answers.
    """
    compared = tuple(_compare(rule, candidate, champion, params) for rule in COMPARISONS)
    return Verdict((reaches_floor(candidate, params), *compared, *further))


def reaches_floor(candidate: Measurement, params: PublishParams) -> Finding:
    """Pass where top-1 is at or above `publish.minimum_top1`."""
    passed = candidate.top1 >= params.minimum_top1 - ROUNDING
    relation = "reaches" if passed else "is below"
    return Finding(
        rule="reaches_floor",
        passed=passed,
        sentence=f"top-1 {_percent(candidate.top1)} {relation} the floor of {_percent(params.minimum_top1)}",
        figures={"top1": candidate.top1, "minimum_top1": params.minimum_top1},
    )


def is_not_significantly_worse(candidate: Measurement, champion: Champion, params: PublishParams) -> Finding:
    """Pass where the chance that an equal model loses so many images or more is at least `publish.significance`."""
    lost, won = _lost_and_won(candidate, champion)
    p_value = mcnemar_p_value(lost, won)
    passed = p_value >= params.significance
    return Finding(
        rule="is_not_significantly_worse",
        passed=passed,
        sentence=(
            f"of {len(candidate.correct):,} test images {lost:,} are answered rightly by {champion.name} only and "
            f"{won:,} by this release only, {'no' if passed else 'a'} significant loss by McNemar's exact test "
            f"(p = {p_value:.3g}, significance {params.significance:g})"
        ),
        figures={
            **champion.figures,
            "images": len(candidate.correct),
            "lost": lost,
            "won": won,
            "p_value": p_value,
            "significance": params.significance,
        },
    )


def mcnemar_p_value(lost: int, won: int) -> float:
    """Return the one-sided p-value of McNemar's exact test (Psychometrika 12:153-157, 1947, doi 10.1007/BF02295996).

    Images that both models answer alike say nothing of the difference. If the models were equally good, each other
    image would be as likely lost as won: the value is the chance of `lost` or more of them.
    """
    from scipy.stats import binomtest  # noqa: PLC0415  takes most of a second, and few commands judge

    return float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue) if lost else 1.0


def stays_within_tolerance(candidate: Measurement, champion: Champion, params: PublishParams) -> Finding:
    """Pass where top-1 is higher than the champion's, equal, or lower by at most `publish.tolerance_top1`."""
    lost, won = _lost_and_won(candidate, champion)
    change = (won - lost) / len(candidate.correct)
    passed = change >= -params.tolerance_top1 - ROUNDING
    sentence = f"top-1 {_percent(candidate.top1)} is {_change(change)} {_percent(champion.measurement.top1)} of "
    sentence += champion.name
    if change < 0:
        sentence += f", {'within' if passed else 'more than'} the {_points(params.tolerance_top1)} allowed"
    return Finding(
        rule="stays_within_tolerance",
        passed=passed,
        sentence=sentence,
        figures={
            **champion.figures,
            "top1": candidate.top1,
            "champion_top1": champion.measurement.top1,
            "change": change,
            "tolerance_top1": params.tolerance_top1,
        },
    )


def keeps_every_class(candidate: Measurement, champion: Champion, params: PublishParams) -> Finding:
    """Pass where no class's share of rightly answered images falls by more than `publish.largest_class_drop`."""
    images = np.bincount(candidate.labels, minlength=len(candidate.classes))
    gained = candidate.correct.astype(np.int64) - champion.measurement.correct
    changes = np.bincount(candidate.labels, weights=gained, minlength=len(images)) / np.maximum(images, 1)
    worst = int(changes.argmin())
    change, name = float(changes[worst]), candidate.classes[worst]
    passed = change >= -params.largest_class_drop - ROUNDING
    allowed = _points(params.largest_class_drop)
    if change >= 0:
        sentence = "no class falls"
    elif passed:
        sentence = f"no class falls by more than the {allowed} allowed: most of all {name}, by {_points(-change)}"
    else:
        sentence = f"class {name} falls by {_points(-change)}, more than the {allowed} allowed"
    return Finding(
        rule="keeps_every_class",
        passed=passed,
        sentence=sentence,
        figures={
            **champion.figures,
            "class": name,
            "images": int(images[worst]),
            "change": change,
            "largest_class_drop": params.largest_class_drop,
        },
    )


def stays_calibrated(candidate: Measurement, champion: Champion, params: PublishParams) -> Finding:
    """Pass where the calibration error is at most `publish.largest_calibration_rise` higher than the champion's."""
    ours, theirs = candidate.calibration_error, champion.measurement.calibration_error
    passed = ours - theirs <= params.largest_calibration_rise + ROUNDING
    sentence = f"the expected calibration error {_percent(ours)} is {_change(ours - theirs)} {_percent(theirs)} of "
    sentence += champion.name
    if ours > theirs:
        sentence += f", {'within' if passed else 'more than'} the {_points(params.largest_calibration_rise)} allowed"
    return Finding(
        rule="stays_calibrated",
        passed=passed,
        sentence=sentence,
        figures={
            **champion.figures,
            "calibration_error": ours,
            "champion_calibration_error": theirs,
            "change": ours - theirs,
            "largest_calibration_rise": params.largest_calibration_rise,
        },
    )


COMPARISONS: tuple[Comparison, ...] = (
    is_not_significantly_worse,
    stays_within_tolerance,
    keeps_every_class,
    stays_calibrated,
)


def _compare(rule: Comparison, candidate: Measurement, champion: Opponent, params: PublishParams) -> Finding:
    """Return what a rule says, or that there is nothing to compare with."""
    if isinstance(champion, Champion):
        return rule(candidate, champion, params)
    if champion is None:
        return Finding(rule=rule.__name__, passed=True, sentence="there is no champion yet", figures={})
    return Finding(rule=rule.__name__, passed=False, sentence=champion.sentence, figures={"champion": champion.id})


def _lost_and_won(candidate: Measurement, champion: Champion) -> tuple[int, int]:
    """Return how many images only the champion answers rightly, and how many only the release."""
    ours, theirs = candidate.correct, champion.measurement.correct
    return int((theirs & ~ours).sum()), int((ours & ~theirs).sum())


def _change(change: float) -> str:
    """Return how one share stands to another that is named next."""
    if abs(change) < ROUNDING:
        return "equal to the"
    return f"{_points(abs(change))} {'above' if change > 0 else 'below'} the"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"
