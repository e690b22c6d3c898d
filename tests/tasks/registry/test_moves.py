"""A channel's history: bounded in the pointer, whole in its segments."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.channels import move_pointer, read_pointer, rollback
from tasks.registry.manifest import DamagedError, Manifest
from tasks.registry.moves import (
    MAX_REASON,
    SEGMENT,
    Move,
    Pointer,
    all_moves,
    late_moves,
    pointer_key,
    to_bytes,
    with_move,
)
from tasks.registry.releases import publish_release
from tasks.registry.signatures import SigningKey, UntrustedError
from tasks.registry.store import Store
from tasks.s3.bucket import sha256_of_bytes
from tasks.stage.errors import InputError
from tests.fixtures.buckets import new_bucket, write_release

NOW = "2024-01-02T03:04:05+00:00"


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


@pytest.fixture
def releases(bucket: Store, tmp_path: Path) -> tuple[Manifest, Manifest]:
    folders = {name: tmp_path / name for name in ("one", "two")}
    one, two = (publish_release(bucket, folder, write_release(folder, name)) for name, folder in folders.items())
    return one, two


def moved(bucket: Store, times: int, last: Manifest, key: SigningKey | None = None) -> None:
    """Write a channel that was moved so many times, each time to another release."""
    pointer: Pointer | None = None
    for number in range(times):
        move = Move(release=f"{number:016x}", manifest_sha256=f"{number:064x}", moved_at=NOW, reason="night")
        if number == times - 1:
            sha256 = sha256_of_bytes(last.to_bytes())
            move = move.model_copy(update={"release": last.id, "manifest_sha256": sha256})
        pointer = with_move(bucket, "champion", pointer, move, key)
    assert pointer is not None
    bucket.write(pointer_key("champion"), to_bytes(pointer), replacing=None)


def segments(bucket: Store) -> list[str]:
    listed = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=f"{bucket.prefix}/channels/champion/")
    return [entry["Key"].removeprefix(f"{bucket.prefix}/") for entry in listed.get("Contents", ())]


@pytest.mark.parametrize("times", [2 * SEGMENT, 2 * SEGMENT + 1, 750, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_channel_moves_on_after_any_number_of_moves(
    bucket: Store, releases: tuple[Manifest, Manifest], times: int
) -> None:
    moved(bucket, times, releases[0])
    before = bucket.read(pointer_key("champion"))
    assert before is not None
    assert len(before.body) < 500 * 2 * SEGMENT  # it is all of the history that a move reads and writes
    assert move_pointer(bucket, "champion", releases[1], NOW, lambda champion: f"better than {champion}")
    after = read_pointer(bucket, "champion")
    assert after is not None
    assert (after.moves, after.current.release) == (times + 1, releases[1].id)
    named = [move.release for move in all_moves(bucket, after)]
    assert named[:-2] == [f"{number:016x}" for number in range(times - 1)]
    assert named[-2:] == [release.id for release in releases]
    late = late_moves(bucket, after, 150)
    assert 150 <= len(late) <= 150 + 2 * SEGMENT
    assert [move.release for move in late] == named[-len(late) :]
    assert rollback(bucket, "champion", actor="ann@lab", reason="", now=NOW) == releases[0]


def test_a_pointer_of_few_moves_is_as_it_always_was(bucket: Store, releases: tuple[Manifest, Manifest]) -> None:
    moved(bucket, 2, releases[0])
    stored = bucket.read(pointer_key("champion"))
    assert stored is not None
    assert set(json.loads(stored.body)) == {"channel", "current", "history"}
    assert segments(bucket) == []


@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_a_damaged_history_is_said_and_the_channel_still_answers(
    bucket: Store, releases: tuple[Manifest, Manifest], damage: str
) -> None:
    moved(bucket, 2 * SEGMENT + 1, releases[0])
    (segment,) = segments(bucket)
    if damage == "gone":
        bucket.client.delete_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{segment}")
    else:
        bucket.write(segment, b"{}\n", replacing=bucket.read(segment))
    pointer = read_pointer(bucket, "champion")
    assert pointer is not None
    assert pointer.current.release == releases[0].id
    with pytest.raises(DamagedError, match=f"{segment} (is not there|was altered)"):
        all_moves(bucket, pointer)


def test_a_signature_vouches_for_what_was_before(
    bucket: Store, releases: tuple[Manifest, Manifest], key: SigningKey
) -> None:
    moved(bucket, 2 * SEGMENT + 1, releases[0], key)
    reader = replace(bucket, trust=key.trusted)
    pointer = read_pointer(reader, "champion")
    assert pointer is not None
    assert len(all_moves(reader, pointer)) == 2 * SEGMENT + 1
    stored = bucket.read(pointer_key("champion"))
    assert pointer.earlier is not None
    forged = pointer.model_copy(update={"earlier": pointer.earlier.model_copy(update={"sha256": "0" * 64})})
    bucket.write(pointer_key("champion"), to_bytes(forged), replacing=stored)
    with pytest.raises(UntrustedError):
        read_pointer(reader, "champion")


def test_a_reason_without_end_is_refused_before_anything_is_written(
    bucket: Store, releases: tuple[Manifest, Manifest]
) -> None:
    with pytest.raises(InputError, match=f"at most {MAX_REASON:,} are kept"):
        move_pointer(bucket, "champion", releases[0], NOW, lambda _: "x" * (MAX_REASON + 1))
    assert read_pointer(bucket, "champion") is None
