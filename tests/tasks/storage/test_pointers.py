"""Channels move by compare-and-swap and keep every step."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.errors import InputError
from tasks.storage.bucket import Bucket, sha256_of_bytes
from tasks.storage.client import connect
from tasks.storage.manifest import Manifest
from tasks.storage.pointers import move_pointer, read_channel, read_pointer, resolve
from tasks.storage.releases import manifest_key, publish_release
from tests.fixtures.buckets import new_bucket, write_release
from tests.fixtures.faults import Fault, Request
from tests.fixtures.faulty_s3 import FaultyS3

NOW = "2024-01-02T03:04:05+00:00"


@pytest.fixture
def bucket(object_store: ObjectStore) -> Bucket:
    return new_bucket(object_store)


def _releases(bucket: Bucket, folder: Path, count: int) -> list[Manifest]:
    names = [f"release {number}" for number in range(count)]
    return [
        publish_release(bucket, folder / name, write_release(folder / name, name, top1=(number + 1) / 100))
        for number, name in enumerate(names)
    ]


def _move(bucket: Bucket, manifest: Manifest) -> bool:
    return move_pointer(bucket, "candidate", manifest, NOW, lambda _: "published")


def test_a_pointer_keeps_its_history(bucket: Bucket, tmp_path: Path) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    assert read_pointer(bucket, "candidate") is None
    for manifest in (first, second, first):
        assert _move(bucket, manifest)
    pointer = read_pointer(bucket, "candidate")
    assert pointer is not None
    assert [move.release for move in pointer.history] == [first.id, second.id, first.id]
    assert pointer.current.manifest_sha256 == sha256_of_bytes(first.to_bytes())
    assert (pointer.current.moved_at, pointer.current.reason) == (NOW, "published")
    assert read_pointer(bucket, "champion") is None


def test_pointing_where_it_points_changes_nothing(bucket: Bucket, tmp_path: Path) -> None:
    (first,) = _releases(bucket, tmp_path, 1)
    _move(bucket, first)
    before = bucket.read("channels/candidate.json")
    assert _move(bucket, first)
    assert bucket.read("channels/candidate.json") == before


def test_a_refusal_leaves_the_pointer(bucket: Bucket, tmp_path: Path) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    _move(bucket, first)
    assert not move_pointer(bucket, "candidate", second, NOW, lambda current: None)
    assert read_channel(bucket, "candidate") == first


def test_a_lost_race_is_decided_again(bucket: Bucket, tmp_path: Path) -> None:
    first, second, third = _releases(bucket, tmp_path, 3)
    _move(bucket, first)
    seen = []

    def decide(current: Manifest | None) -> str:
        seen.append(current)
        if len(seen) == 1:
            _move(bucket, second)  # another publisher, between our reading and our writing
        return "better"

    assert move_pointer(bucket, "candidate", third, NOW, decide)
    assert seen == [first, second]
    pointer = read_pointer(bucket, "candidate")
    assert pointer is not None
    assert [move.release for move in pointer.history] == [first.id, second.id, third.id]


def test_a_move_whose_answer_is_lost_is_made_once_though_others_moved_on(
    bucket: Bucket, faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    through_proxy = Bucket(connect(faulty_s3.environment), bucket.name, bucket.prefix)
    through_proxy.learn_conditions()
    moves = []

    def move_on_before_the_second(request: Request) -> Fault | None:
        if not request.matches("PUT", "candidate"):
            return None
        moves.append(request)
        if len(moves) == 1:
            return Fault("lost_answer")
        _move(bucket, second)  # another publisher, before ours asks again
        return None

    faulty_s3.plan = move_on_before_the_second
    assert not _move(through_proxy, first)
    pointer = read_pointer(bucket, "candidate")
    assert pointer is not None
    assert [move.release for move in pointer.history] == [first.id, second.id]


def test_publishers_at_once_leave_one_unbroken_history_and_the_best_champion(bucket: Bucket, tmp_path: Path) -> None:
    releases = _releases(bucket, tmp_path, 6)

    def publish(manifest: Manifest) -> bool:
        better = lambda current: "better" if current is None or manifest.top1 >= current.top1 else None  # noqa: E731
        _move(bucket, manifest)
        return move_pointer(bucket, "champion", manifest, NOW, better)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(publish, releases))
    candidate, champion = read_pointer(bucket, "candidate"), read_pointer(bucket, "champion")
    assert candidate is not None
    assert champion is not None
    assert sorted(move.release for move in candidate.history) == sorted(manifest.id for manifest in releases)
    assert champion.current.release == releases[-1].id
    top1 = {manifest.id: manifest.top1 for manifest in releases}
    climbed = [top1[move.release] for move in champion.history]
    assert climbed == sorted(climbed)


def test_a_swapped_manifest_is_noticed(bucket: Bucket, tmp_path: Path) -> None:
    (first,) = _releases(bucket, tmp_path, 1)
    _move(bucket, first)
    swapped = first.model_copy(update={"created_at": "2020-01-01T00:00:00+00:00"})
    key = f"{bucket.prefix}/{manifest_key(first.id)}"
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=swapped.to_bytes())
    with pytest.raises(InputError, match="was altered"):
        read_channel(bucket, "candidate")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"channel": "champion"}'])
def test_what_is_no_pointer_is_refused(bucket: Bucket, body: bytes) -> None:
    bucket.write("channels/champion.json", body, replacing=None)
    with pytest.raises(InputError, match=r"channels/champion\.json is not a channel's pointer"):
        read_pointer(bucket, "champion")


def test_a_pointer_of_another_channel_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    _move(bucket, _releases(bucket, tmp_path, 1)[0])
    stored = bucket.read("channels/candidate.json")
    assert stored is not None
    bucket.write("channels/champion.json", stored.body, replacing=None)
    with pytest.raises(InputError, match="another channel, candidate"):
        read_pointer(bucket, "champion")


def test_a_release_is_named_by_channel_id_or_first_digits(bucket: Bucket, tmp_path: Path) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    _move(bucket, second)
    assert resolve(bucket, "candidate") == second
    assert resolve(bucket, first.id) == first
    assert resolve(bucket, first.id[:8]) == first


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("champion", "there is no champion"),
        ("0" * 16, "there is no release '0000000000000000'"),
        ("00000", "0 releases"),
        ("../x", "is neither a release's id nor"),
        ("abc", "is neither a release's id nor"),
    ],
)
def test_a_name_that_means_nothing_is_said(bucket: Bucket, name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        resolve(bucket, name)
