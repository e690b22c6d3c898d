"""What is written arrives once and whole, and what is read is what was written, whatever the network does meanwhile."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from infra.local.object_store import ObjectStore
from tasks.registry.releases import find_manifest, publish_release
from tasks.registry.store import Store
from tasks.s3 import bucket as bucket_module
from tasks.s3 import client as client_module
from tasks.s3 import retries, slow_answers
from tasks.s3.bucket import ConflictError
from tasks.s3.client import connect, error_code
from tasks.stage.errors import InputError, OutageError
from tasks.stage.files import sha256_of
from tests.fixtures.buckets import new_bucket, write_release
from tests.fixtures.faults import KINDS, Fault, Kind, Request, Way
from tests.fixtures.faulty_s3 import FaultyS3

PART_BYTES = 5 << 20
BROKEN = Fault("status", status=503)


@pytest.fixture
def bucket(object_store: ObjectStore, faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder of the bucket, seen through the proxy by a client of little patience."""
    monkeypatch.setattr(client_module, "READ_SECONDS", 0.5)
    monkeypatch.setattr(client_module, "ATTEMPTS", 1)  # so that what botocore would repeat is ours to repeat
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.05)
    parts = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=2)
    monkeypatch.setattr(bucket_module, "TRANSFER", parts)
    through_proxy = Store(connect(faulty_s3.environment), object_store.bucket, new_bucket(object_store).prefix)
    through_proxy.learn_conditions()
    return through_proxy


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    """A file of two parts."""
    path = tmp_path / "large"
    path.write_bytes(random.Random(0).randbytes(PART_BYTES + 100_000))  # noqa: S311
    return path


def body_of(bucket: Store, key: str) -> bytes | None:
    stored = bucket.read(key)
    return None if stored is None else stored.body


@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_befalls_a_request_the_bytes_arrive(
    bucket: Store, faulty_s3: FaultyS3, large_file: Path, tmp_path: Path, kind: Kind, way: Way
) -> None:
    digest, fault = sha256_of(large_file), Fault(kind, way, seconds=0.8)
    faulty_s3.fail(fault, "PUT", "partNumber=2")
    faulty_s3.fail(fault, "POST", "uploadId")
    bucket.upload(large_file, "large", digest)
    faulty_s3.fail(fault, "GET", "large")
    bucket.download("large", tmp_path / "copy", size=large_file.stat().st_size, sha256=digest)
    assert sha256_of(tmp_path / "copy") == digest
    (tmp_path / "file").write_bytes(b"file" * 100)
    digest = sha256_of(tmp_path / "file")
    faulty_s3.fail(fault, "PUT", "file")
    bucket.upload(tmp_path / "file", "file", digest)
    faulty_s3.fail(fault, "GET", "file")
    bucket.download("file", tmp_path / "copy", size=400, sha256=digest)
    assert sha256_of(tmp_path / "copy") == digest
    bucket.write("small", b"first", replacing=None)
    faulty_s3.fail(fault, "GET", "small")
    first = bucket.read("small")
    assert first is not None
    assert first.body == b"first"
    faulty_s3.fail(fault, "PUT", "small")
    bucket.write("small", b"second", replacing=first)
    assert body_of(bucket, "small") == b"second"
    assert faulty_s3.met == {kind: 7}


@pytest.mark.parametrize("kind", ["reset", "truncated"])
def test_a_refusal_that_breaks_off_is_asked_for_again(bucket: Store, faulty_s3: FaultyS3, kind: Kind) -> None:
    faulty_s3.fail(Fault(kind), "GET", "absent")
    assert bucket.read("absent") is None
    assert faulty_s3.met == {kind: 1}


def test_a_write_whose_answer_is_lost_is_known_by_its_bytes(bucket: Store, faulty_s3: FaultyS3) -> None:
    faulty_s3.fail(Fault("lost_answer"), "PUT", "object")
    bucket.write("object", b"mine", replacing=None)
    assert len(faulty_s3.sent("PUT", "object")) == 2  # the second was refused: the object was there
    assert body_of(bucket, "object") == b"mine"


def test_a_write_whose_answer_is_lost_and_that_others_replaced_is_a_lost_race(
    object_store: ObjectStore, bucket: Store, faulty_s3: FaultyS3
) -> None:
    other = Store(connect(object_store.environment), bucket.name, bucket.prefix)

    def replace_before_the_second(request: Request) -> Fault | None:
        if request.method != "PUT":
            return None
        mine = other.read("object")
        if mine is None:
            return Fault("lost_answer")
        other.write("object", b"theirs", replacing=mine)
        return None

    faulty_s3.plan = replace_before_the_second
    with pytest.raises(ConflictError):
        bucket.write("object", b"mine", replacing=None)
    assert body_of(other, "object") == b"theirs"


