"""A release is complete or absent, never changed, and verified by whoever pulls it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.manifest import Manifest
from tasks.registry.releases import (
    cached_release,
    file_key,
    find_manifest,
    list_releases,
    manifest_key,
    publish_release,
    pull_release,
    read_manifest,
    verify_folder,
)
from tasks.registry.store import Store
from tasks.s3.conditional_writes import PROBE
from tasks.stage.errors import InputError
from tests.fixtures.buckets import new_bucket, write_release

# A publisher that is killed, as by `kill -9`, when it is about to do its n-th write.
KILLED_PUBLISHER = """
import os, signal, sys
from pathlib import Path
from tasks.registry.store import Store
from tasks.s3.client import connect
from tasks.registry.manifest import parse_manifest
from tasks.registry.releases import publish_release

folder, manifest, prefix, survived = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def dying(operation):
    def write(*arguments, **options):
        global survived
        if survived == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        survived -= 1
        return operation(*arguments, **options)
    return write

Store.upload, Store.write = dying(Store.upload), dying(Store.write)
publish_release(Store(connect(), "retrain", prefix), folder, parse_manifest(manifest.read_bytes(), "argument"))
"""


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


def _keys(bucket: Store) -> dict[str, str]:
    """Return every key but the probe's, with the tag of its bytes and when it was written."""
    listing = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.prefix)
    found = {entry["Key"]: f"{entry['ETag']} {entry['LastModified']}" for entry in listing.get("Contents", [])}
    return {key: value for key, value in found.items() if not key.endswith(PROBE)}


def _put(bucket: Store, key: str, body: bytes) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}", Body=body)


def _published(bucket: Store, folder: Path, name: str = "a") -> Manifest:
    return publish_release(bucket, folder, write_release(folder, name))


def test_a_release_is_listed_and_pulled_as_it_was(bucket: Store, tmp_path: Path) -> None:
    manifest = _published(bucket, tmp_path / "here")
    assert list(list_releases(bucket)) == [manifest]
    pull_release(bucket, manifest, tmp_path / "there")
    assert verify_folder(tmp_path / "there") == manifest
    for entry in manifest.files:
        assert (tmp_path / "there" / entry.path).read_bytes() == (tmp_path / "here" / entry.path).read_bytes()


def test_publishing_twice_changes_nothing(bucket: Store, tmp_path: Path) -> None:
    first = _published(bucket, tmp_path / "first")
    before = _keys(bucket)
    other = write_release(tmp_path / "second", "a", extra=b"other bytes of the same model")
    assert publish_release(bucket, tmp_path / "second", other) == first
    assert _keys(bucket) == before


def test_the_first_manifest_decides_between_two_publishers_of_one_id(bucket: Store, tmp_path: Path) -> None:
    first = write_release(tmp_path / "first", "a", extra=b"one order")
    second = write_release(tmp_path / "second", "a", extra=b"another order")
    bucket.write(manifest_key(first.id), first.to_bytes(), replacing=None)
    for entry in second.files:  # the second had looked before the first was there, and uploads all the same
        bucket.upload(tmp_path / "second" / entry.path, file_key(second, entry), entry.sha256)
    for entry in first.files:
        bucket.upload(tmp_path / "first" / entry.path, file_key(first, entry), entry.sha256)
    assert publish_release(bucket, tmp_path / "second", second) == first
    pull_release(bucket, first, tmp_path / "pulled")
    assert (tmp_path / "pulled/saved_model/1/saved_model.pb").read_bytes() == b"one order"


@pytest.mark.parametrize("survived", [0, 2, 6])
def test_a_killed_publisher_leaves_no_release_and_the_next_run_completes_it(
    object_store: ObjectStore, bucket: Store, tmp_path: Path, survived: int
) -> None:
    folder, described = tmp_path / "here", tmp_path / "described.json"
    manifest = write_release(folder, "a")
    described.write_bytes(manifest.to_bytes())
    assert len(manifest.files) == 6  # so that surviving six writes is dying before the manifest
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_PUBLISHER, folder, described, bucket.prefix, str(survived)],
        env={**os.environ, **object_store.environment},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(_keys(bucket)) == survived
    assert list(list_releases(bucket)) == []
    with pytest.raises(InputError, match="there is no release"):
        read_manifest(bucket, manifest.id)
    published = publish_release(bucket, folder, manifest)
    pull_release(bucket, published, tmp_path / "there")
    assert verify_folder(tmp_path / "there") == published


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_pull_refuses_damage_in_the_bucket_and_leaves_the_old_copy(
    bucket: Store, tmp_path: Path, damage: str
) -> None:
    old, target = _published(bucket, tmp_path / "old", "old"), tmp_path / "target"
    new = _published(bucket, tmp_path / "new", "new")
    pull_release(bucket, old, target)
    entry = next(entry for entry in new.files if entry.path == "model.keras")
    body = bytearray((tmp_path / "new/model.keras").read_bytes())
    body[3] ^= 1
    if damage == "missing":
        bucket.client.delete_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{file_key(new, entry)}")
    else:
        _put(bucket, file_key(new, entry), bytes(body if damage == "flipped" else body[:-1]))
    with pytest.raises(InputError, match=r"model\.keras "):
        pull_release(bucket, new, target)
    assert verify_folder(target) == old
    assert [path.name for path in tmp_path.glob(".*")] == []  # nothing half-pulled is left beside it


def test_a_pull_never_replaces_a_folder_that_is_not_a_release(bucket: Store, tmp_path: Path) -> None:
    manifest = _published(bucket, tmp_path / "here")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("text")
    for target in ("mine", "file"):
        with pytest.raises(InputError, match="is not a release"):
            pull_release(bucket, manifest, tmp_path / target)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_a_manifest_that_is_not_the_one_expected_is_refused(bucket: Store, tmp_path: Path) -> None:
    first, second = _published(bucket, tmp_path / "1", "a"), _published(bucket, tmp_path / "2", "b")
    with pytest.raises(InputError, match="was altered"):
        find_manifest(bucket, first.id, "0" * 64)
    _put(bucket, manifest_key(first.id), second.to_bytes())
    with pytest.raises(InputError, match=f"the manifest of another release, {second.id}"):
        find_manifest(bucket, first.id)


def test_the_cache_is_filled_once_and_mended(bucket: Store, tmp_path: Path) -> None:
    manifest, cache = _published(bucket, tmp_path / "here"), tmp_path / "cache"
    folder = cached_release(bucket, manifest, cache)
    before = (folder / "model.keras").stat().st_ino
    assert cached_release(bucket, manifest, cache) == folder
    assert (folder / "model.keras").stat().st_ino == before
    (folder / "model.keras").write_bytes(b"altered")
    cached_release(bucket, manifest, cache)
    assert verify_folder(folder) == manifest


@pytest.mark.parametrize("damage", ["altered", "missing", "added", "no manifest"])
def test_a_damaged_folder_is_refused_by_name(bucket: Store, tmp_path: Path, damage: str) -> None:
    pull_release(bucket, _published(bucket, tmp_path / "here"), tmp_path / "there")
    file = tmp_path / "there" / {"added": "extra.py", "no manifest": "manifest.json"}.get(damage, "model.keras")
    if damage in {"missing", "no manifest"}:
        file.unlink()
    else:
        file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()) if damage == "altered" else b"added")
    with pytest.raises(InputError, match="there" if damage == "no manifest" else file.name):
        verify_folder(tmp_path / "there")
