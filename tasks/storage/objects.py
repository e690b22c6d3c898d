"""What a bucket's folder holds and for how long, by the store's own clock; and how it is removed.

An age is the store's time of the answer less the store's time of the object: this machine's clock never enters.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from tasks.errors import InputError
from tasks.storage.bucket import Bucket
from tasks.storage.client import MISSING, error_code, storage_errors


@dataclass(frozen=True)
class Listed:
    """An object: its key relative to the bucket's prefix, its size in bytes, and how long ago it was written."""

    key: str
    size: int
    age: timedelta


@dataclass(frozen=True)
class Upload:
    """A multipart upload that has neither ended nor been aborted, and how long ago it began."""

    key: str
    id: str
    age: timedelta


def store_time(bucket: Bucket) -> datetime:
    """Return what the store's clock says; raises InputError where the store refuses or does not say."""
    with storage_errors(bucket.client, bucket.name):
        answer = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=f"{bucket.prefix}/", MaxKeys=1)
    return _time_of(answer)


def list_objects(bucket: Bucket, folder: str) -> Iterator[Listed]:
    """Yield every object in a folder and below, sorted by key, a thousand with each request."""
    for page in _pages(bucket, "list_objects_v2", folder):
        now = _time_of(page)
        for entry in page.get("Contents", ()):
            yield Listed(_relative(bucket, entry["Key"]), entry["Size"], now - entry["LastModified"])


def list_uploads(bucket: Bucket, folder: str) -> Iterator[Upload]:
    """Yield every open multipart upload to a folder and below, a thousand with each request."""
    for page in _pages(bucket, "list_multipart_uploads", folder):
        now = _time_of(page)
        for entry in page.get("Uploads", ()):
            yield Upload(_relative(bucket, entry["Key"]), entry["UploadId"], now - entry["Initiated"])


def read_start(bucket: Bucket, key: str, count: int) -> bytes | None:
    """Return an object's first `count` bytes, all of a shorter one; nothing where there is none."""
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/{key}"}
    with storage_errors(bucket.client, bucket.name, place["Key"]):
        try:
            body = bucket.client.get_object(**place)["Body"]
        except ClientError as error:
            if error_code(error) in MISSING:
                return None
            raise
        with contextlib.closing(body):
            return bytes(body.read(count))


def delete_object(bucket: Bucket, key: str) -> None:
    """Remove an object; that it is gone already is no error."""
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/{key}"}
    with storage_errors(bucket.client, bucket.name, place["Key"]):
        bucket.client.delete_object(**place)


def abort_upload(bucket: Bucket, upload: Upload) -> None:
    """Remove a multipart upload with its parts; that it has ended already is no error."""
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/{upload.key}"}
    with storage_errors(bucket.client, bucket.name, place["Key"]):
        try:
            bucket.client.abort_multipart_upload(**place, UploadId=upload.id)
        except ClientError as error:
            if error_code(error) not in MISSING | {"NoSuchUpload"}:
                raise


def _pages(bucket: Bucket, operation: str, folder: str) -> Iterator[dict[str, Any]]:
    start = f"{bucket.prefix}/{folder}/"
    with storage_errors(bucket.client, bucket.name, start):
        yield from bucket.client.get_paginator(operation).paginate(Bucket=bucket.name, Prefix=start)


def _relative(bucket: Bucket, key: str) -> str:
    return key.removeprefix(f"{bucket.prefix}/")


def _time_of(answer: dict[str, Any]) -> datetime:
    """Return the store's time, to the second, from an answer's Date header (RFC 9110, always GMT)."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).replace(tzinfo=UTC)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the object store does not say what time it is: its answers have no Date header") from error
