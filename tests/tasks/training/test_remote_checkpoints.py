"""A run's checkpoints survive its machine."""

import os
import socket
import tracemalloc
import uuid
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.s3.client import connect
from tasks.stage.errors import InputError
from tasks.training import remote_checkpoints as module
from tasks.training.remote_checkpoints import AbandonedError, RemoteCheckpoints, parse_address
from tests.fixtures.remote_checkpoints import READER, RUN, keys, put, remote_at, unfinished, write_checkpoint

# The address


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("s3://retrain/checkpoints", ("retrain", "checkpoints")),
        ("s3://a.b-3/team_1/run-a/x.y-z", ("a.b-3", "team_1/run-a/x.y-z")),
    ],
)
def test_an_address_is_bucket_and_prefix(address: str, parts: tuple[str, str]) -> None:
    assert parse_address(address) == parts


@pytest.mark.parametrize(
    "address",
    [
        "",
        "checkpoints",
        "s3://retrain",
        "s3://retrain/",
        "s3://retrain/checkpoints/",
        "s3://retrain//checkpoints",
        "s3://retrain/../checkpoints",
        "s3://Retrain/checkpoints",
        "s3://r/checkpoints",
        "s3://retrain/check points",
        "s3://retrain/checkpoints\n",
        "gs://retrain/checkpoints",
        "https://retrain.s3.amazonaws.com/checkpoints",
    ],
)
def test_another_address_is_refused_by_name_and_value(address: str) -> None:
    with pytest.raises(InputError) as caught:
        RemoteCheckpoints(address, RUN)
    assert str(caught.value).startswith(f"train.checkpoint_remote = {address!r}: allowed is s3://bucket/prefix")


