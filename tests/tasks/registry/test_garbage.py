"""Garbage is found and removed; a release, a channel's words, and what is younger than a day are not."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry import releases
from tasks.registry.channels import move_pointer
from tasks.registry.garbage import Found, find_garbage, remove_garbage
from tasks.registry.index import index_key, row_of
from tasks.registry.manifest import Manifest
from tasks.registry.releases import file_key, find_manifest, manifest_key, publish_release, publishing_period
from tasks.registry.store import Store
from tasks.registry.verification import verify_release
from tasks.s3.objects import list_uploads, store_time
from tasks.stage.errors import InputError
from tests.fixtures.buckets import all_keys, new_bucket, write_leftovers, write_release
from tests.fixtures.shifted_store import ShiftedStore

LATER = timedelta(hours=25)
NOW = "2024-01-02T03:04:05+00:00"


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


@pytest.fixture
def later(bucket: Store, shifted_store: ShiftedStore) -> Store:
    """The same folder, on a way on which the store's clock reads 25 hours later."""
    shifted_store.ahead = LATER
    return shifted_store.bucket(bucket)


def _published(bucket: Store, folder: Path, name: str, extra: bytes = b"extra") -> Manifest:
    return publish_release(bucket, folder, write_release(folder, name, extra=extra))


def _begin_upload(bucket: Store, key: str) -> str:
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/{key}"}
    upload: str = bucket.client.create_multipart_upload(**place)["UploadId"]
    bucket.client.upload_part(**place, UploadId=upload, PartNumber=1, Body=bytes(5 << 20))
    return upload


def _kinds(found: Found) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for item in found.garbage:
        kinds.setdefault(item.kind, set()).add(item.key)
    return kinds


def _is_sound(bucket: Store, manifest: Manifest) -> bool:
    checked = verify_release(bucket, manifest.id)
    return not checked.problems and checked.files == len(manifest.files)


def _litter(bucket: Store, folder: Path, release: Manifest) -> dict[str, set[str]]:
    """Leave one of every kind of garbage; return the keys."""
    died = write_release(folder / "died", "died")
    unfinished = write_leftovers(bucket, folder / "died", died, but="split.json")
    lost = write_release(folder / "lost", "release", extra=b"a second publisher's")
    assert lost.id == release.id
    stray = write_leftovers(bucket, folder / "lost", lost)
    upload = f"releases/{died.id}/{'b' * 16}/model.keras"
    _begin_upload(bucket, upload)
    false = index_key(row_of(release).model_copy(update={"top1": 0.99}))
    absent = index_key(row_of(release).model_copy(update={"id": died.id}))
    rows = {str(false), str(absent), f"index/{release.id}/nonsense", "index/nonsense"}
    for key in rows:
        bucket.write(key, b"", replacing=None)
    return {"unfinished": set(unfinished), "stray": set(stray), "upload": {upload}, "index": rows}


def test_every_kind_of_garbage_is_found_and_nothing_else(bucket: Store, later: Store, tmp_path: Path) -> None:
    release = _published(bucket, tmp_path / "release", "release")
    before = all_keys(bucket)
    left = _litter(bucket, tmp_path, release)
    found = find_garbage(later)
    assert _kinds(found) == left
    assert all(item.age >= timedelta(days=1) for item in found.garbage)
    assert (found.problems, found.unlisted) == ((), ())
    assert all_keys(bucket) > before  # looking removes nothing
    remove_garbage(later, found)
    assert all_keys(bucket) == before
    assert list(list_uploads(bucket, "releases")) == []
    assert _is_sound(bucket, release)
    assert find_garbage(later).garbage == ()


def test_nothing_younger_than_a_day_is_garbage(bucket: Store, shifted_store: ShiftedStore, tmp_path: Path) -> None:
    _litter(bucket, tmp_path, _published(bucket, tmp_path / "release", "release"))
    for hours in (0, 23, -25):
        shifted_store.ahead = timedelta(hours=hours)
        assert find_garbage(shifted_store.bucket(bucket)).garbage == ()


def test_what_this_project_does_not_write_is_left(bucket: Store, later: Store) -> None:
    for key in ("releases/notes.txt", "releases/mine/model.keras", "releases/ABCDEF0123456789/x", "other/file"):
        bucket.write(key, b"mine", replacing=None)
    _begin_upload(bucket, "other/upload")
    _begin_upload(bucket, "releases/mine/upload")
    assert find_garbage(later).garbage == ()


def test_a_release_whose_manifest_is_damaged_is_left_and_named(bucket: Store, later: Store, tmp_path: Path) -> None:
    release = _published(bucket, tmp_path, "release")
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{manifest_key(release.id)}", Body=b"{}")
    found = find_garbage(later)
    assert found.garbage == ()
    (problem,) = found.problems
    assert f"{manifest_key(release.id)} is not a manifest" in problem
    assert problem.endswith("nothing of that release is touched")


def test_what_a_channel_names_is_left_though_its_manifest_is_gone(bucket: Store, later: Store, tmp_path: Path) -> None:
    first, second = (_published(bucket, tmp_path / name, name) for name in ("first", "second"))
    for manifest in (first, second):  # the first is named by the history alone
        move_pointer(bucket, "champion", manifest, NOW, lambda _: "better")
    for manifest in (first, second):
        bucket.client.delete_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{manifest_key(manifest.id)}")
    found = find_garbage(later)
    assert found.garbage == ()
    assert len(found.problems) == 2
    assert all("is missing, though it was listed or a channel names it" in problem for problem in found.problems)


