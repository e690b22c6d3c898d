"""Signed manifests and channels: an altered, replayed or unsigned one is refused by whoever trusts a key."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.channels import move_pointer, read_channel, read_pointer, resolve
from tasks.registry.manifest import Manifest, parse_manifest
from tasks.registry.releases import (
    cached_release,
    find_manifest,
    manifest_key,
    publish_release,
    pull_release,
    verify_folder,
)
from tasks.registry.signatures import (
    SIGNING_KEY,
    SigningKey,
    UntrustedError,
    read_trusted_keys,
)
from tasks.registry.signing import generate_key
from tasks.registry.store import Store
from tasks.stage.errors import InputError
from tests.fixtures.buckets import new_bucket, write_release

NOW = "2024-01-02T03:04:05+00:00"
CHAMPION = "channels/champion.json"


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    """A prefix as a publisher sees it, who signs and checks nothing."""
    return new_bucket(object_store)


@pytest.fixture
def reader(bucket: Store, key: SigningKey) -> Store:
    """The same prefix as a reader sees it, who trusts the publisher's key."""
    return replace(bucket, trust=key.trusted)


@pytest.fixture
def release(bucket: Store, key: SigningKey, tmp_path: Path) -> Manifest:
    """A signed release, the champion."""
    return publish_champion(bucket, tmp_path / "release", "a")


