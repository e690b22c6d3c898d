"""The S3 operations that releases are made of keep their guarantees on a real server."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.store import open_bucket
from tasks.s3.bucket import Bucket, ConflictError
from tasks.stage.errors import InputError
from tasks.stage.files import sha256_of
from tests.fixtures.buckets import new_bucket


@pytest.fixture
def bucket(object_store: ObjectStore) -> Bucket:
    return new_bucket(object_store)


def test_only_the_first_writer_of_an_object_wins(bucket: Bucket) -> None:
    def write(number: int) -> bool:
        try:
            bucket.write("object", str(number).encode(), replacing=None)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, first in enumerate(pool.map(write, range(8))) if first]
    stored = bucket.read("object")
    assert len(won) == 1
    assert stored is not None
    assert stored.body == str(won[0]).encode()


def test_an_object_is_replaced_only_by_who_read_it_last(bucket: Bucket) -> None:
    bucket.write("object", b"first", replacing=None)
    read = bucket.read("object")
    bucket.write("object", b"second", replacing=read)
    with pytest.raises(ConflictError):
        bucket.write("object", b"third", replacing=read)
    stored = bucket.read("object")
    assert stored is not None
    assert stored.body == b"second"


def test_an_absent_object_is_nothing(bucket: Bucket) -> None:
    assert bucket.read("object") is None


@pytest.mark.parametrize("size", [0, 5, (100 << 20) + 1])
def test_a_file_goes_up_and_comes_down_unchanged(bucket: Bucket, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    digest = sha256_of(source)
    bucket.upload(source, "file", digest)
    bucket.download("file", tmp_path / "target", size=size, sha256=digest)
    assert sha256_of(tmp_path / "target") == digest


def test_large_files_go_up_in_parts(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(100 << 20))
    bucket.upload(tmp_path / "source", "file", sha256_of(tmp_path / "source"))
    tag = bucket.client.head_object(Bucket=bucket.name, Key=f"{bucket.prefix}/file")["ETag"]
    assert tag.endswith('-7"')


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (1, "was altered: its sha256 is not the one of its manifest"),
        (2, "has 1 bytes instead of the 2 of its manifest"),
    ],
)
def test_altered_bytes_are_refused(bucket: Bucket, tmp_path: Path, size: int, reason: str) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/file", Body=b"x")
    with pytest.raises(InputError, match=f"^s3://{bucket.name}/{bucket.prefix}/file {reason}$"):
        bucket.download("file", tmp_path / "target", size=size, sha256="0" * 64)


def test_a_missing_file_is_named(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{bucket.prefix}/file does not exist at"):
        bucket.download("file", tmp_path / "target", size=1, sha256="0" * 64)


def test_folders_are_listed_without_what_is_below(bucket: Bucket) -> None:
    for key in ("a/1/x", "a/1/y", "a/2/z/deep", "a/file", "b/3/x"):
        bucket.write(key, b"x", replacing=None)
    assert list(bucket.folders("a")) == ["1", "2"]


def test_a_missing_bucket_is_said_on_opening(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    open_bucket("retrain", "anything")
    with pytest.raises(InputError, match="bucket 'no-such-bucket' does not exist"):
        open_bucket("no-such-bucket", "anything")
