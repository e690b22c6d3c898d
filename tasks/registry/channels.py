"""Channels: `channels/<name>.json` names the release that a channel points at, and every one it pointed at before.

A pointer moves by compare-and-swap: read, decide, write only if it is still what was read. Whoever loses reads and
decides again, so that two publishers at once leave what some order of them would have left. Nothing is taken out of
a history: a rollback is a move of its own.
"""

import random
import re
import time
from collections.abc import Callable
from typing import Any

from tasks.registry.manifest import ID_LENGTH, Manifest
from tasks.registry.moves import Channel, Move, Pointer, late_moves, parse_pointer, pointer_key, to_bytes, with_move
from tasks.registry.releases import FOLDER, check_signature, find_manifest, read_manifest
from tasks.registry.signatures import signing_key
from tasks.registry.store import Store
from tasks.s3.bucket import ConflictError, sha256_of_bytes
from tasks.stage.errors import InputError, OutageError

Judge = Callable[
    [Manifest | None], str | None
]  # from where a channel points to why it should move; None: it should not
CHANNELS: tuple[Channel, ...] = ("candidate", "champion", "best")
ATTEMPTS = 20
MAX_PAUSE_SECONDS = 0.5
HEEDED_MOVES = 2_000  # how far back a rollback goes, and what was beaten is remembered: five years of nights
MIN_ID = 4  # digits of an id that a person may type instead of all


def read_pointer(bucket: Store, channel: Channel) -> Pointer | None:
    """Return where a channel points, or nothing where it never pointed anywhere.

    Raises:
        DamagedError: What is there is not a pointer of this channel.
    """
    stored = bucket.read(pointer_key(channel))
    return None if stored is None else parse_pointer(bucket, channel, stored.body)


def read_channel(bucket: Store, channel: Channel) -> Manifest | None:
    """Return the manifest that a channel points at, checked against the sha256 that the pointer recorded."""
    pointer = read_pointer(bucket, channel)
    return None if pointer is None else _pointed_at(bucket, pointer)


def resolve(bucket: Store, name: str) -> Manifest:
    """Return the release that a channel, an id, or the first digits of one id name.

    Raises:
        InputError: The channel points nowhere yet, or not exactly one release is meant.
    """
    for channel in CHANNELS:
        if name == channel:
            manifest = read_channel(bucket, channel)
            if manifest is None:
                raise InputError(f"there is no {channel} in {bucket.uri('channels')} yet; {_instead(bucket)}")
            return manifest
    if not re.fullmatch(rf"[0-9a-f]{{{MIN_ID},{ID_LENGTH}}}", name):
        raise InputError(f"{name!r} is neither a release's id nor one of the channels {', '.join(CHANNELS)}")
    if len(name) == ID_LENGTH:
        return read_manifest(bucket, name)
    found = [release for release in bucket.folders(FOLDER) if release.startswith(name)]
    manifests = [manifest for release in found if (manifest := find_manifest(bucket, release))]
    if len(manifests) != 1:
        raise InputError(f"{len(manifests)} releases in {bucket.uri(FOLDER)} start with {name!r}")
    return manifests[0]


def _instead(bucket: Store) -> str:
    """Return what there is where a channel points nowhere yet."""
    candidate = read_pointer(bucket, "candidate")
    if candidate is None:
        return "publish a release first"
    found = candidate.current.release
    return (
        f"release {found} is published and passed no gate: `registry show {found}` says why, and it answers by its id"
    )


def move_pointer(
    bucket: Store, channel: Channel, manifest: Manifest, moved_at: str, decide: Judge, *, actor: str | None = None
) -> bool:
    """Point a channel at a release if `decide` still wants it, whatever other publishers do meanwhile.

    Args:
        bucket: Where the channel is.
        channel: Its name.
        manifest: Of the release; it must be in the bucket already.
        moved_at: UTC, ISO 8601.
        decide: Is given the release that the channel points at now and returns why it should move, or None to leave
            it; called again for every lost race.
        actor: Who moves it.

    Returns:
        Whether the channel points at the release now.

    Raises:
        OutageError: The store is away, or other writers won every one of a bounded number of races.
        InputError: The store refused. Or the key to sign
            with cannot be used, or the release is not signed.
    """
    return _point(bucket, channel, manifest, decide, {"moved_at": moved_at, "actor": actor})


def promote(bucket: Store, manifest: Manifest, judge: Judge | None, *, reason: str, actor: str, now: str) -> bool:
    """Make a release champion because a person wants it, by the gate or past it.

    Args:
        bucket: Where the release is.
        manifest: Of the release.
        judge: Is given the champion of this moment and returns why the release may take its place, or None: it may
            not; called again for every lost race. Without a judge the move is forced, and recorded as such.
        reason: The person's; it stands in the history before the judge's.
        actor: Who it is.
        now: UTC, ISO 8601.

    Returns:
        Whether it is champion now.

    Raises:
        InputError: A forced move has no reason, or like move_pointer.
    """
    words = " ".join(reason.split())
    if judge is None and not words:
        raise InputError("a promotion past the gate needs a reason, which the champion's history keeps")

    def decide(champion: Manifest | None) -> str | None:
        why = "" if judge is None else judge(champion)
        return None if why is None else ": ".join(filter(None, (words, why)))

    facts = {"moved_at": now, "actor": actor, "action": "promote", "forced": judge is None}
    return _point(bucket, "champion", manifest, decide, facts)


