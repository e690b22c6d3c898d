"""A bucket in trouble costs a warning, never a step."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.stage.files import read_json
from tasks.training import remote_checkpoints as module
from tasks.training.mirror import Mirror
from tasks.training.remote_checkpoints import RemoteCheckpoints
from tests.fixtures.remote_checkpoints import (
    READER,
    SECONDS,
    keys,
    remote_at,
    unfinished,
    wait_until,
    write_checkpoint,
)

# A training process whose bucket hangs; it has to come to its end all the same.
PROCESS = """
import sys
from pathlib import Path
from tasks.training.remote_checkpoints import RemoteCheckpoints
from tasks.training.mirror import Mirror

mirror = Mirror(RemoteCheckpoints("s3://retrain/checkpoints", "a" * 64), print)
mirror.offer(Path(sys.argv[1]))
print(mirror.flush(0.5), flush=True)
"""


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
