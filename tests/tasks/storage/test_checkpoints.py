"""A run's checkpoints survive its machine; a bucket in trouble costs a warning, never a step."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.errors import InputError
from tasks.files import read_json
from tasks.storage import checkpoints as module
from tasks.storage import client as client_module
from tasks.storage.checkpoints import AbandonedError, Mirror, RemoteCheckpoints, parse_address
from tasks.storage.client import connect

RUN = "0123456789abcdef" + 48 * "0"
SECONDS = 60.0  # far above what anything here takes

# A training process whose bucket hangs; it has to come to its end all the same.
PROCESS = """
import sys
from pathlib import Path
from tasks.storage.checkpoints import Mirror, RemoteCheckpoints

mirror = Mirror(RemoteCheckpoints("s3://retrain/checkpoints", "a" * 64), print)
mirror.offer(Path(sys.argv[1]))
print(mirror.flush(0.5), flush=True)
"""


def write_checkpoint(folder: Path, step: int, content: bytes = b"weights") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08d}-{hashlib.sha256(content).hexdigest()}.npz"
    path.write_bytes(content)
    return path


def remote_at(store: ObjectStore, run: str = RUN, **environment: str) -> RemoteCheckpoints:
    """Return a run's checkpoints under a prefix that nothing else uses."""
    client = connect({**store.environment, **environment})
    return RemoteCheckpoints(f"s3://{store.bucket}/checkpoints/{uuid.uuid4().hex}", run, client)


@pytest.fixture
def remote(object_store: ObjectStore) -> RemoteCheckpoints:
    return remote_at(object_store)


def keys(remote: RemoteCheckpoints) -> dict[str, str]:
    """Return the names and tags of all that lies in the run's folder."""
    found = remote._client.list_objects_v2(Bucket=remote.bucket, Prefix=remote.folder).get("Contents", [])
    return {entry["Key"].rpartition("/")[2]: entry["ETag"] for entry in found}


def unfinished(remote: RemoteCheckpoints) -> list[str]:
    found = remote._client.list_multipart_uploads(Bucket=remote.bucket, Prefix=f"{remote.folder}/")
    return [entry["Key"] for entry in found.get("Uploads", [])]


