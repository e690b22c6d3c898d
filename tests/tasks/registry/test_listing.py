"""A listing takes as many requests for thirty releases as for three, and its truth is the manifest."""

from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.index import add_to_index, index_key, row_of
from tasks.registry.listing import list_rows
from tasks.registry.manifest import Manifest
from tasks.registry.releases import manifest_key, publish_release
from tasks.registry.store import Store
from tests.fixtures.buckets import new_bucket, write_leftovers, write_release


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


@pytest.fixture
def requests(bucket: Store) -> list[str]:
    """Grows by the name of every request to the store."""
    sent: list[str] = []

    def note(model: Any, **_: Any) -> None:
        sent.append(model.name)

    bucket.client.meta.events.register("before-call.s3", note)
    return sent


def _announce(bucket: Store, folder: Path, number: int, *, indexed: bool = True) -> Manifest:
    """Write what a listing reads of a release."""
    manifest = write_release(folder / str(number), f"release {number}", top1=number / 100)
    manifest = manifest.model_copy(update={"created_at": f"2024-01-01T00:00:{number:02d}+00:00"})
    bucket.write(manifest_key(manifest.id), manifest.to_bytes(), replacing=None)
    if indexed:
        add_to_index(bucket, manifest)
    return manifest


def test_the_number_of_requests_does_not_grow_with_the_releases(
    bucket: Store, requests: list[str], tmp_path: Path
) -> None:
    counts = []
    for numbers in (range(3), range(3, 30)):
        manifests = [_announce(bucket, tmp_path, number) for number in numbers]
        requests.clear()
        found = list_rows(bucket)
        counts.append(list(requests))
        assert [row.id for row in found.rows[: len(manifests)]] == [manifest.id for manifest in reversed(manifests)]
    assert counts == [["ListObjectsV2"] * 2] * 2
    assert len(found.rows) == 30


def test_a_listing_of_several_pages_is_whole(bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = [_announce(bucket, tmp_path, number, indexed=number % 5 > 0) for number in range(12)]

    def in_small_pages(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 5

    bucket.client.meta.events.register("provide-client-params.s3.ListObjectsV2", in_small_pages)
    assert [row.id for row in list_rows(bucket).rows] == [manifest.id for manifest in reversed(manifests)]


def test_a_release_without_a_row_is_read_from_its_manifest(bucket: Store, requests: list[str], tmp_path: Path) -> None:
    manifests = [_announce(bucket, tmp_path, number, indexed=number != 1) for number in range(3)]
    requests.clear()
    assert list_rows(bucket).rows == tuple(row_of(manifest) for manifest in reversed(manifests))
    assert sorted(requests) == ["GetObject", "ListObjectsV2", "ListObjectsV2"]


def test_rows_that_contradict_each_other_or_mean_nothing_do_not_count(bucket: Store, tmp_path: Path) -> None:
    manifest = _announce(bucket, tmp_path, 1)
    false = index_key(row_of(manifest).model_copy(update={"top1": 0.99}))
    absent = index_key(row_of(manifest).model_copy(update={"id": "f" * 16}))
    for key in (false, absent, f"index/{manifest.id}/nonsense", "index/nonsense"):
        assert key is not None
        bucket.write(key, b"", replacing=None)
    assert list_rows(bucket).rows == (row_of(manifest),)


def test_what_is_not_a_release_is_not_listed(bucket: Store, tmp_path: Path) -> None:
    write_leftovers(bucket, tmp_path, write_release(tmp_path, "died"))
    bucket.write("releases/notes/manifest.json", b"{}", replacing=None)
    assert list_rows(bucket).rows == ()


def test_a_damaged_manifest_does_not_hide_the_others(bucket: Store, tmp_path: Path) -> None:
    sound = publish_release(bucket, tmp_path / "a", write_release(tmp_path / "a", "a"))
    for name, body in ((f"{0:016x}", b"{}"), (f"{1:016x}", sound.to_bytes())):
        bucket.write(manifest_key(name), body, replacing=None)
    found = list_rows(bucket)
    assert found.rows == (row_of(sound),)
    assert len(found.problems) == 2
    assert f"{manifest_key(f'{0:016x}')} is not a manifest" in found.problems[0]
    assert "is the manifest of another release" in found.problems[1]