def test_a_channel_that_cannot_be_read_stops_the_collector(bucket: Store, later: Store, tmp_path: Path) -> None:
    write_leftovers(bucket, tmp_path, write_release(tmp_path, "died"))
    bucket.write("channels/champion.json", b"{}", replacing=None)
    with pytest.raises(InputError, match="is not a channel's pointer"):
        find_garbage(later)


def test_a_missing_row_is_added(bucket: Store, tmp_path: Path) -> None:
    release = _published(bucket, tmp_path, "release")
    key = index_key(row_of(release))
    bucket.client.delete_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}")
    found = find_garbage(bucket)
    assert found.unlisted == (release,)
    remove_garbage(bucket, found)
    assert key in all_keys(bucket)


def test_a_release_published_again_between_look_and_removal_is_whole(
    bucket: Store, later: Store, tmp_path: Path
) -> None:
    died = write_release(tmp_path, "died")
    left = write_leftovers(bucket, tmp_path, died)
    found = find_garbage(later)
    assert _kinds(found) == {"unfinished": set(left)}
    published = publish_release(later, tmp_path, died)  # a day later too: there is one clock
    remove_garbage(later, found)
    assert _is_sound(bucket, published)
    assert not all_keys(bucket) & set(left)


def test_a_removal_that_comes_late_does_not_hurt_a_release_that_follows_another_removal(
    bucket: Store, later: Store, tmp_path: Path
) -> None:
    died = write_release(tmp_path, "died")
    write_leftovers(bucket, tmp_path, died)
    quick, slow = find_garbage(later), find_garbage(later)
    remove_garbage(later, quick)
    published = publish_release(later, tmp_path, died)
    remove_garbage(later, slow)
    assert _is_sound(bucket, published)


def test_a_publisher_takes_up_what_was_left_in_the_same_period(bucket: Store, tmp_path: Path) -> None:
    died, period = write_release(tmp_path, "died"), publishing_period(store_time(bucket))
    left = set(write_leftovers(bucket, tmp_path, died, but="split.json"))
    published = publish_release(bucket, tmp_path, died)
    if publishing_period(store_time(bucket)) == period:
        assert left < {file_key(published, entry) for entry in published.files}


def test_a_publisher_leaves_alone_what_was_left_long_ago(bucket: Store, later: Store, tmp_path: Path) -> None:
    died = write_release(tmp_path, "died")
    left = set(write_leftovers(bucket, tmp_path, died))
    published = publish_release(later, tmp_path, died)
    assert not left & {file_key(published, entry) for entry in published.files}


def test_collectors_beside_publishers_of_what_died_a_day_ago(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A day of four seconds, so that it passes; everything else is as it is.
    monkeypatch.setattr(releases, "PERIOD", timedelta(seconds=1))
    day = timedelta(seconds=4)
    manifests = [write_release(tmp_path / str(number), f"release {number}") for number in range(9)]
    for number, manifest in enumerate(manifests):
        write_leftovers(bucket, tmp_path / str(number), manifest)
    time.sleep(day.total_seconds() + 1)
    done = threading.Event()

    def collect() -> None:
        while not done.is_set():
            remove_garbage(bucket, find_garbage(bucket, day))

    def publish(number: int) -> Manifest:
        for _ in range(20):
            with contextlib.suppress(InputError):  # too slow for days of four seconds
                return publish_release(bucket, tmp_path / str(number), manifests[number])
        raise AssertionError(f"release {number} could not be published")

    with ThreadPoolExecutor(5) as pool:
        collectors = [pool.submit(collect) for _ in range(2)]
        published = list(pool.map(publish, range(len(manifests))))
        time.sleep(day.total_seconds() + 1)  # what they left is garbage now
        done.set()
        assert [collector.result() for collector in collectors] == [None, None]
    assert all(_is_sound(bucket, manifest) for manifest in published)
    assert find_garbage(bucket, day).garbage == ()
    left = {tuple(key.split("/")[:2]) for key in all_keys(bucket)}
    assert left >= {(folder, manifest.id) for folder in ("releases", "index") for manifest in published}


def test_a_publisher_that_took_half_a_day_writes_no_manifest(
    bucket: Store, shifted_store: ShiftedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, upload = write_release(tmp_path, "slow"), Store.upload

    def upload_slowly(*arguments: object) -> None:
        upload(*arguments)  # type: ignore[arg-type]
        shifted_store.ahead += timedelta(hours=2)

    monkeypatch.setattr(Store, "upload", upload_slowly)
    with pytest.raises(InputError, match="took so long that it may be removed as old; publish again"):
        publish_release(shifted_store.bucket(bucket), tmp_path, manifest)
    assert find_manifest(bucket, manifest.id) is None


def test_a_file_that_is_gone_before_the_manifest_is_missed(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, upload = write_release(tmp_path, "robbed"), Store.upload

    def upload_and_lose(self: Store, source: Path, key: str, sha256: str) -> None:
        upload(self, source, key, sha256)
        if key.endswith("/labels.json"):
            self.client.delete_object(Bucket=self.name, Key=f"{self.prefix}/{key}")

    monkeypatch.setattr(Store, "upload", upload_and_lose)
    with pytest.raises(InputError, match=r"labels\.json is not there any more; publish again"):
        publish_release(bucket, tmp_path, manifest)
    assert find_manifest(bucket, manifest.id) is None