def test_a_busy_object_is_a_lost_race_in_the_end(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = ClientError({"Error": {"Code": "ConditionalRequestConflict"}}, "PutObject")
    tries = []

    def refuse(*_: object, **__: object) -> None:
        tries.append(1)
        raise busy

    monkeypatch.setattr(bucket.client, "put_object", refuse)  # SeaweedFS answers 412 where S3 may answer 409
    with pytest.raises(ConflictError):
        bucket.write("object", b"mine", replacing=None)
    assert len(tries) == retries.ATTEMPTS


def test_the_store_compares_a_checksum_and_not_the_signature_s(
    object_store: ObjectStore, faulty_s3: FaultyS3, bucket: Store
) -> None:
    """Why every upload carries a checksum: SeaweedFS 4.48 stores bytes that the signed sha256 of the body belies."""
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/object"}
    faulty_s3.fail(Fault("altered", "there"), "PUT", "object", times=2)
    bucket.client.put_object(**place, Body=b"sent")
    assert bucket.client.get_object(**place)["Body"].read() == b"se\x6ft"
    with pytest.raises(ClientError) as refused:
        bucket.client.put_object(**place, Body=b"sent", ChecksumAlgorithm="SHA256")
    assert error_code(refused.value) == "BadDigest"


@pytest.mark.parametrize("name", ["model.keras", "saved_model.pb"])
def test_an_upload_that_is_always_altered_never_becomes_a_release(
    bucket: Store, faulty_s3: FaultyS3, tmp_path: Path, name: str
) -> None:
    manifest = write_release(tmp_path / "release", "a", extra=random.Random(1).randbytes(PART_BYTES + 1))  # noqa: S311
    faulty_s3.fail(Fault("altered", "there"), "PUT", name, times=1000)
    with pytest.raises(InputError, match=rf"what arrived at \S+ for \S+{name} is not what was sent \(BadDigest\)"):
        publish_release(bucket, tmp_path / "release", manifest)
    assert find_manifest(bucket, manifest.id) is None
    assert not faulty_s3.sent("PUT", "manifest.json")


@pytest.mark.parametrize("size", [1000, PART_BYTES + 1], ids=["in one piece", "in parts"])
def test_a_store_that_tells_no_checksum_is_read_back(
    bucket: Store, faulty_s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def without_checksum(operation: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        return lambda **arguments: {**operation(**arguments), "ChecksumSHA256": None}

    for name in ("head_object", "put_object"):  # as a store without checksums answers
        monkeypatch.setattr(bucket.client, name, without_checksum(getattr(bucket.client, name)))
    (tmp_path / "file").write_bytes(bytes(size))
    bucket.upload(tmp_path / "file", "file", sha256_of(tmp_path / "file"))
    assert len(faulty_s3.sent("GET", "file")) == 1


def test_bytes_that_changed_in_the_store_are_never_taken_for_what_was_uploaded(
    object_store: ObjectStore, bucket: Store, faulty_s3: FaultyS3, large_file: Path
) -> None:
    direct = connect(object_store.environment)

    def replace_before_it_is_asked(request: Request) -> Fault | None:
        if request.method == "HEAD":
            size = large_file.stat().st_size
            direct.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/large", Body=bytes(size))
        return None

    faulty_s3.plan = replace_before_it_is_asked
    with pytest.raises(InputError, match=r"large is not what was uploaded to it; publish again"):
        bucket.upload(large_file, "large", sha256_of(large_file))


@pytest.mark.parametrize("size", [1000, PART_BYTES + 1], ids=["in one piece", "in parts"])
def test_a_file_that_changed_since_it_was_described_is_refused(bucket: Store, tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(bytes(size))
    with pytest.raises(InputError, match=r"file was altered while it was published"):
        bucket.upload(tmp_path / "file", "file", "0" * 64)
    assert bucket.read("file") is None


def test_a_body_that_ends_half_way_leaves_no_object(bucket: Store, faulty_s3: FaultyS3) -> None:
    faulty_s3.fail(Fault("truncated", "there"), "PUT", "object", times=1000)
    with pytest.raises(InputError, match=r"the connection to the object store at \S+ broke"):
        bucket.write("object", bytes(100_000), replacing=None)
    assert bucket.read("object") is None


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (BROKEN, "refused PutObject on .*object: SlowDown"),
        (Fault("timeout", "there", seconds=0.8), "the connection to the object store at .* broke: Read timeout"),
        (Fault("reset", "there"), "the connection to the object store at .* broke"),
        (Fault("lost_answer"), "the connection to the object store at .* broke"),
    ],
)
def test_what_does_not_pass_ends_in_a_sentence_after_a_bounded_number_of_tries(
    bucket: Store, faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch, fault: Fault, sentence: str
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 3)
    faulty_s3.fail(fault, "PUT", "object", times=1000)
    faulty_s3.fail(fault, "GET", "object", times=1000)
    with pytest.raises(OutageError, match=sentence):
        bucket.write("object", b"mine", replacing=None)
    assert len(faulty_s3.sent("PUT", "object")) == 3


def test_no_try_begins_after_the_time_is_over(
    bucket: Store, faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "SECONDS", 0.0)
    faulty_s3.fail(BROKEN, "GET", "object", times=1000)
    with pytest.raises(InputError, match="SlowDown"):
        bucket.read("object")
    assert len(faulty_s3.sent("GET", "object")) == 1


def test_a_refusal_for_good_is_not_repeated(bucket: Store, faulty_s3: FaultyS3) -> None:
    missing = Store(bucket.client, "no-such-bucket", "models")
    with pytest.raises(InputError, match="'no-such-bucket' does not exist"):
        missing.read("object")
    assert len(faulty_s3.sent("GET", "no-such-bucket")) == 1


def test_a_download_that_only_drips_is_given_up_and_begun_anew(
    bucket: Store, faulty_s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_answers, "WITHIN_SECONDS", 1.0)
    monkeypatch.setattr(client_module, "READ_SECONDS", 30)
    patient = Store(connect(faulty_s3.environment), bucket.name, bucket.prefix)
    (tmp_path / "file").write_bytes(b"x" * 1000)
    digest = sha256_of(tmp_path / "file")
    bucket.upload(tmp_path / "file", "file", digest)
    faulty_s3.fail(Fault("trickle", seconds=16), "GET", "file")  # a piece every two seconds
    patient.download("file", tmp_path / "copy", size=1000, sha256=digest)
    assert len(faulty_s3.sent("GET", "file")) == 2