def rollback(bucket: Store, channel: Channel, *, actor: str, reason: str, now: str) -> Manifest:
    """Point a channel back at the release before the present one; again, at the one before that.

    Returns:
        The release that the channel points at now.

    Raises:
        InputError: There is no release before, the channel was moved to another while this ran, or the store refused.
    """
    source = bucket.uri(pointer_key(channel))
    seen: str | None = None
    target: Manifest | None = None

    def next_move(pointer: Pointer | None) -> Move:
        nonlocal seen, target
        standing = _standing(late_moves(bucket, pointer, HEEDED_MOVES))
        if len(standing) < 2:
            raise InputError(f"{source} names no release before the present one: there is nothing to go back to")
        present, before = standing[-1], standing[-2]
        if present.release != (seen or present.release):
            raise InputError(f"{source} was moved to release {present.release} meanwhile; look at it and decide again")
        seen = present.release
        target = read_manifest(bucket, before.release, before.manifest_sha256)
        _check_vouched(bucket, target)
        return Move(
            release=before.release,
            manifest_sha256=before.manifest_sha256,
            moved_at=now,
            reason=" ".join(reason.split()),
            action="rollback",
            actor=actor,
        )

    if not _swap(bucket, channel, next_move) or target is None:
        raise InputError(f"{source} was rolled back, and moved again by others meanwhile; look at it and decide again")
    return target


def _point(bucket: Store, channel: Channel, manifest: Manifest, decide: Judge, facts: dict[str, Any]) -> bool:
    """Point a channel at a release if `decide` wants it; `facts` are the move's other fields."""
    _check_vouched(bucket, manifest)

    def next_move(pointer: Pointer | None) -> Move | None:
        current = None if pointer is None else _pointed_at(bucket, pointer)
        if pointer is not None and current is not None and current.id == manifest.id:
            return pointer.current
        reason = decide(current)
        if reason is None:
            return None
        sha256 = sha256_of_bytes(manifest.to_bytes())
        return Move(release=manifest.id, manifest_sha256=sha256, reason=reason, **facts)

    return _swap(bucket, channel, next_move)


def _swap(bucket: Store, channel: Channel, next_move: Callable[[Pointer | None], Move | None]) -> bool:
    """Read a pointer, have `next_move` choose, and write it if it is still what was read; if not, all over again.

    Args:
        bucket: Where the channel is.
        channel: Its name.
        next_move: Is given the pointer as it is now, and returns the move to add; the present one, or None, to leave
            it as it is.

    Returns:
        Whether the chosen move is the present one.

    Raises:
        OutageError: The store is away, or other writers won every one of a bounded number of races.
        InputError: The store refused.
    """
    key = signing_key(bucket.trust)
    written: Pointer | None = None
    for attempt in range(ATTEMPTS):
        stored = bucket.read(pointer_key(channel))
        pointer = None if stored is None else parse_pointer(bucket, channel, stored.body)
        if written is not None and pointer is not None and _has(pointer, written):
            return pointer.moves == written.moves  # an earlier try wrote it, and its answer was lost
        move = next_move(pointer)
        if move is None or (pointer is not None and move is pointer.current):
            return move is not None
        written = with_move(bucket, channel, pointer, move, key)
        try:
            bucket.write(pointer_key(channel), to_bytes(written), replacing=stored)
            return True
        except ConflictError:
            time.sleep(random.uniform(0, min(MAX_PAUSE_SECONDS, 0.01 * 2**attempt)))  # noqa: S311  not a secret
    raise OutageError(
        f"{bucket.uri(pointer_key(channel))} could not be moved: other publishers moved it {ATTEMPTS} times"
    )


def _standing(history: tuple[Move, ...]) -> list[Move]:
    """Return the moves that no rollback undid, the present one last."""
    standing: list[Move] = []
    for move in history:
        while move.action == "rollback" and standing and standing[-1].release != move.release:
            standing.pop()
        if move.action != "rollback" or not standing:
            standing.append(move)
    return standing


def _check_vouched(bucket: Store, manifest: Manifest) -> None:
    """Refuse to sign a move to a release that is not signed itself; raises InputError, or UntrustedError."""
    key = signing_key(bucket.trust)
    if key is not None:
        check_signature(manifest, bucket.trust or key.trusted, bucket.place)


def _pointed_at(bucket: Store, pointer: Pointer) -> Manifest:
    return read_manifest(bucket, pointer.current.release, pointer.current.manifest_sha256)


def _has(pointer: Pointer, written: Pointer) -> bool:
    """Tell whether a move that was written is among a pointer's, in its place."""
    place = written.moves - 1 - (pointer.moves - len(pointer.history))
    return 0 <= place < len(pointer.history) and pointer.history[place] == written.current
