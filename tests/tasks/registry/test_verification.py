"""Verification reads every byte, says what is wrong, and knows damage from a store in trouble."""

from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.channels import move_pointer
from tasks.registry.manifest import Manifest
from tasks.registry.releases import file_key, manifest_key, publish_release
from tasks.registry.store import Store
from tasks.registry.verification import Verification, verify_all, verify_release
from tasks.stage.errors import InputError
from tests.fixtures.buckets import new_bucket, write_leftovers, write_release

NOW = "2024-01-02T03:04:05+00:00"


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


def _published(bucket: Store, folder: Path, name: str) -> Manifest:
    return publish_release(bucket, folder / name, write_release(folder / name, name))


def _put(bucket: Store, key: str, body: bytes) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}", Body=body)


def _delete(bucket: Store, key: str) -> None:
    bucket.client.delete_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}")


def test_a_sound_release_was_read_to_the_last_byte(bucket: Store, tmp_path: Path) -> None:
    manifest = _published(bucket, tmp_path, "a")
    assert verify_release(bucket, manifest.id[:8]) == Verification(manifest.id, 6, manifest.size, ())


def test_every_damaged_file_is_named_with_what_is_wrong(bucket: Store, tmp_path: Path) -> None:
    manifest = _published(bucket, tmp_path, "a")
    keys = {entry.path: file_key(manifest, entry) for entry in manifest.files}
    body = (tmp_path / "a/model.keras").read_bytes()
    _put(bucket, keys["model.keras"], body[:-1] + bytes([body[-1] ^ 1]))
    _put(bucket, keys["labels.json"], b"short")
    _put(bucket, keys["split.json"], bytes(5 << 20))
    _delete(bucket, keys["metrics.json"])
    found = verify_release(bucket, manifest.id)
    assert [problem.rpartition("/")[2] for problem in found.problems] == [
        "labels.json has 5 bytes instead of the 16 of its manifest",
        "metrics.json is missing",
        "model.keras was altered: its sha256 is not the one of its manifest",
        "split.json has more than 15 bytes instead of the 15 of its manifest",
    ]
    assert found.files == 2


def test_all_releases_and_channels_are_verified(bucket: Store, tmp_path: Path) -> None:
    first, second, third = (_published(bucket, tmp_path, name) for name in "abc")
    write_leftovers(bucket, tmp_path / "died", write_release(tmp_path / "died", "died"))
    for manifest in (first, second):
        move_pointer(bucket, "candidate", manifest, NOW, lambda _: "published")
    found = {each.subject: each for each in verify_all(bucket)}
    assert found.keys() == {first.id, second.id, third.id, "candidate"}
    assert not any(each.problems for each in found.values())
    _put(bucket, manifest_key(third.id), b"{}")
    _delete(bucket, manifest_key(first.id))
    found = {each.subject: each for each in verify_all(bucket)}
    assert {name for name, each in found.items() if each.problems} == {third.id, "candidate"}
    assert found["candidate"].problems == (f"it names release {first.id}, which is not there",)
    assert "is not a manifest" in found[third.id].problems[0]


def test_a_manifest_other_than_the_channel_recorded_is_damage(bucket: Store, tmp_path: Path) -> None:
    manifest = _published(bucket, tmp_path, "a")
    move_pointer(bucket, "champion", manifest, NOW, lambda _: "first")
    swapped = manifest.model_copy(update={"created_at": "2020-01-01T00:00:00+00:00"})
    _put(bucket, manifest_key(manifest.id), swapped.to_bytes())
    assert verify_release(bucket, manifest.id).problems == ()
    for found in (verify_release(bucket, "champion"), list(verify_all(bucket))[-1]):
        assert found.subject == "champion"
        assert "was altered: its sha256 is not the one that the channel recorded" in found.problems[0]


def test_a_channel_that_cannot_be_read_is_damage(bucket: Store) -> None:
    bucket.write("channels/champion.json", b"{}", replacing=None)
    for found in (verify_release(bucket, "champion"), *verify_all(bucket)):
        assert "is not a channel's pointer" in found.problems[0]


def test_trouble_with_the_store_is_not_damage(bucket: Store, tmp_path: Path) -> None:
    manifest = _published(bucket, tmp_path, "a")
    with pytest.raises(InputError, match="there is no release"):
        verify_release(bucket, "0" * 16)
    missing = Store(bucket.client, "no-such-bucket", bucket.prefix)
    with pytest.raises(InputError, match="does not exist"):
        verify_release(missing, manifest.id)
    with pytest.raises(InputError, match="does not exist"):
        list(verify_all(missing))
