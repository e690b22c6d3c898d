"""A folder of a bucket: the few S3 operations that releases are made of, each with its guarantee.

Each is tried again while its failure may pass (retries.py), and each can be: what is written twice is written once. A
write whose answer was lost looks like a lost race when it is repeated, so whoever loses reads what is there: his own
bytes are his own write.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tasks.s3.checksums import Checksums, base64_of, checksums_of
from tasks.s3.client import ALTERED, BUSY, MISSING, error_code, storage_errors
from tasks.s3.conditional_writes import LOST, PROBE, honours_conditions
from tasks.s3.retries import AlteredError, retried
from tasks.stage.errors import InputError
from tasks.stage.files import CHUNK, begin_sync, sha256_of

# Files of 100 MiB and more go in parts of 16 MiB, four at a time: 64 MiB of memory at most, whatever a file's size.
TRANSFER = TransferConfig(multipart_threshold=100 << 20, multipart_chunksize=16 << 20, max_concurrency=4)

SMALL_OBJECT_LIMIT = 16 << 20  # bytes of a manifest or a pointer, which are read into memory


class ConflictError(Exception):
    """Another writer was first: read again and decide again."""


@dataclass(frozen=True)
class Stored:
    """An object's bytes and the tag of exactly these bytes, for a later compare-and-swap."""

    body: bytes
    etag: str


