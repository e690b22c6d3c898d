import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect.client.schemas.objects import StateType

from flows.conclusion import Conclusion, Ending, final_state, judge
from flows.decision import Decision, Line, decide
from flows.stages import Outcome, StageResult
from tasks.registry.moves import Move

STARTED = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
OURS, OTHER = "a" * 16, "b" * 16
OFFER: dict[str, Any] = {
    "uri": f"s3://retrain/models/releases/{OURS}",
    "champion": False,
    "outcome": "not champion: too low",
    "verdict": [{"rule": "floor", "passed": False, "sentence": "too low", "figures": {}}],
}
RAN, UNCHANGED = [StageResult("train", Outcome.RAN, 1.0)], [StageResult("train", Outcome.UNCHANGED, 1.0)]
RESTORED = [StageResult("train", Outcome.RESTORED, 1.0)]


def line(*moves: tuple[str, str]) -> Line:
    made = [Move(release=release, manifest_sha256="0" * 64, moved_at=at, reason="better") for release, at in moves]
    return Line(None, tuple(made), {})  # type: ignore[arg-type]  # no bucket is asked


def decided(offer: dict[str, Any], champions: Line | None) -> Decision:
    decision = decide(offer, champions, STARTED)
    assert decision is not None
    return decision


def test_a_move_in_the_second_of_the_start_or_later_is_of_this_run() -> None:
    won = decided(
        OFFER | {"champion": True}, line((OTHER, "2025-01-01T00:00:00+00:00"), (OURS, "2026-01-02T03:04:05+00:00"))
    )
    assert (won.is_champion, won.changed, won.former) == (True, True, OTHER)
    held = decided(OFFER | {"champion": True}, line((OURS, "2026-01-02T03:04:04+00:00")))
    assert (held.is_champion, held.changed, held.former) == (True, False, None)


def test_the_bucket_is_believed_and_not_the_receipt() -> None:
    beaten = decided(
        OFFER | {"champion": True, "outcome": "it is the champion now"}, line((OTHER, "2026-01-02T04:00:00+00:00"))
    )
    assert (beaten.is_champion, beaten.changed, beaten.refused) == (False, False, False)
    assert beaten.outcome == f"{OTHER} is the champion"


def test_a_refusal_has_its_reasons_with_and_without_a_store() -> None:
    for champions in (line((OTHER, "2025-01-01T00:00:00+00:00")), None):
        refused = decided(OFFER, champions)
        assert refused.refused
        assert refused.reasons == ("too low",)
    old = {"uri": OFFER["uri"], "champion": False, "outcome": "not champion: worse", "verdict": ["a sentence"]}
    assert decided(old, None).reasons == ("worse",)
    assert decide({}, None, STARTED) is None


REFUSED = Decision(OURS, OFFER["uri"], False, False, "not champion: too low", None, ("too low", "worse"))
WON = Decision(OURS, OFFER["uri"], True, True, "it is the champion now", OTHER)
HELD = dataclasses.replace(WON, changed=False, former=None, outcome="it is the champion already")


@pytest.mark.parametrize(
    ("results", "decision", "first_try", "ending", "words"),
    [
        (RAN, REFUSED, True, Ending.REFUSED, "too low; worse"),
        (RAN, WON, True, Ending.CHAMPION, f"release {OURS} is the new champion in the place of {OTHER}: top-1 90.00 %"),
        (UNCHANGED, WON, True, Ending.CHAMPION, "new champion"),
        (UNCHANGED, REFUSED, True, Ending.NOTHING_NEW, "no stage had anything new: top-1 90.00 %"),
        (RESTORED, dataclasses.replace(REFUSED, is_new=True), True, Ending.REFUSED, "too low; worse"),
        (RESTORED, HELD, True, Ending.NOTHING_NEW, "no stage had anything new: top-1 90.00 %"),
        (UNCHANGED, REFUSED, False, Ending.REFUSED, "too low; worse"),
        (RAN, HELD, True, Ending.COMPLETED, "it is the champion already"),
        (RAN, None, True, Ending.COMPLETED, "top-1 90.00 %"),
    ],
)
def test_how_a_run_ends(
    results: list[StageResult], decision: Decision | None, first_try: bool, ending: Ending, words: str
) -> None:
    found, message = judge(results, decision, {"top1": 0.9}, first_try)
    assert found is ending
    assert words in message


@pytest.mark.parametrize(
    "ending", [Ending.CHAMPION, Ending.REFUSED, Ending.NOTHING_NEW, Ending.NOT_NEEDED, Ending.COMPLETED]
)
def test_whatever_the_gate_says_the_run_is_completed(ending: Ending) -> None:
    state = final_state(Conclusion(ending, "why"), RAN)
    assert (state.type, state.message) == (StateType.COMPLETED, "why")
    assert state.name == {Ending.REFUSED: "Refused", Ending.NOT_NEEDED: "NotNeeded"}.get(ending, "Completed")
