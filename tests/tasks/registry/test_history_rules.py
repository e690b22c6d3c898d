"""A release that was champion and lost its place: what the rules say of each way in which that happens."""

import pytest

from tasks.registry.history_rules import was_not_beaten, was_not_rolled_back
from tasks.registry.moves import Move

RELEASES = {letter: letter * 16 for letter in "abc"}


def _history(*moves: str) -> tuple[Move, ...]:
    """Return moves as `a` (published), `a!` (promoted) and `<a` (rolled back to)."""
    return tuple(
        Move(
            release=RELEASES[text.strip("<!")],
            manifest_sha256="0" * 64,
            moved_at="2024-01-02T03:04:05+00:00",
            reason="it fails at night",
            action="rollback" if "<" in text else "promote" if "!" in text else "publish",
            actor="ann@lab",
        )
        for text in moves
    )


@pytest.mark.parametrize(
    ("moves", "passed"),
    [
        ((), True),
        (("a",), True),
        (("a", "b"), True),
        (("a", "b", "<a"), False),
        (("a", "b", "<a", "c"), False),
        (("a", "b", "c", "<b", "<a"), False),
        (("b", "a", "<b"), True),  # back to it
        (("a", "b", "<a", "b!"), True),  # a person wanted it all the same
        (("a", "b", "<a", "b!", "<a"), False),
    ],
)
def test_what_a_person_rolled_back_does_not_come_back_by_itself(moves: tuple[str, ...], passed: bool) -> None:
    finding = was_not_rolled_back(RELEASES["b"], _history(*moves))
    assert finding.passed is passed
    if not passed:
        assert finding.sentence == (
            "ann@lab took the champion back from this release at 2024-01-02T03:04:05+00:00: it fails at night"
        )


@pytest.mark.parametrize(
    ("moves", "by"),
    [
        ((), None),
        (("a",), None),
        (("a", "b"), None),  # it is champion
        (("b", "a"), "a"),
        (("b", "a!"), "a"),
        (("b", "a", "c"), "a"),
        (("b", "a", "<b"), None),  # back to it
        (("a", "b", "<a"), None),  # the other rule's
        (("a", "b", "<a", "c"), None),
        (("b", "a", "b!"), None),
        (("b", "a", "b!", "c"), "c"),
    ],
)
def test_a_champion_that_was_beaten_does_not_come_back_by_itself(moves: tuple[str, ...], by: str | None) -> None:
    finding = was_not_beaten(RELEASES["b"], _history(*moves))
    assert finding.passed is (by is None)
    if by is not None:
        assert finding.figures["champion"] == RELEASES[by]
        assert finding.sentence == (
            f"it was champion until release {RELEASES[by]} took its place at 2024-01-02T03:04:05+00:00; "
            "`registry promote` brings it back"
        )
