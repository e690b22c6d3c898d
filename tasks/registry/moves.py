"""A channel's moves: those of late in its pointer, the earlier ones in segments that never change.

A pointer is rewritten with every move, so it holds a bounded number of them. What is older is written, once, to
`channels/<name>/<sha256 of the segment>.json`; each segment names the one before it, and the pointer the last. So a
signature of the pointer vouches for all of them, and a move takes no longer after a hundred thousand others.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.registry.manifest import DamagedError, ReleaseId, Sha256
from tasks.registry.signatures import Signature, SigningKey, Statement
from tasks.registry.store import Store
from tasks.s3.bucket import ConflictError, sha256_of_bytes
from tasks.stage.errors import InputError

Channel = Literal["candidate", "champion", "best"]
Action = Literal["publish", "promote", "rollback"]
SEGMENT = 100  # moves; a pointer holds at most twice as many
MAX_REASON = 8_000  # characters: what a gate says of a thousand classes is shorter


class Move(BaseModel):
    """One step of a pointer.

    Attributes:
        release: The id it points at from then on.
        manifest_sha256: Of that release's manifest, so that a swapped manifest is noticed.
        moved_at: UTC, ISO 8601.
        reason: Why, in the words of whoever moved it, or of the gate.
        action: Which command moved it.
        actor: Who, as tasks/registry/actor.py says; None in a pointer that was written before this was recorded.
        forced: Whether a person moved it past the gate.
        signature: The publisher's, of the channel's history up to this move; None where he has no key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    release: ReleaseId
    manifest_sha256: Sha256
    moved_at: str
    reason: str
    action: Action = "publish"
    actor: str | None = None
    forced: bool = False
    signature: Signature | None = None


class Earlier(BaseModel):
    """The moves before those that are at hand.

    Attributes:
        sha256: Of the segment that holds the last of them, which its key names.
        moves: How many they are, in that segment and all before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: Sha256
    moves: Annotated[int, Field(ge=1)]


class Pointer(BaseModel):
    """Where a channel points, and how it came there.

    Attributes:
        channel: Its name.
        current: The last of `history`.
        history: The moves of late, oldest first.
        earlier: Where those before them are; None where these are all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    channel: Channel
    current: Move
    history: Annotated[tuple[Move, ...], Field(min_length=1)]
    earlier: Earlier | None = None

    @property
    def moves(self) -> int:
        """How many there are in all."""
        return len(self.history) + (self.earlier.moves if self.earlier else 0)

    @model_validator(mode="after")
    def _current_is_last(self) -> "Pointer":
        if self.current != self.history[-1]:
            raise ValueError("current is not the last of its history")
        return self


class Segment(BaseModel):
    """A part of a channel's history, oldest move first, and what was before it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    channel: Channel
    history: Annotated[tuple[Move, ...], Field(min_length=1)]
    earlier: Earlier | None = None


def pointer_key(channel: Channel) -> str:
    """Return where a channel's pointer is."""
    return f"channels/{channel}.json"


def all_moves(bucket: Store, pointer: Pointer | None) -> tuple[Move, ...]:
    """Return every move of a channel, oldest first; raises like late_moves."""
    return late_moves(bucket, pointer, at_least=None)


def late_moves(bucket: Store, pointer: Pointer | None, at_least: int | None) -> tuple[Move, ...]:
    """Return a channel's moves of late, oldest first: so many or some more, or all there are (None).

    Raises:
        DamagedError: A segment is not there, or is not the one that was written.
        InputError: The store refused.
    """
    if pointer is None:
        return ()
    parts, found = [pointer.history], len(pointer.history)
    for segment in _segments(bucket, pointer):
        if at_least is not None and found >= at_least:
            break
        parts.append(segment.history)
        found += len(segment.history)
    return tuple(move for part in reversed(parts) for move in part)