@pytest.fixture
def unsigned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Publish without a key."""
    monkeypatch.delenv(SIGNING_KEY, raising=False)
    yield


def publish_champion(bucket: Store, folder: Path, name: str) -> Manifest:
    manifest = publish_release(bucket, folder, write_release(folder, name))
    move_pointer(bucket, "champion", manifest, NOW, lambda _: "better")
    return manifest


def put(bucket: Store, key: str, body: bytes) -> None:
    """Write as an enemy who may write to the bucket, past every condition."""
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}", Body=body)


def get(bucket: Store, key: str) -> bytes:
    stored = bucket.read(key)
    assert stored is not None
    return stored.body


# Releases


def test_a_signed_release_is_read_by_whoever_trusts_the_key(reader: Store, release: Manifest, tmp_path: Path) -> None:
    for name in ("champion", release.id, release.id[:6]):
        assert resolve(reader, name) == release
    pull_release(reader, release, tmp_path / "pulled")
    assert verify_folder(tmp_path / "pulled") == release
    assert verify_folder(cached_release(reader, release, tmp_path / "cache")) == release


def test_a_signed_release_is_read_by_whoever_asks_for_no_signature(bucket: Store, release: Manifest) -> None:
    assert release.signature is not None
    assert resolve(bucket, "champion") == release


def test_unsigned_manifests_have_the_bytes_that_they_always_had(tmp_path: Path) -> None:
    assert b"signature" not in write_release(tmp_path, "a").to_bytes()


def test_a_null_signature_is_another_spelling_of_none(tmp_path: Path) -> None:
    values = json.loads(write_release(tmp_path, "a").to_bytes())
    body = json.dumps({**values, "signature": None}, indent=2, sort_keys=True).encode() + b"\n"
    with pytest.raises(InputError, match="canonical form"):
        parse_manifest(body, "here")


def test_an_unsigned_release_is_refused(unsigned: None, bucket: Store, tmp_path: Path) -> None:
    release = publish_champion(bucket, tmp_path / "release", "a")
    generate_key(tmp_path / "key")
    reader = replace(bucket, trust=read_trusted_keys(tmp_path / "key.pub"))
    with pytest.raises(UntrustedError, match=f"the manifest of release {release.id} is not signed"):
        resolve(reader, release.id)
    with pytest.raises(UntrustedError, match=r"champion\.json is not signed"):
        resolve(reader, "champion")


def test_an_altered_manifest_is_refused(reader: Store, release: Manifest) -> None:
    better = release.model_copy(update={"metrics": {**release.metrics, "top1": 1.0}})
    put(reader, manifest_key(release.id), better.to_bytes())
    with pytest.raises(UntrustedError, match=f"manifest of release {release.id} was altered: it is not what the key"):
        find_manifest(reader, release.id)


def test_the_signature_of_another_release_is_refused(
    bucket: Store, reader: Store, release: Manifest, tmp_path: Path
) -> None:
    forged = write_release(tmp_path / "forged", "b").model_copy(update={"signature": release.signature})
    put(reader, manifest_key(forged.id), forged.to_bytes())
    with pytest.raises(UntrustedError, match="was altered"):
        find_manifest(reader, forged.id)


def test_a_release_of_another_prefix_is_refused(object_store: ObjectStore, reader: Store, release: Manifest) -> None:
    elsewhere = replace(new_bucket(object_store), trust=reader.trust)
    put(elsewhere, manifest_key(release.id), release.to_bytes())
    with pytest.raises(UntrustedError, match=f"was signed for {reader.place}, and this is {elsewhere.place}$"):
        find_manifest(elsewhere, release.id)


def test_a_publisher_does_not_vouch_for_an_unsigned_release(
    bucket: Store, key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stranger:
        stranger.delenv(SIGNING_KEY)
        planted = publish_release(bucket, tmp_path / "a", write_release(tmp_path / "a", "a", extra=b"evil"))
    with pytest.raises(UntrustedError, match="is not signed"):
        publish_release(bucket, tmp_path / "b", write_release(tmp_path / "b", "a"))
    with pytest.raises(UntrustedError, match="is not signed"):
        move_pointer(bucket, "champion", planted, NOW, lambda _: "better")
    assert read_pointer(bucket, "champion") is None


# Channels


def rewrite(bucket: Store, change: Callable[[dict[str, Any]], None]) -> None:
    """Alter the pointer of champion."""
    pointer = json.loads(get(bucket, CHAMPION))
    change(pointer)
    put(bucket, CHAMPION, json.dumps(pointer).encode())


def point_back(pointer: dict[str, Any]) -> None:
    """Append a move to the first release, with the signature of the move that once led there."""
    pointer["current"] = pointer["history"][0]
    pointer["history"].append(pointer["current"])


def change_the_reason(pointer: dict[str, Any]) -> None:
    pointer["current"]["reason"] = pointer["history"][-1]["reason"] = "promoted by nobody"


def change_the_past(pointer: dict[str, Any]) -> None:
    pointer["history"][0]["reason"] = "it never was good"


def forget_the_past(pointer: dict[str, Any]) -> None:
    del pointer["history"][0]


def drop_the_signature(pointer: dict[str, Any]) -> None:
    del pointer["history"][-1]["signature"]
    pointer["current"] = pointer["history"][-1]


@pytest.mark.parametrize(
    "change", [point_back, change_the_reason, change_the_past, forget_the_past, drop_the_signature]
)
def test_an_altered_history_is_refused(
    bucket: Store, reader: Store, release: Manifest, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    second = publish_champion(bucket, tmp_path / "second", "b")
    assert resolve(reader, "champion") == second
    rewrite(bucket, change)
    with pytest.raises(UntrustedError, match=r"champion\.json (was altered|is not signed)"):
        resolve(reader, "champion")


def test_the_pointer_of_another_channel_is_refused_even_if_it_says_otherwise(
    bucket: Store, reader: Store, release: Manifest, tmp_path: Path
) -> None:
    candidate = publish_release(bucket, tmp_path / "candidate", write_release(tmp_path / "candidate", "b"))
    move_pointer(bucket, "candidate", candidate, NOW, lambda _: "published")
    pointer = {**json.loads(get(bucket, "channels/candidate.json")), "channel": "champion"}
    put(bucket, CHAMPION, json.dumps(pointer).encode())
    with pytest.raises(UntrustedError, match=r"champion\.json was altered"):
        resolve(reader, "champion")


def test_an_old_state_of_a_channel_is_believed_as_the_documentation_says(
    bucket: Store, reader: Store, release: Manifest, tmp_path: Path
) -> None:
    """What a signature cannot prevent; docs/security.md says so, and this is to keep it true."""
    old = get(bucket, CHAMPION)
    publish_champion(bucket, tmp_path / "second", "b")
    put(bucket, CHAMPION, old)
    assert read_channel(reader, "champion") == release


def test_a_history_that_begins_unsigned_goes_on_signed(
    bucket: Store, key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.delenv(SIGNING_KEY)
        publish_champion(bucket, tmp_path / "a", "a")
    signed = publish_champion(bucket, tmp_path / "b", "b")
    assert read_channel(replace(bucket, trust=key.trusted), "champion") == signed


def test_a_lost_race_is_signed_anew(bucket: Store, reader: Store, release: Manifest, tmp_path: Path) -> None:
    second, third = (
        publish_release(bucket, tmp_path / name, write_release(tmp_path / name, name)) for name in ("b", "c")
    )
    raced: list[bool] = []

    def decide(_: Manifest | None) -> str:
        if not raced:
            raced.append(move_pointer(bucket, "champion", second, NOW, lambda _: "faster"))
        return "better"

    assert move_pointer(bucket, "champion", third, NOW, decide)
    pointer = read_pointer(reader, "champion")
    assert pointer is not None
    assert [move.release for move in pointer.history] == [release.id, second.id, third.id]
