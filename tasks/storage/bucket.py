"""A folder of a bucket: the few S3 operations that releases are made of, each with its guarantee."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tasks.errors import InputError
from tasks.files import sha256_of
from tasks.params import load_params
from tasks.storage.client import connect, error_code, storage_errors
from tasks.storage.signatures import TrustedKeys, configured_trust

# Parts of 16 MiB, four at a time: 64 MiB of memory at most, whatever a file's size.
TRANSFER = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20, max_concurrency=4)

SMALL_OBJECT_LIMIT = 16 << 20  # bytes of a manifest or a pointer, which are read into memory

LOST = {"PreconditionFailed", "412"}
BUSY = {"ConditionalRequestConflict", "OperationAborted", "409"}
ABSENT = {"NoSuchKey", "404", "NotFound"}


class ConflictError(Exception):
    """Another writer was first: read again and decide again."""


@dataclass(frozen=True)
class Stored:
    """An object's bytes and the tag of exactly these bytes, for a later compare-and-swap."""

    body: bytes
    etag: str


@dataclass(frozen=True)
class Bucket:
    """The objects of bucket `name` whose keys start with `prefix/`; keys below are relative to that.

    With `trust`, no manifest and no pointer is read from it or written to it that none of these keys signed.
    """

    client: Any
    name: str
    prefix: str
    trust: TrustedKeys | None = None

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

    def read(self, key: str) -> Stored | None:
        """Return a small object, or nothing where there is none; raises InputError for one of more than 16 MiB."""
        with storage_errors(self.client, self.name, self._full(key)):
            try:
                response = self.client.get_object(Bucket=self.name, Key=self._full(key))
                if response.get("ContentLength", SMALL_OBJECT_LIMIT + 1) > SMALL_OBJECT_LIMIT:
                    raise InputError(f"{self.uri(key)} is too large for a manifest or a pointer")
                return Stored(response["Body"].read(), response["ETag"])
            except ClientError as error:
                if error_code(error) in ABSENT:
                    return None
                raise

    def write(self, key: str, body: bytes, *, replacing: Stored | None) -> None:
        """Write a small object only if what is there is still `replacing` (None: nothing at all).

        Raises:
            ConflictError: Another writer was first; nothing was written.
            InputError: The store refused.
        """
        condition = {"IfNoneMatch": "*"} if replacing is None else {"IfMatch": replacing.etag}
        with storage_errors(self.client, self.name, self._full(key)):
            try:
                self.client.put_object(
                    Bucket=self.name,
                    Key=self._full(key),
                    Body=body,
                    ContentType="application/json",
                    ChecksumAlgorithm="SHA256",
                    **condition,
                )
            except ClientError as error:
                if error_code(error) in LOST | BUSY | (ABSENT if replacing else set()):
                    raise ConflictError(key) from error
                raise

    def upload(self, source: Path, key: str, sha256: str) -> None:
        """Upload a file, large ones in parts; the store checks every part's sha256, and the file's is recorded.

        Raises:
            InputError: The store refused, or holds something else afterwards.
        """
        extra = {"Metadata": {"sha256": sha256}, "ChecksumAlgorithm": "SHA256"}
        with storage_errors(self.client, self.name, self._full(key)):
            self.client.upload_file(str(source), self.name, self._full(key), ExtraArgs=extra, Config=TRANSFER)
            stored = self.client.head_object(Bucket=self.name, Key=self._full(key))
        if stored["ContentLength"] != source.stat().st_size or stored["Metadata"].get("sha256") != sha256:
            raise InputError(f"{self.uri(key)} is not what was uploaded to it; publish again")

    def download(self, key: str, target: Path, *, size: int, sha256: str) -> None:
        """Download a file and check its size and sha256.

        Raises:
            InputError: The store refused, or the bytes are not the expected ones.
        """
        with storage_errors(self.client, self.name, self._full(key)):
            found = self.client.head_object(Bucket=self.name, Key=self._full(key))["ContentLength"]
            if found != size:
                raise InputError(f"{self.uri(key)} has {found} bytes instead of the {size} of its manifest")
            self.client.download_file(self.name, self._full(key), str(target), Config=TRANSFER)
        if sha256_of(target) != sha256:
            raise InputError(f"{self.uri(key)} was altered: its sha256 is not the one of its manifest")

    def folders(self, key: str) -> Iterator[str]:
        """Yield the names of the folders directly in the folder `key`."""
        start = f"{self._full(key)}/"
        with storage_errors(self.client, self.name, start):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=start, Delimiter="/")
            for page in pages:
                for entry in page.get("CommonPrefixes", ()):
                    yield entry["Prefix"].removeprefix(start).rstrip("/")

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}"


def open_bucket(name: str, prefix: str, trust: TrustedKeys | None = None) -> Bucket:
    """Connect and check that the bucket can be read; raises InputError like Bucket.check.

    Without `trust` it is RETRAIN_TRUSTED_KEY that says whose signatures are asked for, if any.
    """
    bucket = Bucket(connect(), name, prefix, trust or configured_trust())
    bucket.check()
    return bucket


def configured_bucket(name: str | None = None, prefix: str | None = None, trust: TrustedKeys | None = None) -> Bucket:
    """Open the bucket and prefix given, those of params.yaml's section `publish` where one is None."""
    return open_bucket(*configured_place(name, prefix), trust)


def configured_place(name: str | None = None, prefix: str | None = None) -> tuple[str, str]:
    """Return bucket and prefix, those of params.yaml's section `publish` where one is None."""
    if name is None or prefix is None:
        params = load_params().publish
        name, prefix = name or params.bucket, prefix or params.prefix
    return name, prefix


def sha256_of_bytes(data: bytes) -> str:
    """Return the sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
