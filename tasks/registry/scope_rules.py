"""The gate's rules on what can be compared at all: enough images, and classes that only the release knows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.params.params import PublishParams
from tasks.registry.manifest import Figures, Finding
from tasks.registry.opponents import Cohort, NewClass, Opponent, Scope
from tasks.stage.shown import percent

SHOWN = 5  # classes


def findings_of_scope(champion: Opponent, params: PublishParams) -> tuple[Finding, ...]:
    """Return what the images compared give to say; nothing where they are all test images, and the classes the same."""
    scope = champion.scope
    if scope is None:
        return ()
    partial = scope.compared < scope.images or scope.lost_classes or not scope.is_recorded
    return (
        *((enough_to_compare(champion, scope, params),) if partial else ()),
        *((learns_new_classes(scope, params),) if scope.new_classes else ()),
        *((tells_cohorts(champion, scope),) if scope.cohorts else ()),
    )


def is_enough(scope: Scope | None, params: PublishParams) -> bool:
    """Return whether two releases can be compared on so many images that it says something."""
    return scope is None or scope.compared >= min(params.minimum_compared, math.ceil(scope.images / 2))


def enough_to_compare(champion: Opponent, scope: Scope, params: PublishParams) -> Finding:
    """Pass where `publish.minimum_compared` test images, or half of all, say which of the two is better."""
    passed = is_enough(scope, params)
    why = []
    if scope.seen:
        why.append(f"{scope.seen:,} that one of them trained on or chose by")
    if scope.of_unknown_classes:
        why.append(f"{scope.of_unknown_classes:,} of classes that the champion does not know")
    sentence = f"compared with {champion.name} on {scope.compared:,} of {scope.images:,} test images"
    if why:
        sentence += f", without {' and '.join(why)}"
    if scope.lost_classes:
        sentence += f"; not asked for any more: {_named(scope.lost_classes)}"
    if not scope.is_recorded:
        sentence += "; what it trained on was not recorded"
    if not passed:
        sentence += ": too few to say which is better (publish.minimum_compared)"
        sentence += "; another publish.prefix starts a line of its own"
    return Finding(
        rule="enough_to_compare",
        passed=passed,
        sentence=sentence,
        figures={
            **champion.figures,
            "images": scope.images,
            "compared": scope.compared,
            "seen": scope.seen,
            "of_unknown_classes": scope.of_unknown_classes,
            "minimum_compared": params.minimum_compared,
        },
    )


def learns_new_classes(scope: Scope, params: PublishParams) -> Finding:
    """Pass where each class that the champion does not know is told from the others better than by chance.

    Fisher's exact test, one-sided: the release answers with the class more often where it is right than elsewhere. A
    class without a test image was not measured, and is named.
    """
    p_values = {each.name: _p_value(each) for each in scope.new_classes if each.images}
    failed = [name for name, p_value in p_values.items() if p_value > params.significance]
    parts = [f"{each.name} {each.right:,} of {each.images:,}" for each in scope.new_classes if each.images]
    unmeasured = [each.name for each in scope.new_classes if not each.images]
    sentence = "new classes"
    if parts:
        sentence += f", answered rightly: {_named(parts)}"
    if failed:
        sentence += f"; not told from the others better than by chance: {_named(failed)}"
    if unmeasured:
        sentence += f"; without a test image, so not measured: {_named(unmeasured)}"
    figures: Figures = {"classes": len(scope.new_classes), "failed": len(failed), "unmeasured": len(unmeasured)}
    if p_values:
        figures |= {"p_value": max(p_values.values()), "significance": params.significance}
    return Finding(rule="learns_new_classes", passed=not failed, sentence=sentence, figures=figures)


def tells_cohorts(champion: Opponent, scope: Scope) -> Finding:
    """Say how both answer the test images that came since the champion was made, beside those that were there."""
    core, came = scope.cohorts
    return Finding(
        rule="tells_cohorts",
        passed=True,
        sentence=(
            f"of {came.images:,} test images that came since the champion {champion.id} was made, it answers "
            f"{_share(came.theirs, came)} rightly and this release {_share(came.ours, came)}; of the {core.images:,} "
            f"that were there, {_share(core.theirs, core)} and {_share(core.ours, core)}"
        ),
        figures={
            **champion.figures,
            **{f"{each.name}_images": each.images for each in scope.cohorts},
            **{f"{each.name}_top1": each.ours / each.images for each in scope.cohorts},
            **{f"{each.name}_champion_top1": each.theirs / each.images for each in scope.cohorts},
        },
    )


def tells_start(start: Mapping[str, Any]) -> Finding:
    """Say from which release the weights came that training began with: the channel's history then holds it.

    Args:
        start: What training.json says of it.
    """
    release = str(start.get("release"))
    sentence = f"it began with the weights of release {release}, and has seen what that has"
    return Finding(rule="tells_start", passed=True, sentence=sentence, figures={"start": release})


def _share(right: int, cohort: Cohort) -> str:
    return percent(right / cohort.images)


def _p_value(new: NewClass) -> float:
    from scipy.stats import fisher_exact  # noqa: PLC0415  takes most of a second, and few commands judge

    table = [[new.right, new.images - new.right], [new.mistaken, new.others - new.mistaken]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