@dataclass(frozen=True)
class Bucket:
    """The objects of bucket `name` whose keys start with `prefix/`; keys below are relative to that."""

    client: Any
    name: str
    prefix: str

    @property
    def place(self) -> str:
        """Its address, as `s3://bucket/prefix`, which signatures name."""
        return f"s3://{self.name}/{self.prefix}"

    def uri(self, key: str) -> str:
        """Return the address of an object, as `s3://bucket/prefix/key`."""
        return f"s3://{self.name}/{self._full(key)}"

    def check(self) -> None:
        """Raise InputError where the store is unreachable, refuses the credentials or has no such bucket."""
        with storage_errors(self.client, self.name):
            self.client.list_objects_v2(Bucket=self.name, Prefix=f"{self.prefix}/", MaxKeys=1)

    def learn_conditions(self) -> bool:
        """Return whether the store honours conditional writes; asked once a process, a "no" is said on stderr.

        Raises:
            InputError: The store refused for another reason.
        """
        with storage_errors(self.client, self.name, self._full(PROBE)):
            return honours_conditions(self.client, self.name, self._full(PROBE))

    def read(self, key: str) -> Stored | None:
        """Return an object of at most 16 MiB, as its writer sent it, or nothing; raises InputError for a larger one."""
        with storage_errors(self.client, self.name, self._full(key)):
            return retried(lambda: self._read(key))

    def write(self, key: str, body: bytes, *, replacing: Stored | None) -> None:
        """Write a small object only if what is there is still `replacing` (None: nothing at all), or `body` already.

        Raises:
            ConflictError: Another writer was first; nothing was written.
            InputError: The store refused.
        """
        write = self._write_if_unchanged if self.learn_conditions() else self._compare_write_and_read_back
        with storage_errors(self.client, self.name, self._full(key)):
            try:
                retried(lambda: write(key, body, replacing))
            except ClientError as error:
                if error_code(error) in BUSY:
                    raise ConflictError(key) from error
                raise

    def upload(self, source: Path, key: str, sha256: str) -> None:
        """Upload a file, large ones in parts, and have the store prove that it holds these bytes.

        The store compares the bytes that come with their sha256, or each part's with that of the part, and tells what
        it holds; where it tells nothing, the object is read back. So bytes that were altered on the way never get as
        far as a manifest.

        Raises:
            InputError: The store refused, or holds something else afterwards; or the file has another sha256.
        """
        with storage_errors(self.client, self.name, self._full(key)):
            try:
                if source.stat().st_size < TRANSFER.multipart_threshold:
                    retried(lambda: self._upload(source, key, sha256))
                else:
                    checksums = checksums_of(source, TRANSFER.multipart_chunksize)
                    if checksums.sha256 != sha256:
                        raise _altered_meanwhile(source)
                    retried(lambda: self._upload_in_parts(source, key, checksums))
            except AlteredError as error:
                raise InputError(f"{self.uri(key)} is not what was uploaded to it; publish again") from error

    def download(self, key: str, target: Path, *, size: int, sha256: str) -> None:
        """Download a file and check its size and sha256.

        Raises:
            InputError: The store refused, or the bytes are not the expected ones.
        """
        seen: set[str] = set()
        with storage_errors(self.client, self.name, self._full(key)):
            try:
                retried(lambda: self._download(key, target, size, sha256, seen))
            except AlteredError as error:
                raise InputError(f"{self.uri(key)} was altered: its sha256 is not the one of its manifest") from error

    def folders(self, key: str) -> Iterator[str]:
        """Yield the names of the folders directly in the folder `key`."""
        start = f"{self._full(key)}/"
        with storage_errors(self.client, self.name, start):
            yield from retried(lambda: self._folders(start))

    def _folders(self, start: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=start, Delimiter="/")
        entries = [entry for page in pages for entry in page.get("CommonPrefixes", ())]
        return [entry["Prefix"].removeprefix(start).rstrip("/") for entry in entries]

    def _read(self, key: str) -> Stored | None:
        try:
            # The mode makes botocore compare the bytes with the checksum that _put had the store keep.
            response = self.client.get_object(Bucket=self.name, Key=self._full(key), ChecksumMode="ENABLED")
            if response.get("ContentLength", SMALL_OBJECT_LIMIT + 1) > SMALL_OBJECT_LIMIT:
                raise InputError(f"{self.uri(key)} is too large for a manifest or a pointer")
            return Stored(response["Body"].read(), response["ETag"])
        except ClientError as error:
            if error_code(error) in MISSING:
                return None
            raise

    def _put(self, key: str, body: bytes, **condition: str) -> None:
        self.client.put_object(
            Bucket=self.name,
            Key=self._full(key),
            Body=body,
            ContentType="application/json",
            ChecksumAlgorithm="SHA256",
            **condition,
        )

    def _write_if_unchanged(self, key: str, body: bytes, replacing: Stored | None) -> None:
        """Write on condition; a refusal that finds `body` there is one of an earlier try, whose answer was lost."""
        condition = {"IfNoneMatch": "*"} if replacing is None else {"IfMatch": replacing.etag}
        try:
            self._put(key, body, **condition)
        except ClientError as error:
            if error_code(error) not in LOST | (MISSING if replacing else set()):
                raise
            present = self._read(key)
            if present is None or present.body != body:
                raise ConflictError(key) from error

    def _compare_write_and_read_back(self, key: str, body: bytes, replacing: Stored | None) -> None:
        """Do what can be done where the store ignores conditions; conditional_writes.py says how far that goes."""
        present = self._read(key)
        if present is not None and present.body == body:
            return
        if (present.etag if present else None) != (replacing.etag if replacing else None):
            raise ConflictError(key)
        self._put(key, body)
        present = self._read(key)
        if present is None or present.body != body:
            raise ConflictError(key)

    def _upload(self, source: Path, key: str, sha256: str) -> None:
        place, checksum = {"Bucket": self.name, "Key": self._full(key)}, base64_of(bytes.fromhex(sha256))
        try:
            with source.open("rb") as stream:
                answer = self.client.put_object(
                    **place, Body=stream, ChecksumSHA256=checksum, Metadata={"sha256": sha256}
                )
        except ClientError as error:
            if error_code(error) in ALTERED and sha256_of(source) != sha256:
                raise _altered_meanwhile(source) from error
            raise
        known = Checksums(source.stat().st_size, sha256, frozenset({checksum}))
        if answer.get("ChecksumSHA256") != checksum and not self._holds(key, known):
            raise AlteredError(key)

    def _upload_in_parts(self, source: Path, key: str, checksums: Checksums) -> None:
        extra = {"Metadata": {"sha256": checksums.sha256}, "ChecksumAlgorithm": "SHA256"}
        self.client.upload_file(str(source), self.name, self._full(key), ExtraArgs=extra, Config=TRANSFER)
        if not self._holds(key, checksums):
            raise AlteredError(key)

    def _holds(self, key: str, checksums: Checksums) -> bool:
        """Return whether the object has these bytes: as the store tells its checksum, or else by reading it back."""
        place = {"Bucket": self.name, "Key": self._full(key)}
        try:
            stored = self.client.head_object(**place, ChecksumMode="ENABLED")
        except ClientError as error:
            if error_code(error) in MISSING:
                return False
            raise
        if stored["ContentLength"] != checksums.size:
            return False
        if stored.get("ChecksumSHA256") in checksums.reported:
            return True
        digest = hashlib.sha256()
        for chunk in self.client.get_object(**place)["Body"].iter_chunks(CHUNK):
            digest.update(chunk)
        return digest.hexdigest() == checksums.sha256

    def _download(self, key: str, target: Path, size: int, sha256: str, seen: set[str]) -> None:
        """Download once; wrong bytes are fetched again, unless they were `seen` before: then it was no accident."""
        fetch = self._fetch if size < TRANSFER.multipart_threshold else self._fetch_in_parts
        digest = fetch(key, target, size)
        if digest in seen:
            raise InputError(f"{self.uri(key)} was altered: its sha256 is not the one of its manifest")
        if digest != sha256:
            seen.add(digest)
            raise AlteredError(key)

    def _fetch(self, key: str, target: Path, size: int) -> str:
        """Download in one piece and return its sha256."""
        answer, digest = self.client.get_object(Bucket=self.name, Key=self._full(key)), hashlib.sha256()
        with contextlib.closing(answer["Body"]) as body, target.open("wb") as stream:
            self._check_size(key, answer, size)
            for chunk in body.iter_chunks(CHUNK):
                digest.update(chunk)
                stream.write(chunk)
                begin_sync(stream, len(chunk))
        return digest.hexdigest()

    def _fetch_in_parts(self, key: str, target: Path, size: int) -> str:
        self._check_size(key, self.client.head_object(Bucket=self.name, Key=self._full(key)), size)
        self.client.download_file(self.name, self._full(key), str(target), Config=TRANSFER)
        return sha256_of(target)

    def _check_size(self, key: str, answer: dict[str, Any], size: int) -> None:
        found = answer["ContentLength"]
        if found != size:
            raise InputError(f"{self.uri(key)} has {found} bytes instead of the {size} of its manifest")

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}"


def sha256_of_bytes(data: bytes) -> str:
    """Return the sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _altered_meanwhile(source: Path) -> InputError:
    return InputError(f"{source} was altered while it was published; publish again")
