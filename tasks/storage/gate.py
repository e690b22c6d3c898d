"""The rules that a release must pass to become champion; each is a function that answers in a sentence."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.storage.manifest import Manifest

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What one rule says: whether it is passed, and why in a sentence with its figures."""

    passed: bool
    sentence: str


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
        """Every rule's sentence."""
        return tuple(finding.sentence for finding in self.findings)


def judge(metrics: Metrics, champion: Manifest | None, minimum_top1: float) -> Verdict:
    """Judge a release's metrics.json against the present champion and the floor `publish.minimum_top1` (0 to 1)."""
    rules: tuple[Callable[[], Finding], ...] = (
        lambda: reaches_floor(metrics, minimum_top1),
        lambda: is_not_below_champion(metrics, champion),
    )
    return Verdict(tuple(rule() for rule in rules))


def reaches_floor(metrics: Metrics, minimum_top1: float) -> Finding:
    """Pass where top-1 is at or above the floor."""
    top1 = metrics["top1"]
    passed = top1 >= minimum_top1
    relation = "reaches" if passed else "is below"
    return Finding(passed, f"top-1 {_percent(top1)} {relation} the floor of {_percent(minimum_top1)}")


def is_not_below_champion(metrics: Metrics, champion: Manifest | None) -> Finding:
    """Pass where there is no champion, or where top-1 is not lower than the champion's on the same test images."""
    if champion is None:
        return Finding(True, "there is no champion yet")
    theirs = champion.metrics
    if metrics["test_sha256"] != theirs["test_sha256"]:
        return Finding(
            False,
            f"the champion {champion.id} was measured on another test set ({_test_set(theirs)}, this release on "
            f"{_test_set(metrics)}), so the two cannot be compared; another publish.prefix starts a line of its own",
        )
    passed = metrics["top1"] >= theirs["top1"]
    relation = "is not lower than" if passed else "is lower than"
    return Finding(
        passed,
        f"top-1 {_percent(metrics['top1'])} {relation} the {_percent(theirs['top1'])} of the champion {champion.id} "
        f"on the same {metrics['images']:,} test images",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _test_set(metrics: Metrics) -> str:
    return f"{metrics['dataset']} {metrics['test_sha256'][:8]}"
