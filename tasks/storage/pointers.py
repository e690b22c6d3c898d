"""Channels: `channels/<name>.json` names the release that a channel points at, and every one it pointed at before.

A pointer moves by compare-and-swap: read, decide, write only if it is still what was read. Whoever loses reads and
decides again, so that two publishers at once leave what some order of them would have left.
"""

import json
import random
import re
import time
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import InputError
from tasks.storage.bucket import Bucket, ConflictError, Stored, sha256_of_bytes
from tasks.storage.manifest import ID_LENGTH, Manifest, ReleaseId, Sha256
from tasks.storage.releases import FOLDER, check_signature, find_manifest, read_manifest
from tasks.storage.signatures import Signature, SigningKey, Statement, signing_key

Channel = Literal["candidate", "champion"]
CHANNELS: tuple[Channel, ...] = ("candidate", "champion")
ATTEMPTS = 20
LONGEST_PAUSE_SECONDS = 0.5
SHORTEST_ID = 4  # digits of an id that a person may type instead of all


class Move(BaseModel):
    """One step of a pointer.

    Attributes:
        release: The id it points at from then on.
        manifest_sha256: Of that release's manifest, so that a swapped manifest is noticed.
        moved_at: UTC, ISO 8601.
        reason: Why, in the publisher's words.
        signature: The publisher's, of the channel's history up to this move; None where he has no key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    release: ReleaseId
    manifest_sha256: Sha256
    moved_at: str
    reason: str
    signature: Signature | None = None


class Pointer(BaseModel):
    """Where a channel points, and how it came there.

    Attributes:
        channel: Its name.
        current: The last of `history`.
        history: Every move, oldest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    channel: Channel
    current: Move
    history: Annotated[tuple[Move, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _current_is_last(self) -> "Pointer":
        if self.current != self.history[-1]:
            raise ValueError("current is not the last of its history")
        return self


def read_pointer(bucket: Bucket, channel: Channel) -> Pointer | None:
    """Return where a channel points, or nothing where it never pointed anywhere.

    Raises:
        InputError: What is there is not a pointer of this channel, or lacks a signature that is asked for.
    """
    return _parse(bucket, channel, bucket.read(_key(channel)))


def read_channel(bucket: Bucket, channel: Channel) -> Manifest | None:
    """Return the manifest that a channel points at, checked against the sha256 that the pointer recorded."""
    pointer = read_pointer(bucket, channel)
    return None if pointer is None else _pointed_at(bucket, pointer)


def resolve(bucket: Bucket, name: str) -> Manifest:
    """Return the release that a channel, an id, or the first digits of one id name.

    Raises:
        InputError: The channel points nowhere yet, or not exactly one release is meant.
    """
    for channel in CHANNELS:
        if name == channel:
            manifest = read_channel(bucket, channel)
            if manifest is None:
                raise InputError(f"there is no {channel} in {bucket.uri('channels')} yet; publish a release first")
            return manifest
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_ID},{ID_LENGTH}}}", name):
        raise InputError(f"{name!r} is neither a release's id nor one of the channels {', '.join(CHANNELS)}")
    if len(name) == ID_LENGTH:
        return read_manifest(bucket, name)
    found = [release for release in bucket.folders(FOLDER) if release.startswith(name)]
    manifests = [manifest for release in found if (manifest := find_manifest(bucket, release))]
    if len(manifests) != 1:
        raise InputError(f"{len(manifests)} releases in {bucket.uri(FOLDER)} start with {name!r}")
    return manifests[0]


def move_pointer(
    bucket: Bucket, channel: Channel, manifest: Manifest, moved_at: str, decide: Callable[[Manifest | None], str | None]
) -> bool:
    """Point a channel at a release if `decide` still wants it, whatever other publishers do meanwhile.

    Args:
        bucket: Where the channel is.
        channel: Its name.
        manifest: Of the release; it must be in the bucket already.
        moved_at: UTC, ISO 8601.
        decide: Is given the release that the channel points at now and returns why it should move, or None to leave
            it; called again for every lost race.

    Returns:
        Whether the channel points at the release now.

    Raises:
        InputError: The store refused, or other writers won every one of a bounded number of races. Or the key to sign
            with cannot be used, or the release is not signed.
    """
    key = signing_key(bucket.trust)
    if key is not None:
        check_signature(manifest, bucket.trust or key.trusted, bucket.place)
    for attempt in range(ATTEMPTS):
        stored = bucket.read(_key(channel))
        pointer = _parse(bucket, channel, stored)
        current = None if pointer is None else _pointed_at(bucket, pointer)
        if current is not None and current.id == manifest.id:
            return True
        reason = decide(current)
        if reason is None:
            return False
        sha256 = sha256_of_bytes(manifest.to_bytes())
        move = Move(release=manifest.id, manifest_sha256=sha256, moved_at=moved_at, reason=reason)
        history = _signed(bucket, channel, (*(pointer.history if pointer else ()), move), key)
        try:
            bucket.write(
                _key(channel),
                _to_bytes(Pointer(channel=channel, current=history[-1], history=history)),
                replacing=stored,
            )
            return True
        except ConflictError:
            time.sleep(random.uniform(0, min(LONGEST_PAUSE_SECONDS, 0.01 * 2**attempt)))  # noqa: S311  not a secret
    raise InputError(f"{bucket.uri(_key(channel))} could not be moved: other publishers moved it {ATTEMPTS} times")


def _pointed_at(bucket: Bucket, pointer: Pointer) -> Manifest:
    return read_manifest(bucket, pointer.current.release, pointer.current.manifest_sha256)


def _key(channel: Channel) -> str:
    return f"channels/{channel}.json"


def _signed(bucket: Bucket, channel: Channel, history: tuple[Move, ...], key: SigningKey | None) -> tuple[Move, ...]:
    """Return a history whose last move carries the key's signature, if there is a key."""
    if key is None:
        return history
    signature = key.sign(_statement(bucket, channel, history))
    return (*history[:-1], history[-1].model_copy(update={"signature": signature}))


def _statement(bucket: Bucket, channel: Channel, history: tuple[Move, ...]) -> Statement:
    """Return what is signed with the last of a channel's moves: that move and, as they are, all before it."""
    moves = [move.model_dump(mode="json", exclude_defaults=True) for move in history]  # a field more changes no old one
    moves[-1].pop("signature", None)
    digest = sha256_of_bytes(json.dumps(moves, sort_keys=True).encode())
    return Statement("retrain channel history 1", bucket.place, {"channel": channel, "history_sha256": digest})


def _to_bytes(pointer: Pointer) -> bytes:
    values = pointer.model_dump(mode="json", exclude_none=True)
    return (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _parse(bucket: Bucket, channel: Channel, stored: Stored | None) -> Pointer | None:
    if stored is None:
        return None
    source = bucket.uri(_key(channel))
    try:
        pointer = Pointer.model_validate_json(stored.body)
    except ValidationError as error:
        raise InputError(f"{source} is not a channel's pointer: {error.errors()[0]['msg']}") from error
    if pointer.channel != channel:
        raise InputError(f"{source} is the pointer of another channel, {pointer.channel}")
    if bucket.trust is not None:
        bucket.trust.check(pointer.current.signature, _statement(bucket, channel, pointer.history), source)
    return pointer
