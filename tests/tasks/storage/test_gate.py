"""Who becomes champion, and the sentence that says why."""

from pathlib import Path
from typing import Any

import pytest

from tasks.storage.gate import judge
from tasks.storage.manifest import Manifest
from tests.fixtures.buckets import write_release


@pytest.fixture
def champion(tmp_path: Path) -> Manifest:
    return write_release(tmp_path, "champion", top1=0.5)


def _metrics(top1: float, test_sha256: str = "a" * 64) -> dict[str, Any]:
    return {"top1": top1, "test_sha256": test_sha256, "images": 100, "dataset": "cifar10"}


@pytest.mark.parametrize(("top1", "passed"), [(0.51, True), (0.5, True), (0.49, False)])
def test_top1_must_not_be_lower_than_the_champions(champion: Manifest, top1: float, passed: bool) -> None:
    verdict = judge(_metrics(top1), champion, 0.0)
    assert verdict.passed is passed
    word = "is not lower than" if passed else "is lower than"
    assert f"{word} the 50.00 % of the champion {champion.id} on the same 100 test images" in verdict.sentences[1]


@pytest.mark.parametrize(("minimum", "passed"), [(0.6, True), (0.60001, False)])
def test_the_floor_holds_even_without_a_champion(minimum: float, passed: bool) -> None:
    verdict = judge(_metrics(0.6), None, minimum)
    assert verdict.passed is passed
    assert verdict.sentences[1] == "there is no champion yet"


def test_another_test_set_is_never_compared(champion: Manifest) -> None:
    verdict = judge(_metrics(0.99, test_sha256="b" * 64), champion, 0.0)
    assert not verdict.passed
    assert "measured on another test set (cifar10 aaaaaaaa, this release on cifar10 bbbbbbbb)" in verdict.sentences[1]


def test_every_rule_is_reported(champion: Manifest) -> None:
    verdict = judge(_metrics(0.1), champion, 0.2)
    assert [finding.passed for finding in verdict.findings] == [False, False]
    assert verdict.sentences[0] == "top-1 10.00 % is below the floor of 20.00 %"
