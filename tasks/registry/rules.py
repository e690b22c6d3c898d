"""The gate's rules on answers: each a function that says in a sentence, with its figures, whether a release passes."""

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics import ROUNDING, unmeasured
from tasks.params.params import PublishParams
from tasks.registry.manifest import Finding
from tasks.registry.opponents import Measurement, Opponent
from tasks.registry.paired_tests import calibration_p_value, class_losses, mcnemar_p_value
from tasks.stage.shown import percent


def reaches_floor(candidate: Measurement, params: PublishParams) -> Finding:
    """Pass where top-1 is at or above `publish.minimum_top1`."""
    passed = candidate.top1 >= params.minimum_top1 - ROUNDING
    relation = "reaches" if passed else "is below"
    return Finding(
        rule="reaches_floor",
        passed=passed,
        sentence=f"top-1 {percent(candidate.top1)} {relation} the floor of {percent(params.minimum_top1)}",
        figures={"top1": candidate.top1, "minimum_top1": params.minimum_top1},
    )


def beats_the_largest_class(candidate: Measurement, params: PublishParams) -> Finding:
    """Pass where top-1 is significantly above that of always answering the largest class (exact binomial test)."""
    from scipy.stats import binomtest  # noqa: PLC0415  takes most of a second, and few commands judge

    counts = np.bincount(candidate.labels, minlength=len(candidate.classes))
    largest, images, right = int(counts.argmax()), len(candidate.correct), int(candidate.correct.sum())
    share = float(counts[largest] / images)
    p_value = float(binomtest(right, images, share, alternative="greater").pvalue)
    passed = p_value <= params.significance
    name = candidate.classes[largest]
    return Finding(
        rule="beats_the_largest_class",
        passed=passed,
        sentence=(
            f"top-1 {percent(candidate.top1)} is {'' if passed else 'not '}significantly above the {percent(share)} "
            f"of always answering {name} (p = {p_value:.3g}, significance {params.significance:g})"
        ),
        figures={"top1": candidate.top1, "class": name, "share": share, "p_value": p_value},
    )


def is_not_worse(candidate: Measurement, champion: Opponent, params: PublishParams, significance: float) -> Finding:
    """Pass where top-1 falls by at most `publish.tolerance_top1`, or by what an equal model might lose by chance."""
    return _top1_rule("is_not_worse", candidate, champion, significance, params.tolerance_top1)


def stays_near_the_best(candidate: Measurement, best: Opponent, params: PublishParams, significance: float) -> Finding:
    """The same against the best release of this line: `publish.tolerance_below_best` bounds what many may lose."""
    return _top1_rule("stays_near_the_best", candidate, best, significance, params.tolerance_below_best)


def _top1_rule(rule: str, candidate: Measurement, other: Opponent, significance: float, allowed: float) -> Finding:
    lost, won = _lost_and_won(candidate, other)
    images, p_value = len(candidate.correct), mcnemar_p_value(lost, won)
    change, theirs = (won - lost) / images, other.measurement.top1
    passed = change >= -allowed - ROUNDING or p_value > significance
    sentence = f"top-1 {percent(candidate.top1)} is {_change(change)} {percent(theirs)} of {other.name}"
    if change < -allowed - ROUNDING:
        sentence += (
            f", {'which so few images cannot tell from chance' if passed else 'which is hardly chance'}, "
            f"and more than the {_points(allowed)} allowed: {lost:,} of {images:,} images are lost and {won:,} won "
            f"(McNemar's exact test, p = {p_value:.3g}, {significance:.3g} asked)"
        )
    elif change < 0:
        sentence += f", within the {_points(allowed)} allowed"
    return Finding(
        rule=rule,
        passed=passed,
        sentence=sentence,
        figures={
            **other.figures,
            "top1": candidate.top1,
            f"{other.role}_top1": theirs,
            "change": change,
            "allowed": allowed,
            "images": images,
            "lost": lost,
            "won": won,
            "p_value": p_value,
            "significance": significance,
        },
    )


