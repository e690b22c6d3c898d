"""Channels move by compare-and-swap and keep every step."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.channels import move_pointer, promote, read_channel, read_pointer, resolve, rollback
from tasks.registry.manifest import Manifest
from tasks.registry.moves import Move
from tasks.registry.releases import manifest_key, publish_release
from tasks.registry.store import Store
from tasks.s3.bucket import ConflictError, Stored, sha256_of_bytes
from tasks.s3.client import connect
from tasks.stage.errors import InputError
from tests.fixtures.buckets import new_bucket, write_release
from tests.fixtures.faults import Fault, Request
from tests.fixtures.faulty_s3 import FaultyS3

NOW = "2024-01-02T03:04:05+00:00"


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


def _releases(bucket: Store, folder: Path, count: int) -> list[Manifest]:
    names = [f"release {number}" for number in range(count)]
    return [
        publish_release(bucket, folder / name, write_release(folder / name, name, top1=(number + 1) / 100))
        for number, name in enumerate(names)
    ]


def _move(bucket: Store, manifest: Manifest) -> bool:
    return move_pointer(bucket, "candidate", manifest, NOW, lambda _: "published")


def test_a_pointer_keeps_its_history(bucket: Store, tmp_path: Path) -> None:
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


def test_pointing_where_it_points_changes_nothing(bucket: Store, tmp_path: Path) -> None:
    (first,) = _releases(bucket, tmp_path, 1)
    _move(bucket, first)
    before = bucket.read("channels/candidate.json")
    assert _move(bucket, first)
    assert bucket.read("channels/candidate.json") == before


def test_a_refusal_leaves_the_pointer(bucket: Store, tmp_path: Path) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    _move(bucket, first)
    assert not move_pointer(bucket, "candidate", second, NOW, lambda current: None)
    assert read_channel(bucket, "candidate") == first


def test_a_lost_race_is_decided_again(bucket: Store, tmp_path: Path) -> None:
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
    bucket: Store, faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    through_proxy = Store(connect(faulty_s3.environment), bucket.name, bucket.prefix)
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


def test_publishers_at_once_leave_one_unbroken_history_and_the_best_champion(bucket: Store, tmp_path: Path) -> None:
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


def _history(bucket: Store, channel: Any = "champion") -> tuple[Move, ...]:
    pointer = read_pointer(bucket, channel)
    assert pointer is not None
    return pointer.history


def _champion(bucket: Store, manifest: Manifest, reason: str = "better") -> bool:
    return move_pointer(bucket, "champion", manifest, NOW, lambda _: reason, actor="a@b")


def _lose_answers(monkeypatch: pytest.MonkeyPatch, count: int, between: Any = lambda: None) -> None:
    """Let the next writes take place and look like lost races, as when a repeated request finds its own write."""
    write, left = Store.write, [count]

    def losing(self: Store, key: str, body: bytes, *, replacing: Stored | None) -> None:
        write(self, key, body, replacing=replacing)
        if left[0]:
            left[0] -= 1
            between()
            raise ConflictError(key)

    monkeypatch.setattr(Store, "write", losing)


def test_a_move_says_who_made_it(bucket: Store, tmp_path: Path) -> None:
    (first,) = _releases(bucket, tmp_path, 1)
    _champion(bucket, first)
    (move,) = _history(bucket)
    assert (move.action, move.actor, move.forced) == ("publish", "a@b", False)


def test_a_pointer_from_before_actors_were_recorded_is_read_and_goes_on(bucket: Store, tmp_path: Path) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    sha256 = sha256_of_bytes(first.to_bytes())
    old = {"release": first.id, "manifest_sha256": sha256, "moved_at": NOW, "reason": "there is no champion yet"}
    body = json.dumps({"channel": "champion", "current": old, "history": [old]}).encode()
    bucket.write("channels/champion.json", body, replacing=None)
    assert _champion(bucket, second)
    assert [(move.actor, move.action, move.forced) for move in _history(bucket)] == [
        (None, "publish", False),
        ("a@b", "publish", False),
    ]
    assert rollback(bucket, "champion", actor="c@d", reason="", now=NOW) == first


def test_a_promotion_goes_by_the_judge(bucket: Store, tmp_path: Path) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    seen = []

    def judge(champion: Manifest | None) -> str | None:
        seen.append(champion)
        return "it is better" if champion is None else None

    assert promote(bucket, first, judge, reason="try it", actor="a@b", now=NOW)
    assert not promote(bucket, second, judge, reason="try it", actor="a@b", now=NOW)
    assert seen == [None, first]
    (move,) = _history(bucket)
    assert (move.release, move.action, move.forced) == (first.id, "promote", False)
    assert move.reason == "try it: it is better"


def test_a_forced_promotion_is_recorded_with_who_and_why(bucket: Store, tmp_path: Path) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    _champion(bucket, second)
    assert promote(bucket, first, None, reason="the new one\nfails on  night pictures", actor="ann@lab", now=NOW)
    move = _history(bucket)[-1]
    assert (move.release, move.action, move.forced, move.actor) == (first.id, "promote", True, "ann@lab")
    assert move.reason == "the new one fails on night pictures"
    assert read_channel(bucket, "champion") == first


@pytest.mark.parametrize("reason", ["", " \n"])
def test_a_forced_promotion_needs_a_reason(bucket: Store, tmp_path: Path, reason: str) -> None:
    (first,) = _releases(bucket, tmp_path, 1)
    with pytest.raises(InputError, match="needs a reason"):
        promote(bucket, first, None, reason=reason, actor="a@b", now=NOW)
    assert read_pointer(bucket, "champion") is None


def test_rollbacks_go_back_one_release_after_another_and_erase_nothing(bucket: Store, tmp_path: Path) -> None:
    first, second, third = _releases(bucket, tmp_path, 3)
    for manifest in (first, second, third):
        _champion(bucket, manifest)
    assert rollback(bucket, "champion", actor="ann@lab", reason="wrong", now=NOW) == second
    assert rollback(bucket, "champion", actor="ann@lab", reason="wrong too", now=NOW) == first
    assert [move.release for move in _history(bucket)] == [first.id, second.id, third.id, second.id, first.id]
    move = _history(bucket)[-1]
    assert (move.action, move.actor, move.reason, move.forced) == ("rollback", "ann@lab", "wrong too", False)
    assert move.manifest_sha256 == sha256_of_bytes(first.to_bytes())
    with pytest.raises(InputError, match="nothing to go back to"):
        rollback(bucket, "champion", actor="ann@lab", reason="", now=NOW)


def test_a_rollback_after_a_later_release_goes_to_the_one_that_stood_before_it(bucket: Store, tmp_path: Path) -> None:
    first, second, third = _releases(bucket, tmp_path, 3)
    _champion(bucket, first)
    _champion(bucket, second)
    rollback(bucket, "champion", actor="a@b", reason="", now=NOW)
    _champion(bucket, third)
    assert rollback(bucket, "champion", actor="a@b", reason="", now=NOW) == first


def test_the_candidate_can_be_rolled_back_too(bucket: Store, tmp_path: Path) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    _move(bucket, first)
    _move(bucket, second)
    assert rollback(bucket, "candidate", actor="a@b", reason="", now=NOW) == first


def test_there_is_nothing_to_roll_back_to_without_a_release_before(bucket: Store, tmp_path: Path) -> None:
    (first,) = _releases(bucket, tmp_path, 1)
    for _ in range(2):  # no pointer, then a pointer with one move
        with pytest.raises(InputError, match="nothing to go back to"):
            rollback(bucket, "champion", actor="a@b", reason="", now=NOW)
        _champion(bucket, first)


def test_a_rollback_never_undoes_a_release_that_it_did_not_see(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = _releases(bucket, tmp_path, 3)
    _champion(bucket, first)
    _champion(bucket, second)
    write, first_time = Store.write, [True]

    def overtaken(self: Store, key: str, body: bytes, *, replacing: Stored | None) -> None:
        if first_time:
            first_time.clear()
            _champion(bucket, third)
        write(self, key, body, replacing=replacing)

    monkeypatch.setattr(Store, "write", overtaken)
    with pytest.raises(InputError, match=f"was moved to release {third.id} meanwhile"):
        rollback(bucket, "champion", actor="a@b", reason="", now=NOW)
    assert read_channel(bucket, "champion") == third


def test_a_rollback_whose_answer_is_lost_is_done_once(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = _releases(bucket, tmp_path, 3)
    for manifest in (first, second, third):
        _champion(bucket, manifest)
    _lose_answers(monkeypatch, 1)
    assert rollback(bucket, "champion", actor="a@b", reason="", now=NOW) == second
    assert [move.release for move in _history(bucket)] == [first.id, second.id, third.id, second.id]


def test_a_move_whose_answer_is_lost_is_not_made_again_after_another(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _releases(bucket, tmp_path, 2)
    _lose_answers(monkeypatch, 1, between=lambda: _champion(bucket, second))
    assert not _champion(bucket, first)
    assert [move.release for move in _history(bucket)] == [first.id, second.id]


def test_a_swapped_manifest_is_noticed(bucket: Store, tmp_path: Path) -> None:
    (first,) = _releases(bucket, tmp_path, 1)
    _move(bucket, first)
    swapped = first.model_copy(update={"created_at": "2020-01-01T00:00:00+00:00"})
    key = f"{bucket.prefix}/{manifest_key(first.id)}"
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=swapped.to_bytes())
    with pytest.raises(InputError, match="was altered"):
        read_channel(bucket, "candidate")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"channel": "champion"}'])
def test_what_is_no_pointer_is_refused(bucket: Store, body: bytes) -> None:
    bucket.write("channels/champion.json", body, replacing=None)
    with pytest.raises(InputError, match=r"channels/champion\.json is not a channel's pointer"):
        read_pointer(bucket, "champion")


def test_a_pointer_of_another_channel_is_refused(bucket: Store, tmp_path: Path) -> None:
    _move(bucket, _releases(bucket, tmp_path, 1)[0])
    stored = bucket.read("channels/candidate.json")
    assert stored is not None
    bucket.write("channels/champion.json", stored.body, replacing=None)
    with pytest.raises(InputError, match="another channel, candidate"):
        read_pointer(bucket, "champion")


def test_a_release_is_named_by_channel_id_or_first_digits(bucket: Store, tmp_path: Path) -> None:
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
def test_a_name_that_means_nothing_is_said(bucket: Store, name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        resolve(bucket, name)
