"""A file's checksums are those that S3 reports of it."""

import base64
import hashlib
from pathlib import Path

import pytest
from boto3.s3.transfer import TransferConfig

from infra.local.object_store import ObjectStore
from tasks.s3.checksums import checksums_of
from tasks.stage.files import sha256_of
from tests.fixtures.buckets import new_bucket

PART_BYTES = 5 << 20


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_the_store_reports_the_checksum_that_is_expected(object_store: ObjectStore, tmp_path: Path, size: int) -> None:
    path, bucket = tmp_path / "file", new_bucket(object_store)
    path.write_bytes(b"0123456789" * (size // 10) + b"x" * (size % 10))
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/file"}
    parts = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
    extra = {"ChecksumAlgorithm": "SHA256"}
    bucket.client.upload_file(str(path), place["Bucket"], place["Key"], ExtraArgs=extra, Config=parts)
    reported = bucket.client.head_object(**place, ChecksumMode="ENABLED")["ChecksumSHA256"]
    found = checksums_of(path, PART_BYTES)
    assert reported in found.reported
    assert reported.endswith(f"-{max(1, -(-size // PART_BYTES))}") == (size >= PART_BYTES)
    assert (found.size, found.sha256) == (size, sha256_of(path))


def test_other_bytes_have_other_checksums(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 100)
    (tmp_path / "b").write_bytes(b"a" * 99 + b"b")
    first, second = checksums_of(tmp_path / "a", 10), checksums_of(tmp_path / "b", 10)
    assert not first.reported & second.reported
    whole = base64.b64encode(hashlib.sha256(b"a" * 100).digest()).decode()
    pieces = b"".join([hashlib.sha256(b"a" * 10).digest()] * 10)
    composite = base64.b64encode(hashlib.sha256(pieces).digest()).decode()
    assert first.reported == {whole, f"{composite}-10"}