def parse_pointer(bucket: Store, channel: Channel, body: bytes) -> Pointer:
    """Return a pointer from its bytes.

    Raises:
        DamagedError: It is not a pointer of this channel.
        UntrustedError: A signature is asked for, and it has no good one.
    """
    source = bucket.uri(pointer_key(channel))
    try:
        pointer = Pointer.model_validate_json(body)
    except ValidationError as error:
        raise DamagedError(f"{source} is not a channel's pointer: {error.errors()[0]['msg']}") from error
    if pointer.channel != channel:
        raise DamagedError(f"{source} is the pointer of another channel, {pointer.channel}")
    if bucket.trust is not None:
        bucket.trust.check(pointer.current.signature, _statement(bucket, pointer), source)
    return pointer


def with_move(bucket: Store, channel: Channel, pointer: Pointer | None, move: Move, key: SigningKey | None) -> Pointer:
    """Return a pointer with one move more, signed if there is a key; older moves go to a segment where they are many.

    Raises:
        InputError: The reason is longer than any that is kept, or the store refused the segment.
    """
    if len(move.reason) > MAX_REASON:
        raise InputError(f"the reason has {len(move.reason):,} characters; at most {MAX_REASON:,} are kept")
    history = (*(pointer.history if pointer else ()), move)
    earlier = pointer.earlier if pointer else None
    if len(history) > 2 * SEGMENT:
        earlier = _put_away(bucket, Segment(channel=channel, history=history[:SEGMENT], earlier=earlier))
        history = history[SEGMENT:]
    grown = Pointer(channel=channel, current=move, history=history, earlier=earlier)
    if key is None:
        return grown
    signed = move.model_copy(update={"signature": key.sign(_statement(bucket, grown))})
    return grown.model_copy(update={"current": signed, "history": (*history[:-1], signed)})


def to_bytes(record: Pointer | Segment) -> bytes:
    """Return what is written; equal records are equal bytes."""
    values = record.model_dump(mode="json", exclude_none=True)
    return (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _put_away(bucket: Store, segment: Segment) -> Earlier:
    """Write a segment, unless another publisher has: its name is its content."""
    body = to_bytes(segment)
    sha256 = sha256_of_bytes(body)
    with contextlib.suppress(ConflictError):
        bucket.write(_segment_key(segment.channel, sha256), body, replacing=None)
    return Earlier(sha256=sha256, moves=len(segment.history) + (segment.earlier.moves if segment.earlier else 0))


def _segments(bucket: Store, pointer: Pointer) -> Iterator[Segment]:
    """Give the segments before a pointer's moves, the latest first."""
    earlier = pointer.earlier
    while earlier is not None:
        key = _segment_key(pointer.channel, earlier.sha256)
        stored = bucket.read(key)
        if stored is None or sha256_of_bytes(stored.body) != earlier.sha256:
            lacks = "is not there" if stored is None else "was altered: its sha256 is not the one that names it"
            raise DamagedError(f"{bucket.uri(key)} {lacks}")
        try:
            segment = Segment.model_validate_json(stored.body)
        except ValidationError as error:
            raise DamagedError(f"{bucket.uri(key)} is not a channel's history: {error.errors()[0]['msg']}") from error
        if len(segment.history) + (segment.earlier.moves if segment.earlier else 0) != earlier.moves:
            raise DamagedError(f"{bucket.uri(key)} does not hold the {earlier.moves:,} moves that it is said to end")
        yield segment
        earlier = segment.earlier


def _segment_key(channel: Channel, sha256: str) -> str:
    return f"channels/{channel}/{sha256}.json"


def _statement(bucket: Store, pointer: Pointer) -> Statement:
    """Return what is signed with the last of a channel's moves: that move and, as they are, all before it."""
    # Without defaults: a field that is added later changes no old signature.
    moves = [move.model_dump(mode="json", exclude_defaults=True) for move in pointer.history]
    moves[-1].pop("signature", None)
    facts = {"channel": pointer.channel, "history_sha256": sha256_of_bytes(json.dumps(moves, sort_keys=True).encode())}
    if pointer.earlier is not None:
        facts["earlier_sha256"] = pointer.earlier.sha256
    return Statement("retrain channel history 1", bucket.place, facts)