def put(remote: RemoteCheckpoints, name: str, content: bytes) -> None:
    remote._client.put_object(Bucket=remote.bucket, Key=f"{remote.folder}/{name}", Body=content)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
    assert {name[:13] for name in keys(remote)} == {"step-00000045", "step-00000046", "step-00000050", "step-00000051"}


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


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Yield a store that a test may kill, with a second identity, reader / reader-secret, that may not write."""
    folder = tmp_path_factory.mktemp("own_store")
    identities = [
        {"name": "owner", "credentials": [{"accessKey": "owner", "secretKey": "owner-secret"}], "actions": ["Admin"]},
        {
            "name": "reader",
            "credentials": [{"accessKey": "reader", "secretKey": "reader-secret"}],
            "actions": ["Read", "List"],
        },
    ]
    (folder / "object_store").mkdir()
    (folder / "object_store/identities.json").write_text(json.dumps({"identities": identities}))
    store = ObjectStore(folder)
    store.start()
    yield store
    store.stop()


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ATTEMPTS", 1)


READER = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader-secret"}


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


# The mirror


@pytest.fixture
def mirrors() -> Iterator[Callable[[RemoteCheckpoints], tuple[Mirror, list[str]]]]:
    """Yield a maker of mirrors, each with the list of what it warned of; they are closed afterwards."""
    made: list[Mirror] = []

    def make(remote: RemoteCheckpoints) -> tuple[Mirror, list[str]]:
        warnings: list[str] = []
        made.append(Mirror(remote, warnings.append))
        return made[-1], warnings

    yield make
    for mirror in made:
        mirror.close()


Mirrors = Callable[[RemoteCheckpoints], tuple[Mirror, list[str]]]


class HeldRemote(RemoteCheckpoints):
    """A remote whose uploads begin only when they are let go, and that says which began."""

    began: list[str]
    free: threading.Event

    def store(self, path: Path, abandoned: Callable[[], bool] = lambda: False) -> None:
        self.began.append(path.name)
        assert self.free.wait(SECONDS)
        super().store(path, abandoned)


def held(remote: RemoteCheckpoints) -> HeldRemote:
    """Return the same remote with its uploads held."""
    address, _, run = remote.uri.rpartition("/")
    slow = HeldRemote(address, run, remote._client)
    slow.began, slow.free = [], threading.Event()
    return slow


@pytest.fixture
def server() -> Iterator[Callable[[bytes | None], str]]:
    """Yield a maker of servers that accept everyone and answer with these bytes, or never; it returns the address."""
    sockets: list[socket.socket] = []

    def make(answer: bytes | None) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                sockets.append(connection)
                if answer is not None and connection.recv(1 << 16):
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield make
    for opened in sockets:
        with contextlib.suppress(OSError):  # the other side was first
            opened.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in accept or recv
        opened.close()


def test_what_is_offered_is_there_after_a_flush(remote: RemoteCheckpoints, tmp_path: Path, mirrors: Mirrors) -> None:
    mirror, warnings = mirrors(remote)
    assert mirror.flush(SECONDS)
    for step in (1, 2, 3):
        path = write_checkpoint(tmp_path, step)
        mirror.offer(path)
        assert mirror.flush(SECONDS)
        assert path.name in keys(remote)
    mirror.close()
    assert len(keys(remote)) == 2
    assert warnings == []


def test_only_the_newest_is_uploaded_when_it_falls_behind(
    remote: RemoteCheckpoints, tmp_path: Path, mirrors: Mirrors
) -> None:
    slow = held(remote)
    mirror, _ = mirrors(slow)
    paths = [write_checkpoint(tmp_path, step) for step in range(5)]
    mirror.offer(paths[0])
    wait_until(lambda: slow.began != [])
    for path in paths[1:]:
        mirror.offer(path)
    slow.free.set()
    assert mirror.flush(SECONDS)
    assert slow.began == [paths[0].name, paths[4].name]


def test_one_pruned_here_before_its_turn_is_skipped(
    remote: RemoteCheckpoints, tmp_path: Path, mirrors: Mirrors
) -> None:
    mirror, warnings = mirrors(remote)
    gone = write_checkpoint(tmp_path, 1)
    gone.unlink()
    mirror.offer(gone)
    assert not mirror.flush(SECONDS)
    mirror.offer(write_checkpoint(tmp_path, 2))
    assert mirror.flush(SECONDS)
    assert warnings == []


@pytest.mark.usefixtures("one_attempt")
def test_an_outage_is_said_once_and_so_is_its_end(own_store: ObjectStore, tmp_path: Path, mirrors: Mirrors) -> None:
    remote = remote_at(own_store)
    mirror, warnings = mirrors(remote)
    paths = [write_checkpoint(tmp_path, step, os.urandom(100)) for step in range(5)]
    mirror.offer(paths[0])
    assert mirror.flush(SECONDS)
    wait_until(mirror._is_idle)
    os.killpg(read_json(own_store.folder / "object_store/server.json")["pid"], signal.SIGKILL)
    wait_until(lambda: not own_store.is_running())
    for path in paths[1:3]:
        mirror.offer(path)
        assert not mirror.flush(SECONDS)
    assert len(warnings) == 1
    assert f"the object store at {own_store.endpoint} " in warnings[0]  # cannot be reached, or broke the connection
    assert warnings[0].endswith("training goes on, and mirroring is tried again with the next checkpoint")
    own_store.start()
    for path in paths[3:]:
        mirror.offer(path)
        wait_until(lambda: mirror.flush(SECONDS))  # a store that answers may not yet write
    mirror.close()
    assert warnings[1:] == [f"checkpoints are mirrored to {remote.uri} again"]
    assert set(keys(remote)) == {path.name for path in paths[3:]}
    assert remote.download_newer(tmp_path / "fresh", -1) == []
    assert (tmp_path / "fresh" / paths[4].name).read_bytes() == paths[4].read_bytes()


def test_a_flush_tries_again_what_had_failed(own_store: ObjectStore, tmp_path: Path, mirrors: Mirrors) -> None:
    remote = remote_at(own_store)
    mirror, warnings = mirrors(remote)
    path = tmp_path / "later" / write_checkpoint(tmp_path, 1).name
    mirror.offer(path)
    assert not mirror.flush(SECONDS)
    write_checkpoint(tmp_path / "later", 1)
    assert mirror.flush(SECONDS)
    assert path.name in keys(remote)
    assert warnings == []


def test_a_denied_bucket_warns_once_without_credentials(
    own_store: ObjectStore, tmp_path: Path, mirrors: Mirrors
) -> None:
    remote = remote_at(own_store, **READER)
    mirror, warnings = mirrors(remote)
    for step in (1, 2):
        mirror.offer(write_checkpoint(tmp_path, step))
        assert not mirror.flush(SECONDS)
    (warning,) = warnings
    assert f"access to {remote.uri}/step-00000001-" in warning
    assert "is denied" in warning
    assert "reader" not in warning


def test_a_bucket_that_refuses_to_delete_still_has_the_newest(
    own_store: ObjectStore, tmp_path: Path, mirrors: Mirrors
) -> None:
    remote = remote_at(own_store)
    denial = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::retrain/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denial]})
    remote._client.put_bucket_policy(Bucket="retrain", Policy=policy)
    try:
        mirror, warnings = mirrors(remote)
        for step in (1, 2, 3, 4):
            mirror.offer(write_checkpoint(tmp_path, step))
            assert mirror.flush(SECONDS)
        mirror.close()
    finally:
        remote._client.delete_bucket_policy(Bucket="retrain")
    assert len(keys(remote)) == 4
    (warning,) = warnings
    assert f"access to {remote.uri}/step-00000001-" in warning


@pytest.mark.usefixtures("one_attempt")
@pytest.mark.parametrize("page", [b"<html>", b"<html/>"])  # not XML; XML that says nothing
def test_a_server_that_is_no_object_store_warns(
    object_store: ObjectStore, tmp_path: Path, mirrors: Mirrors, server: Callable[[bytes | None], str], page: bytes
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(page), page)
    mirror, warnings = mirrors(remote_at(object_store, AWS_ENDPOINT_URL_S3=server(answer)))
    for step in (1, 2):
        mirror.offer(write_checkpoint(tmp_path, step, bytes(module.PART_BYTES)))
        assert not mirror.flush(SECONDS)
    assert len(warnings) == 1


def test_nothing_waits_for_a_server_that_hangs(
    object_store: ObjectStore, tmp_path: Path, mirrors: Mirrors, server: Callable[[bytes | None], str]
) -> None:
    mirror, warnings = mirrors(remote_at(object_store, AWS_ENDPOINT_URL_S3=server(None)))
    start = time.monotonic()
    for step in range(20):
        mirror.offer(write_checkpoint(tmp_path, step))
    assert not mirror.flush(0.2)
    mirror.close()
    assert time.monotonic() - start < 30  # it would hang for minutes
    assert warnings == []


def test_a_process_ends_while_its_bucket_hangs(
    object_store: ObjectStore, tmp_path: Path, server: Callable[[bytes | None], str]
) -> None:
    environment: dict[str, Any] = {**os.environ, **object_store.environment, "AWS_ENDPOINT_URL_S3": server(None)}
    path = write_checkpoint(tmp_path, 1, bytes(2 * module.PART_BYTES))
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS, path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "False\n", "")


def test_a_closed_mirror_gives_up_what_is_not_there_yet(
    remote: RemoteCheckpoints, tmp_path: Path, mirrors: Mirrors
) -> None:
    slow = held(remote)
    mirror, warnings = mirrors(slow)
    mirror.offer(write_checkpoint(tmp_path, 1, bytes(2 * module.PART_BYTES)))
    wait_until(lambda: slow.began != [])
    mirror.offer(write_checkpoint(tmp_path, 2))
    closing = threading.Thread(target=mirror.close)
    closing.start()
    wait_until(lambda: mirror._closed)
    slow.free.set()
    closing.join(SECONDS)
    assert not mirror._thread.is_alive()
    assert keys(remote) == {}
    assert unfinished(remote) == []
    assert warnings == []
