"""Downloads from real servers that break off, lie, refuse and come back."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from infra.local.object_store import ObjectStore
from tasks.sources.partial import PartialFile
from tasks.sources.transfer import RetryPolicy, fetch, pause_seconds
from tasks.stage.errors import InputError, OutageError
from tests.fixtures.http_server import Fault, FaultyServer

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()
QUICK = RetryPolicy(attempts=3, timeout_seconds=5, first_pause_seconds=0.01, max_pause_seconds=0.05)
ONCE = RetryPolicy(attempts=1, timeout_seconds=5)


def no_s3() -> Any:
    raise AssertionError("no s3:// address was given")


def get(
    folder: Path,
    *addresses: str,
    sha256: str | None = SHA256,
    retry: RetryPolicy = QUICK,
    connect_s3: Callable[[], Any] = no_s3,
) -> Path:
    return fetch(addresses, sha256, folder, retry, connect_s3)


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def server(http_server: FaultyServer) -> FaultyServer:
    http_server.content["/a"] = DATA
    return http_server


def test_verified_bytes_are_kept_under_their_sha256_and_nothing_else(tmp_path: Path, server: FaultyServer) -> None:
    path = get(tmp_path, server.url("/a"))
    assert path == tmp_path / SHA256
    assert path.read_bytes() == DATA
    assert left_in(tmp_path) == {SHA256}


def test_verified_bytes_are_not_fetched_again(tmp_path: Path, server: FaultyServer) -> None:
    get(tmp_path, server.url("/a"))
    get(tmp_path, server.url("/a"))
    assert len(server.requests) == 1


def test_kept_bytes_that_changed_are_fetched_again(tmp_path: Path, server: FaultyServer) -> None:
    get(tmp_path, server.url("/a")).write_bytes(b"changed")
    assert get(tmp_path, server.url("/a")).read_bytes() == DATA


@pytest.mark.parametrize("kind", ["truncate", "reset"])
def test_broken_transfer_goes_on_where_it_broke_off(tmp_path: Path, server: FaultyServer, kind: str) -> None:
    server.faults["/a"] = [Fault(kind), Fault(kind)]
    assert get(tmp_path, server.url("/a")).read_bytes() == DATA
    ranges = [request.headers.get("Range") for request in server.requests]
    assert ranges == [None, f"bytes={len(DATA) // 2}-", f"bytes={len(DATA) * 3 // 4}-"]
    assert server.requests[1].headers["If-Range"] == '"v1"'


def test_next_process_goes_on_where_the_last_one_was_stopped(tmp_path: Path, server: FaultyServer) -> None:
    server.faults["/a"] = [Fault("truncate")]
    with pytest.raises(InputError, match="broke off after 512,000 bytes"):
        get(tmp_path, server.url("/a"), retry=ONCE)
    assert get(tmp_path, server.url("/a"), retry=ONCE).read_bytes() == DATA
    assert server.requests[1].headers["Range"] == f"bytes={len(DATA) // 2}-"


def test_another_mirror_goes_on_where_the_first_one_broke_off(tmp_path: Path, server: FaultyServer) -> None:
    server.content["/b"], server.etags["/b"] = DATA, '"other"'
    server.faults["/a"] = [Fault("truncate")]
    assert get(tmp_path, server.url("/a"), server.url("/b"), retry=ONCE).read_bytes() == DATA
    assert server.requests[1].headers["Range"] == f"bytes={len(DATA) // 2}-"
    assert "If-Range" not in server.requests[1].headers


def test_complete_but_unnamed_bytes_need_no_request(tmp_path: Path, server: FaultyServer) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(DATA)
    assert get(tmp_path, server.url("/a")).read_bytes() == DATA
    assert server.requests == []


def test_server_that_ignores_ranges_starts_again(tmp_path: Path, server: FaultyServer) -> None:
    server.ranges = False
    server.faults["/a"] = [Fault("truncate")]
    assert get(tmp_path, server.url("/a")).read_bytes() == DATA


def test_server_that_answers_another_range_is_not_believed(tmp_path: Path, server: FaultyServer) -> None:
    server.faults["/a"] = [Fault("truncate"), Fault("wrong_range")]
    assert get(tmp_path, server.url("/a")).read_bytes() == DATA
    assert "Range" not in server.requests[2].headers


def test_content_that_changed_meanwhile_starts_again(tmp_path: Path, server: FaultyServer) -> None:
    server.content["/a"] = b"old" * len(DATA)
    server.faults["/a"] = [Fault("truncate")]
    with pytest.raises(InputError):
        get(tmp_path, server.url("/a"), retry=ONCE)
    server.content["/a"], server.etags["/a"] = DATA, '"v2"'
    assert get(tmp_path, server.url("/a"), retry=ONCE).read_bytes() == DATA


def test_earlier_bytes_that_are_wrong_cost_one_clean_start(tmp_path: Path, server: FaultyServer) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(b"garbage")
    assert get(tmp_path, server.url("/a")).read_bytes() == DATA


def test_earlier_bytes_beyond_the_end_cost_one_clean_start(tmp_path: Path, server: FaultyServer) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(DATA + b"more")
    assert get(tmp_path, server.url("/a")).read_bytes() == DATA


@pytest.mark.parametrize("status", [403, 404, 410])
def test_final_refusal_goes_to_the_next_address_at_once(tmp_path: Path, server: FaultyServer, status: int) -> None:
    server.faults["/no"] = [Fault("status", status)] * 3
    assert get(tmp_path, server.url("/no"), server.url("/a")).read_bytes() == DATA
    assert [request.path for request in server.requests] == ["/no", "/a"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_temporary_refusal_is_tried_again(tmp_path: Path, server: FaultyServer, status: int) -> None:
    server.faults["/a"] = [Fault("status", status, {"Retry-After": "9"}), Fault("status", status)]
    assert get(tmp_path, server.url("/a")).read_bytes() == DATA
    assert len(server.requests) == 3


def test_pause_doubles_with_jitter_and_respects_the_server_within_bounds() -> None:
    retry = RetryPolicy(first_pause_seconds=1, max_pause_seconds=60)
    for attempt, longest in ((1, 1), (2, 2), (3, 4), (4, 8)):
        pauses = {pause_seconds(retry, attempt, 0) for _ in range(50)}
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert pause_seconds(retry, 1, 7) == 7
    assert pause_seconds(retry, 1, 3600) == 60


def test_silent_server_is_given_up(tmp_path: Path, server: FaultyServer) -> None:
    server.faults["/a"] = [Fault("hang")]
    retry = RetryPolicy(attempts=1, timeout_seconds=0.3)
    with pytest.raises(OutageError, match=r"no answer within 0\.3 s"):
        get(tmp_path, server.url("/a"), retry=retry)


def test_every_address_is_named_with_its_reason_and_without_secrets(tmp_path: Path, server: FaultyServer) -> None:
    server.faults["/busy"] = [Fault("status", 503)] * 3
    with pytest.raises(OutageError) as caught:  # two of them may give it later
        get(
            tmp_path,
            server.url("/missing?X-Amz-Signature=topsecret", userinfo="user:hunter2@"),
            server.url("/busy"),
            "http://127.0.0.1:1/closed?token=topsecret",
            "file:///no/such/file",
        )
    text = str(caught.value)
    assert f"{server.url('/missing')} (404 Not Found)" in text
    assert f"{server.url('/busy')} (503 Service Unavailable; tried 3 times)" in text
    assert "http://127.0.0.1:1/closed (Connection refused; tried 3 times)" in text
    assert "file:///no/such/file (no such file, or not readable)" in text
    assert "topsecret" not in text
    assert "hunter2" not in text
    assert left_in(tmp_path) == set()


def test_wrong_bytes_are_removed_and_both_hashes_named(tmp_path: Path, server: FaultyServer) -> None:
    server.content["/a"] = b"wrong"
    with pytest.raises(InputError) as caught:
        get(tmp_path, server.url("/a"), server.url("/missing"))
    assert not isinstance(caught.value, OutageError)
    assert hashlib.sha256(b"wrong").hexdigest() in str(caught.value)
    assert SHA256 in str(caught.value)
    assert f"set download.sha256={hashlib.sha256(b'wrong').hexdigest()}" in str(caught.value)
    assert "removed" not in str(caught.value)
    assert server.url("/a") in str(caught.value)
    assert left_in(tmp_path) == set()
    assert len(server.requests) == 2


def test_wrong_bytes_at_one_mirror_do_not_keep_from_the_next(tmp_path: Path, server: FaultyServer) -> None:
    server.content["/wrong"] = b"wrong" * 10
    assert get(tmp_path, server.url("/wrong"), server.url("/a")).read_bytes() == DATA


def test_unpinned_bytes_are_accepted_and_named(tmp_path: Path, server: FaultyServer) -> None:
    assert get(tmp_path, server.url("/a"), sha256=None) == tmp_path / SHA256


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', ""])
def test_unpinned_bytes_are_joined_only_if_the_server_vouches(tmp_path: Path, server: FaultyServer, etag: str) -> None:
    server.etags["/a"] = etag
    server.faults["/a"] = [Fault("truncate")]
    assert get(tmp_path, server.url("/a"), sha256=None).read_bytes() == DATA
    assert ("Range" in server.requests[1].headers) == (etag == '"v1"')


def test_two_processes_do_not_fill_one_file(tmp_path: Path, server: FaultyServer) -> None:
    with (
        PartialFile(tmp_path / f"{SHA256}.part"),
        pytest.raises(InputError, match="another process is downloading"),
    ):
        get(tmp_path, server.url("/a"))


@pytest.mark.parametrize("address", ["http://[::1/a", "http://host:port/a"])
def test_address_that_is_no_url_is_named_by_position(tmp_path: Path, server: FaultyServer, address: str) -> None:
    with pytest.raises(InputError, match=r"address 2 of 2 under download\.url is not a valid URL"):
        get(tmp_path, server.url("/a"), address)


@pytest.mark.parametrize("name", ["ALL_PROXY", "http_proxy"])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks://127.0.0.1:9", "http://"])
def test_a_proxy_of_another_kind_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, proxy: str
) -> None:
    monkeypatch.setenv(name, proxy)
    with pytest.raises(InputError, match=r"\(the shell's proxy cannot be used: .* pysocks\)") as caught:
        get(tmp_path, "http://archive.invalid/a")
    assert not isinstance(caught.value, OutageError)


def test_file_address_with_escapes(tmp_path: Path) -> None:
    source = tmp_path / "a file.bin"
    source.write_bytes(DATA)
    assert "%20" in source.as_uri()
    path = get(tmp_path / "cache", source.as_uri())
    assert path.read_bytes() == DATA
    assert not path.samefile(source)


def test_file_address_goes_on_and_notices_a_change(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    part = tmp_path / "cache" / f"{SHA256}.part"
    part.parent.mkdir()
    part.write_bytes(DATA[:1000])
    assert get(part.parent, source.as_uri()).read_bytes() == DATA
    os.truncate(source, 10)
    part.write_bytes(DATA[:1000])
    (part.parent / SHA256).unlink()
    with pytest.raises(InputError, match="its sha256 is"):
        get(part.parent, source.as_uri())


@pytest.mark.parametrize("address", ["file://host/a", "file:///"])
def test_file_address_that_names_no_file(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match=r"names no host|no such file"):
        get(tmp_path, address)


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_is_said_to_be_one(tmp_path: Path, end: str) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"/images/? \(no such file, but a folder: end its address with a slash"):
        get(tmp_path / "cache", f"file://{tmp_path}/images{end}")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"/pipe \(no such file, but a device or a pipe\)"):
        get(tmp_path / "cache", f"file://{tmp_path}/pipe")


@pytest.fixture
def connect_s3(object_store: ObjectStore) -> Callable[[], Any]:
    """Put the data into the bucket and give a way to a client."""
    client = boto3.client(
        "s3",
        endpoint_url=object_store.endpoint,
        aws_access_key_id=object_store.access_key,
        aws_secret_access_key=object_store.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    client.put_object(Bucket="retrain", Key="data sets/a.bin", Body=DATA)
    return lambda: client


def test_s3_address(tmp_path: Path, connect_s3: Callable[[], Any]) -> None:
    assert get(tmp_path, "s3://retrain/data%20sets/a.bin", connect_s3=connect_s3).read_bytes() == DATA


def test_s3_transfer_goes_on(tmp_path: Path, connect_s3: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(DATA[:-1000])
    retry = RetryPolicy(attempts=1)
    path = get(tmp_path, "s3://retrain/data sets/a.bin", connect_s3=connect_s3, retry=retry)
    assert path.read_bytes() == DATA
    assert "1.0 MB of 1.0 MB" in capsys.readouterr().out


def test_s3_object_that_changed_starts_again(tmp_path: Path, connect_s3: Callable[[], Any]) -> None:
    address = "s3://retrain/data sets/a.bin"
    part = tmp_path / f"{hashlib.sha256(address.encode()).hexdigest()}.part"
    with PartialFile(part) as partial:
        partial.begin(hashlib.sha256(address.encode()).hexdigest(), '"0123456789abcdef0123456789abcdef"')
        partial.append(b"of another version")
    assert get(tmp_path, address, sha256=None, connect_s3=connect_s3).read_bytes() == DATA


@pytest.mark.parametrize(("address", "reason"), [("s3://retrain/none", "404"), ("s3://no-such-bucket/a", "404")])
def test_s3_object_that_is_not_there(tmp_path: Path, connect_s3: Callable[[], Any], address: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"{address} \({reason} NoSuch"):
        get(tmp_path, address, connect_s3=connect_s3)
