"""What became of a run's release: champion, and in whose place, or refused, and why; and the line of champions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.registry.channels import HEEDED_MOVES, read_pointer
from tasks.registry.index import Row
from tasks.registry.listing import list_rows
from tasks.registry.moves import Move, late_moves
from tasks.registry.store import Store, configured_bucket

REFUSED = "not champion"


@dataclass(frozen=True)
class Line:
    """The champions of one bucket and prefix.

    Attributes:
        bucket: Where they are.
        moves: Every move of the channel, oldest first; none where there never was a champion.
        rows: What the list of releases says of each, by its id.
    """

    bucket: Store
    moves: tuple[Move, ...]
    rows: dict[str, Row]


@dataclass(frozen=True)
class Decision:
    """What was decided about a release.

    Attributes:
        release: Its id.
        uri: Where it is.
        is_champion: Whether it is champion.
        changed: Whether it became champion in this run.
        outcome: The same in words.
        former: The champion whose place it took; None where it took nobody's.
        reasons: Why the gate refused it, a sentence each.
        is_new: Whether it was offered for the first time: a channel moved to it.
    """

    release: str
    uri: str
    is_champion: bool
    changed: bool
    outcome: str
    former: str | None = None
    reasons: tuple[str, ...] = ()
    is_new: bool = False

    @property
    def refused(self) -> bool:
        """Whether the gate said no."""
        return not self.is_champion and self.outcome.startswith(REFUSED)


def read_line() -> Line:
    """Return the line of champions of params.yaml's bucket and prefix.

    Raises:
        InputError: The store cannot be reached or refuses, or params.yaml is not valid.
    """
    bucket = configured_bucket()
    pointer = read_pointer(bucket, "champion")
    rows = {row.id: row for row in list_rows(bucket).rows}
    return Line(bucket, late_moves(bucket, pointer, HEEDED_MOVES), rows)


def decide(offer: Mapping[str, Any], line: Line | None, since: datetime) -> Decision | None:
    """Return what became of a release; None where there is none.

    Args:
        offer: What flows/offer.py says.
        line: The champions, whose last decides; None where the store is away, and the offer must do.
        since: When the run first started, so that a change of an earlier try counts as one of this run.
    """
    if "uri" not in offer:
        return None
    uri, outcome, reasons = str(offer["uri"]), str(offer.get("outcome", "")), _reasons(offer)
    release, said = uri.rpartition("/")[2], bool(offer.get("champion"))
    moved, before = tuple(offer.get("moved", ())), offer.get("champion_before")
    is_new, won = bool(moved), "champion" in moved
    if line is None or not line.moves:
        return Decision(release, uri, said, won, outcome, before if won else None, reasons, is_new)
    *former_moves, present = line.moves
    is_champion = present.release == release
    began = since.replace(microsecond=0)  # as moves are noted
    changed = is_champion and (won or datetime.fromisoformat(present.moved_at) >= began)
    former = former_moves[-1].release if changed and former_moves else None
    if is_champion != said:  # others moved the channel meanwhile
        outcome = "it is the champion" if is_champion else f"{present.release} is the champion"
    return Decision(release, uri, is_champion, changed, outcome, former, reasons, is_new)


def _reasons(offer: Mapping[str, Any]) -> tuple[str, ...]:
    findings = (each for each in offer.get("verdict", []) if isinstance(each, dict))
    objections = tuple(dict.fromkeys(str(each["sentence"]) for each in findings if not each["passed"]))
    return objections or (str(offer.get("outcome", "")).removeprefix(f"{REFUSED}: "),)
