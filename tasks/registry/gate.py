"""What a release is asked before it becomes champion: who is compared with whom, and what all rules say together.

A release takes the champion's place when every rule passes (tasks/registry/rules.py has a function for each):

- `reaches_floor`, and where there is no champion yet `beats_the_largest_class`;
- against the champion: `enough_to_compare`, `is_not_worse`, `keeps_every_class`, `stays_calibrated`; and where there
  are classes that it does not know, `learns_new_classes`;
- against the best release of this line: `stays_near_the_best`;
- `was_not_rolled_back`, `was_not_beaten` (tasks/registry/history_rules.py);
- `reloads`, `serves` (tasks/registry/reload.py): what is in the bucket answers as it was recorded;
- `tells_cohorts`, `tells_start` and the like say something, and decide nothing.

Those that compare look at the same test images, image by image, which neither has trained on or chosen by
(tasks/registry/fair_comparison.py), and each refuses only a loss that is both more than is
allowed and more than chance. They share `publish.significance`: together they refuse an equal model at most so often.
What many releases may lose one after the other is bounded by the best of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.params.params import PublishParams
from tasks.registry.manifest import Finding
from tasks.registry.opponents import Incomparable, Measurement, Opponent
from tasks.registry.rules import (
    beats_the_largest_class,
    is_not_worse,
    keeps_every_class,
    reaches_floor,
    stays_calibrated,
    stays_near_the_best,
)
from tasks.registry.scope_rules import findings_of_scope, is_enough

Rule = Callable[[Measurement, Opponent, PublishParams, float], Finding]

# Each with its share of `publish.significance`. Half of it goes to the classes, of which each has the fewest images.
AGAINST_THE_CHAMPION: dict[Rule, float] = {is_not_worse: 1 / 6, keeps_every_class: 1 / 2, stays_calibrated: 1 / 6}
AGAINST_THE_BEST: dict[Rule, float] = {stays_near_the_best: 1 / 6}
SHARES = AGAINST_THE_CHAMPION | AGAINST_THE_BEST


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
    candidate: Measurement,
    champion: Opponent | Incomparable | None,
    best: Opponent | Incomparable | None,
    params: PublishParams,
    further: tuple[Finding, ...] = (),
) -> Verdict:
    """Judge a release.

    Args:
        candidate: The release's answers.
        champion: The champion's, to the same test images; None where there is none.
        best: Those of the best release of this line; None where it is the champion, or there is none.
        params: The thresholds.
        further: What rules say that look at something else than answers.
    """
    findings = [reaches_floor(candidate, params)]
    if champion is None:
        findings.append(beats_the_largest_class(candidate, params))
    else:
        if isinstance(champion, Opponent):
            findings += findings_of_scope(champion, params)
        findings += [_compare(rule, candidate, champion, params) for rule in AGAINST_THE_CHAMPION]
    if isinstance(best, Opponent) and is_enough(best.scope, params):  # else it says nothing about this test set
        findings += [_compare(rule, candidate, best, params) for rule in AGAINST_THE_BEST]
    return Verdict((*findings, *further))


def _compare(rule: Rule, candidate: Measurement, opponent: Opponent | Incomparable, params: PublishParams) -> Finding:
    """Return what a rule says, or that the two cannot be compared."""
    if isinstance(opponent, Opponent):
        significance = SHARES[rule] * params.significance / opponent.chosen_from
        return rule(opponent.against or candidate, opponent, params, significance)
    return Finding(rule=rule.__name__, passed=False, sentence=opponent.sentence, figures={"champion": opponent.id})
