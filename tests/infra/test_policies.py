"""The least-privilege policies on a real server: each role can do its work, and is refused what is not its own.

SeaweedFS evaluates the policy documents of infra/aws themselves (tests/fixtures/identities.py): named actions and
resources, the condition on the listed prefix, Deny before Allow. It has no accounts: `aws:ResourceAccount` is left out.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import BUCKET, ObjectStore
from tasks.registry.channels import move_pointer, read_channel
from tasks.registry.garbage import Found, find_garbage, remove_garbage
from tasks.registry.index import index_key, row_of
from tasks.registry.manifest import Manifest
from tasks.registry.releases import (
    file_key,
    find_manifest,
    list_releases,
    manifest_key,
    publish_release,
    pull_release,
    verify_folder,
)
from tasks.registry.store import Store
from tasks.s3.bucket import ConflictError
from tasks.s3.client import connect, storage_errors
from tasks.s3.objects import delete_object, list_objects
from tasks.stage.errors import InputError
from tasks.training.remote_checkpoints import RemoteCheckpoints
from tests.fixtures.buckets import write_release
from tests.fixtures.identities import environment_of, policy_document, start_guarded_store

ROLES = ("reader", "publisher", "worker", "gc")
PREFIX = "models"
NOW = "2024-01-02T03:04:05+00:00"
# What a publisher must be denied one at a time: the statement without it, and the object that the sentence names.
NEEDED = {
    "ListBucket": r"bucket 'retrain'",
    "ReadReleases": r"s3://retrain/models/releases/\w+/manifest\.json",
    "WriteReleases": r"s3://retrain/models/releases/\w+/\w+/labels\.json",
    "MovePointers": r"s3://retrain/models/channels/\S+",
}


def without(role: str, sid: str) -> dict[str, Any]:
    document = policy_document(role)
    return {**document, "Statement": [item for item in document["Statement"] if item["Sid"] != sid]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    policies = {role: policy_document(role) for role in ROLES}
    policies |= {f"no-{sid}": without("publisher", sid) for sid in NEEDED}
    started = start_guarded_store(tmp_path_factory.mktemp("guarded"), policies)
    yield started
    started.stop()


@pytest.fixture
def role(store: ObjectStore) -> Callable[[str], Store]:
    """Give the bucket as an identity sees it."""
    return lambda name: Store(connect(environment_of(store, name)), BUCKET, PREFIX)


@pytest.fixture
def release(role: Callable[[str], Store], tmp_path: Path) -> Manifest:
    """A release that the publisher published, and made candidate."""
    return publish(role("publisher"), tmp_path / "release", tmp_path.name)


def publish(bucket: Store, folder: Path, name: str) -> Manifest:
    bucket.check()
    release = publish_release(bucket, folder, write_release(folder, name))
    move_pointer(bucket, "candidate", release, NOW, lambda _: "published")
    return release


def refused(bucket: Store, operation: str, key: str, **arguments: Any) -> str:
    """Return the sentence with which an operation on an object is refused."""
    with pytest.raises(InputError) as caught, storage_errors(bucket.client, bucket.name, key):
        getattr(bucket.client, operation)(Bucket=bucket.name, Key=key, **arguments)
    return str(caught.value)


def assert_denied(bucket: Store, operation: str, key: str, **arguments: Any) -> None:
    assert f"access to s3://{BUCKET}/{key} " in (sentence := refused(bucket, operation, key, **arguments)), sentence
    assert "is denied to these S3 credentials" in sentence


def test_a_publisher_publishes_moves_and_pulls(role: Callable[[str], Store], release: Manifest, tmp_path: Path) -> None:
    bucket = role("publisher")
    assert read_channel(bucket, "candidate") == release
    pull_release(bucket, release, tmp_path / "pulled")
    assert verify_folder(tmp_path / "pulled") == release


def test_a_publisher_deletes_nothing_and_stays_in_its_folders(role: Callable[[str], Store], release: Manifest) -> None:
    bucket = role("publisher")
    for key in (manifest_key(release.id), file_key(release, release.files[0]), "channels/candidate.json"):
        assert_denied(bucket, "delete_object", f"{PREFIX}/{key}")
    for key in ("dvc/files/x", "checkpoints/x", "models/elsewhere"):
        assert_denied(bucket, "put_object", key, Body=b"x")
        assert_denied(bucket, "get_object", key)
    with pytest.raises(ConflictError):
        bucket.write(manifest_key(release.id), b"another", replacing=None)


def test_a_reader_pulls_by_the_command(store: ObjectStore, release: Manifest, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tasks.registry", "pull", "candidate", str(tmp_path / "pulled")],
        env={**os.environ, **environment_of(store, "reader")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert verify_folder(tmp_path / "pulled") == release


def test_a_reader_changes_nothing(role: Callable[[str], Store], release: Manifest, tmp_path: Path) -> None:
    bucket, owner = role("reader"), role("owner")
    for key in (manifest_key(release.id), file_key(release, release.files[0]), "channels/candidate.json"):
        assert_denied(bucket, "put_object", f"{PREFIX}/{key}", Body=b"x")
        assert_denied(bucket, "delete_object", f"{PREFIX}/{key}")
    assert_denied(bucket, "create_multipart_upload", f"{PREFIX}/releases/x")
    assert_denied(bucket, "get_object", "dvc/files/x")
    with pytest.raises(InputError, match="is denied"), storage_errors(bucket.client, BUCKET):
        bucket.client.list_objects_v2(Bucket=BUCKET, Prefix="dvc/")
    with pytest.raises(InputError, match="is denied"):
        publish(bucket, tmp_path / "own", "own")
    assert read_channel(owner, "candidate") == release
    pull_release(owner, release, tmp_path / "whole")


def test_a_collector_removes_what_a_publisher_left_and_mends_the_index(
    role: Callable[[str], Store], release: Manifest
) -> None:
    bucket, publisher, owner = role("gc"), role("publisher"), role("owner")
    left = {"Bucket": BUCKET, "Key": f"{PREFIX}/releases/{'0' * 16}/{'1' * 16}/model.keras"}
    row = index_key(row_of(release))
    publisher.client.put_object(**left, Body=b"left")
    publisher.client.create_multipart_upload(**left)
    publisher.write(f"index/{release.id}/stale", b"", replacing=None)
    delete_object(owner, f"{row}")
    found = find_garbage(bucket, grace=timedelta(0))
    assert {"upload", "unfinished", "index"} == {item.kind for item in found.garbage}
    assert found.unlisted == (release,)
    remove_garbage(bucket, found)
    assert find_garbage(bucket, grace=timedelta(0)) == Found((), (), ())
    assert [entry.key for entry in list_objects(owner, f"index/{release.id}")] == [row]
    assert find_manifest(bucket, release.id) == release


def test_a_collector_touches_no_release_and_writes_nothing(role: Callable[[str], Store], release: Manifest) -> None:
    bucket = role("gc")
    for key in (manifest_key(release.id), "channels/candidate.json"):
        assert_denied(bucket, "delete_object", f"{PREFIX}/{key}")
    many = bucket.client.delete_objects(
        Bucket=BUCKET, Delete={"Objects": [{"Key": f"{PREFIX}/{manifest_key(release.id)}"}]}
    )
    assert many["Errors"][0]["Code"] == "AccessDenied"
    assert_denied(bucket, "get_object", f"{PREFIX}/{file_key(release, release.files[0])}")
    for key in (f"{PREFIX}/releases/x", f"{PREFIX}/channels/champion.json", "dvc/x"):
        assert_denied(bucket, "put_object", key, Body=b"x")
    assert_denied(bucket, "delete_object", "checkpoints/x")
    assert find_manifest(role("owner"), release.id) == release


def test_a_worker_publishes_and_mirrors_checkpoints(
    store: ObjectStore, role: Callable[[str], Store], tmp_path: Path
) -> None:
    publish(role("worker"), tmp_path / "release", "by a worker")
    client = connect(environment_of(store, "worker"))
    remote = RemoteCheckpoints(f"s3://{BUCKET}/checkpoints", "a" * 64, client)
    remote.check()
    for step in (1, 2, 3):
        path = tmp_path / f"step-{step:08d}-{'b' * 64}.npz"
        path.write_bytes(b"weights")
        remote.upload(path)
    remote.remove()
    assert_denied(role("worker"), "delete_object", f"{PREFIX}/channels/candidate.json")


@pytest.mark.parametrize("sid", sorted(NEEDED))
def test_a_publisher_that_lacks_one_right_is_told_which_and_nothing_is_lost(
    role: Callable[[str], Store], release: Manifest, tmp_path: Path, sid: str
) -> None:
    owner = role("owner")
    before = list(list_releases(owner))
    with pytest.raises(InputError, match=rf"^access to {NEEDED[sid]} at \S+ is denied to these S3 credentials$"):
        publish(role(f"no-{sid}"), tmp_path / "another", sid)
    assert read_channel(owner, "candidate") == release
    assert [manifest for manifest in before if manifest not in list(list_releases(owner))] == []
    completed = publish(role("publisher"), tmp_path / "another", sid)
    pull_release(owner, completed, tmp_path / "whole")
    assert verify_folder(tmp_path / "whole") == read_channel(owner, "candidate")