def keeps_every_class(
    candidate: Measurement, champion: Opponent, params: PublishParams, significance: float
) -> Finding:
    """Pass where no class loses more than `publish.largest_class_drop` of its images beyond what chance may take.

    A class without a test image was not measured: it neither passes nor falls, and is named.
    """
    classes = len(candidate.classes)
    images, lost, won = (
        np.bincount(candidate.labels, weights=weights, minlength=classes).astype(np.int64)
        for weights in (None, *_lost_and_won_each(candidate, champion))
    )
    changes = (won - lost) / np.maximum(images, 1)
    tests = class_losses(lost, won, significance)
    fallen = (changes < -params.largest_class_drop - ROUNDING) & (tests.p_values <= tests.bound)
    worst = int(np.lexsort((tests.p_values, changes, ~fallen))[0])
    change, name, p_value = float(changes[worst]), candidate.classes[worst], float(tests.p_values[worst])
    allowed = _points(params.largest_class_drop)
    if change >= 0:
        sentence = "no class falls"
    elif fallen[worst]:
        sentence = f"class {name} falls by {_points(-change)}, more than the {allowed} allowed and than chance may take"
    elif change < -params.largest_class_drop - ROUNDING:
        sentence = (
            f"no class falls beyond chance: most of all {name}, by {_points(-change)} of {images[worst]:,} images"
        )
    else:
        sentence = f"no class falls by more than the {allowed} allowed: most of all {name}, by {_points(-change)}"
    unseen = unmeasured(candidate.classes, images)
    if unseen:
        sentence += f"; without a test image, so not measured: {', '.join(unseen[:10])}{' …' if unseen[10:] else ''}"
    return Finding(
        rule="keeps_every_class",
        passed=not fallen.any(),
        sentence=sentence,
        figures={
            **champion.figures,
            "class": name,
            "images": int(images[worst]),
            "change": change,
            "allowed": params.largest_class_drop,
            "p_value": p_value,
            "significance": tests.bound,
            "classes_tested": tests.tested,
            "classes_unmeasured": len(unseen),
        },
    )


def stays_calibrated(candidate: Measurement, champion: Opponent, params: PublishParams, significance: float) -> Finding:
    """Pass where the calibration error rises by at most `publish.largest_calibration_rise`, or by chance."""
    ours, theirs = candidate.confidences, champion.measurement.confidences
    rise, allowed = ours.error - theirs.error, params.largest_calibration_rise
    above = rise > allowed + ROUNDING
    p_value = calibration_p_value(ours, theirs) if above else 1.0
    passed = not above or p_value > significance
    sentence = f"the expected calibration error {percent(ours.error)} is {_change(rise)} {percent(theirs.error)} of "
    sentence += champion.name
    if above:
        sentence += f", more than the {_points(allowed)} allowed, which may {'' if passed else 'hardly '}be chance "
        sentence += f"(permutation test, p = {p_value:.3g}, {significance:.3g} asked)"
    elif rise > 0:
        sentence += f", within the {_points(allowed)} allowed"
    return Finding(
        rule="stays_calibrated",
        passed=passed,
        sentence=sentence,
        figures={
            **champion.figures,
            "calibration_error": ours.error,
            "champion_calibration_error": theirs.error,
            "change": rise,
            "allowed": allowed,
            "p_value": p_value,
            "significance": significance,
        },
    )


def _lost_and_won_each(candidate: Measurement, other: Opponent) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each image whether only the opponent answers it rightly, and whether only the release does."""
    ours, theirs = candidate.correct, other.measurement.correct
    return theirs & ~ours, ours & ~theirs


def _lost_and_won(candidate: Measurement, other: Opponent) -> tuple[int, int]:
    lost, won = _lost_and_won_each(candidate, other)
    return int(lost.sum()), int(won.sum())


def _change(change: float) -> str:
    """Return how one share stands to another that is named next."""
    if abs(change) < ROUNDING:
        return "equal to the"
    return f"{_points(abs(change))} {'above' if change > 0 else 'below'} the"


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"