@pytest.mark.parametrize(
    "address", ["s3://key:PLANTED@retrain/c", "https://x/c?sig=PLANTED", "s3://a/b@PL\nANTED@c/d?"]
)
def test_a_credential_in_an_address_is_not_shown(address: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_address(address)
    assert "PL" not in str(caught.value)
    assert "…" in str(caught.value)


# The run's folder in the bucket


@pytest.mark.parametrize("size", [0, 7, (8 << 20) - 1, 8 << 20, (17 << 20) + 1])
def test_an_empty_folder_gets_the_same_bytes(remote: RemoteCheckpoints, tmp_path: Path, size: int) -> None:
    path = write_checkpoint(tmp_path / "lost", 7, os.urandom(size))
    remote.upload(path)
    assert remote.download_newer(tmp_path / "fresh" / RUN[:16], -1) == []
    assert [found.name for found in (tmp_path / "fresh" / RUN[:16]).iterdir()] == [path.name]
    assert (tmp_path / "fresh" / RUN[:16] / path.name).read_bytes() == path.read_bytes()


def test_large_ones_go_up_in_parts(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, bytes(2 * module.PART_BYTES + 1))
    remote.upload(path)
    assert keys(remote)[path.name].endswith('-3"')


def test_memory_does_not_grow_with_the_file(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(8 * module.PART_BYTES)
    tracemalloc.start()
    try:
        remote.store(tmp_path / "large")
        assert tracemalloc.get_traced_memory()[1] < 4 * module.PART_BYTES
    finally:
        tracemalloc.stop()


def test_the_last_two_are_kept(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    paths = [write_checkpoint(tmp_path, step) for step in (9, 10, 100, 1000)]
    for path in paths:
        remote.upload(path)
    assert set(keys(remote)) == {path.name for path in paths[-2:]}


def test_a_run_that_went_back_loses_nothing_sound(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    sound, first, second = (write_checkpoint(tmp_path, step) for step in (40, 45, 46))
    for step in (50, 51):
        put(remote, write_checkpoint(tmp_path, step).name, b"altered")
    remote.upload(sound)
    remote.upload(first)
    remote.upload(second)
    assert steps(remote) == {45, 46, 50, 51}
    assert len(remote.download_newer(tmp_path / "there", -1)) == 2
    for step, kept in ((52, {46, 52}), (53, {52, 53})):
        remote.upload(write_checkpoint(tmp_path, step))
        assert steps(remote) == kept


def steps(remote: RemoteCheckpoints) -> set[int]:
    return {int(name[5:13]) for name in keys(remote)}


def test_the_one_just_uploaded_stays_beside_another_of_its_step(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    paths = [write_checkpoint(tmp_path, 5, content) for content in (b"a", b"b", b"c")]
    for path in paths:
        remote.upload(path)
    assert paths[-1].name in keys(remote)
    assert len(keys(remote)) == 2


def test_only_a_newer_one_is_fetched(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    paths = [write_checkpoint(tmp_path / "here", step) for step in (10, 20)]
    for path in paths:
        remote.upload(path)
    assert remote.download_newer(tmp_path / "there", 20) == []
    assert not (tmp_path / "there").exists()
    assert remote.download_newer(tmp_path / "there", 19) == []
    assert [path.name for path in (tmp_path / "there").iterdir()] == [paths[1].name]


@pytest.mark.parametrize("altered", [b"altered", b"weigh", b""])
def test_an_unsound_one_is_reported_and_the_one_before_used(
    remote: RemoteCheckpoints, tmp_path: Path, altered: bytes
) -> None:
    before, newest = (write_checkpoint(tmp_path / "here", step) for step in (10, 20))
    remote.upload(before)
    remote.upload(newest)
    put(remote, newest.name, altered)
    problems = remote.download_newer(tmp_path / "there", -1)
    assert problems == [f"{remote.uri}/{newest.name} does not match its sha256 and is passed over"]
    assert [path.name for path in (tmp_path / "there").iterdir()] == [before.name]


def test_one_removed_meanwhile_is_passed_over(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    before, newest = (write_checkpoint(tmp_path / "here", step) for step in (10, 20))
    remote.upload(before)
    remote.upload(newest)
    remote._client.meta.events.register("after-call.s3.ListObjectsV2", lambda **_: remote._delete(newest.name))
    (problem,) = remote.download_newer(tmp_path / "there", -1)
    assert problem == f"{remote.uri}/{newest.name} was listed, but is not there, and is passed over"
    assert [path.name for path in (tmp_path / "there").iterdir()] == [before.name]


def test_a_full_disk_is_left_as_it_was(remote: RemoteCheckpoints, tmp_path: Path, small_disk: Path) -> None:
    remote.upload(write_checkpoint(tmp_path / "here", 1, os.urandom(2 << 20)))
    with pytest.raises(OSError, match="No space left on device"):
        remote.download_newer(small_disk, -1)
    assert list(small_disk.iterdir()) == []


def test_what_is_no_checkpoint_is_left_alone(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    strangers = {"note.txt", "step-00000099-abc.npz", f"step-x-{'0' * 64}.npz"}
    for name in strangers:
        put(remote, name, b"stranger")
    for step in (1, 2, 3):
        remote.upload(write_checkpoint(tmp_path, step))
    assert remote.download_newer(tmp_path / "there", 3) == []
    remote.remove()
    assert set(keys(remote)) == strangers


def test_two_runs_never_mix(object_store: ObjectStore, tmp_path: Path) -> None:
    address = f"s3://retrain/checkpoints/{uuid.uuid4().hex}"
    one, other = (RemoteCheckpoints(address, run, connect(object_store.environment)) for run in ("1" * 64, "2" * 64))
    for step in (1, 2, 3):
        one.upload(write_checkpoint(tmp_path / "one", step, b"one"))
    assert other.download_newer(tmp_path / "fresh", -1) == []
    other.upload(write_checkpoint(tmp_path / "other", 9, b"other"))
    assert len(keys(one)) == 2
    other.remove()
    assert len(keys(one)) == 2
    one.download_newer(tmp_path / "fresh", -1)
    assert [path.read_bytes() for path in (tmp_path / "fresh").iterdir()] == [b"one"]


def test_another_unfinished_run_is_found_by_its_note(object_store: ObjectStore, tmp_path: Path) -> None:
    address = f"s3://retrain/checkpoints/{uuid.uuid4().hex}"
    client = connect(object_store.environment)
    own, one, other, silent = (RemoteCheckpoints(address, digit * 64, client) for digit in "1234")
    note = tmp_path / "run.json"
    for remote in (own, one, other):
        note.write_text(f'{{"seed": "{remote.folder}"}}')
        remote.describe(note)
    assert own.newest_other() is None  # none has saved
    for step, remote in enumerate((one, silent, own)):
        remote.upload(write_checkpoint(tmp_path, step))
    found = own.newest_other()
    assert found is not None
    assert found[:2] == (f'{{"seed": "{one.folder}"}}'.encode(), 0)
    one.remove()
    assert own.newest_other() is None
    assert keys(one) == {}


def test_a_finished_run_leaves_nothing(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    for step in (1, 2):
        remote.upload(write_checkpoint(tmp_path, step))
    remote._client.create_multipart_upload(Bucket=remote.bucket, Key=f"{remote.folder}/step")
    remote.remove()
    assert keys(remote) == {}
    assert unfinished(remote) == []
    remote.remove()


def test_an_upload_given_up_halfway_is_aborted(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, bytes(2 * module.PART_BYTES))
    asked = iter([False, True])
    with pytest.raises(AbandonedError):
        remote.store(path, abandoned=lambda: next(asked))
    assert keys(remote) == {}
    assert unfinished(remote) == []


def test_an_upload_refused_halfway_is_said(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    def lose_upload() -> bool:
        remote._abort_unfinished()
        return False

    path = write_checkpoint(tmp_path, 1, bytes(2 * module.PART_BYTES))
    with pytest.raises(InputError, match=f"refused UploadPart on {remote.uri}/{path.name}: NoSuchUpload"):
        remote.store(path, abandoned=lose_upload)


def test_what_a_killed_upload_left_goes_with_the_next(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    remote._client.create_multipart_upload(Bucket=remote.bucket, Key=f"{remote.folder}/step")
    assert unfinished(remote) != []
    remote.upload(write_checkpoint(tmp_path, 1))
    assert unfinished(remote) == []


def test_a_file_pruned_during_its_upload_arrives_whole(remote: RemoteCheckpoints, tmp_path: Path) -> None:
    def prune() -> bool:
        path.unlink(missing_ok=True)
        return False

    path = write_checkpoint(tmp_path / "here", 1, os.urandom(2 * module.PART_BYTES))
    remote.store(path, abandoned=prune)
    assert remote.download_newer(tmp_path / "there", -1) == []
    assert (tmp_path / "there" / path.name).exists()


# Early failure


def test_a_check_leaves_no_trace(remote: RemoteCheckpoints) -> None:
    remote.check()
    assert keys(remote) == {}
    assert unfinished(remote) == []


def test_a_missing_bucket_is_said_before_training(object_store: ObjectStore) -> None:
    remote = RemoteCheckpoints("s3://no-such-bucket/checkpoints", RUN, connect(object_store.environment))
    with pytest.raises(InputError, match="bucket 'no-such-bucket' does not exist"):
        remote.check()


def test_a_bucket_that_may_only_be_read_is_said_before_training(own_store: ObjectStore) -> None:
    remote = remote_at(own_store, **READER)
    with pytest.raises(InputError, match=f"access to {remote.uri}/access-check at .* is denied") as caught:
        remote.check()
    assert "reader" not in str(caught.value)


@pytest.mark.usefixtures("one_attempt")
def test_an_unreachable_store_is_said_before_training(object_store: ObjectStore) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(InputError, match=f"the object store at {endpoint} cannot be reached"):
            remote_at(object_store, AWS_ENDPOINT_URL_S3=endpoint).check()
