"""What a bucket's folder holds and for how long, by the store's own clock; and how it is removed.

An age is the store's time of the answer less the store's time of the object: this machine's clock never enters.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from tasks.s3.bucket import Bucket
from tasks.s3.client import MISSING, error_code, storage_errors
from tasks.s3.retries import retried
from tasks.stage.errors import InputError

Item = TypeVar("Item")


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
    place = {"Bucket": bucket.name, "Prefix": f"{bucket.prefix}/"}
    with storage_errors(bucket.client, bucket.name, place["Prefix"]):
        return _time_of(retried(lambda: bucket.client.list_objects_v2(**place, MaxKeys=1)))


def list_objects(bucket: Bucket, folder: str) -> list[Listed]:
    """Return every object in a folder and below, sorted by key; a request for each thousand."""

    def listed(page: dict[str, Any]) -> Iterator[Listed]:
        now = _time_of(page)
        for entry in page.get("Contents", ()):
            yield Listed(_relative(bucket, entry["Key"]), entry["Size"], now - entry["LastModified"])

    return _list(bucket, "list_objects_v2", folder, listed)


def list_uploads(bucket: Bucket, folder: str) -> list[Upload]:
    """Return every open multipart upload to a folder and below; a request for each thousand."""

    def listed(page: dict[str, Any]) -> Iterator[Upload]:
        now = _time_of(page)
        for entry in page.get("Uploads", ()):
            yield Upload(_relative(bucket, entry["Key"]), entry["UploadId"], now - entry["Initiated"])

    return _list(bucket, "list_multipart_uploads", folder, listed)


def read_object(bucket: Bucket, key: str, consume: Callable[[Any], Item]) -> Item | None:
    """Return what `consume` makes of an object's body, a stream to `read` from; nothing where there is no object.

    It is called again where the connection breaks.
    """
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/{key}"}

    def read() -> Item:
        with contextlib.closing(bucket.client.get_object(**place)["Body"]) as body:
            return consume(body)

    with storage_errors(bucket.client, bucket.name, place["Key"]):
        try:
            return retried(read)
        except ClientError as error:
            if error_code(error) in MISSING:
                return None
            raise


def delete_object(bucket: Bucket, key: str) -> None:
    """Remove an object; that it is gone already is no error."""
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/{key}"}
    with storage_errors(bucket.client, bucket.name, place["Key"]):
        retried(lambda: bucket.client.delete_object(**place))


def abort_upload(bucket: Bucket, upload: Upload) -> None:
    """Remove a multipart upload with its parts; that it has ended already is no error."""
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/{upload.key}", "UploadId": upload.id}
    with storage_errors(bucket.client, bucket.name, place["Key"]):
        try:
            retried(lambda: bucket.client.abort_multipart_upload(**place))
        except ClientError as error:
            if error_code(error) not in MISSING | {"NoSuchUpload"}:
                raise


def _list(
    bucket: Bucket, operation: str, folder: str, listed: Callable[[dict[str, Any]], Iterator[Item]]
) -> list[Item]:
    start = f"{bucket.prefix}/{folder}/"

    def items() -> list[Item]:
        pages = bucket.client.get_paginator(operation).paginate(Bucket=bucket.name, Prefix=start)
        return [item for page in pages for item in listed(page)]

    with storage_errors(bucket.client, bucket.name, start):
        return retried(items)


def _relative(bucket: Bucket, key: str) -> str:
    return key.removeprefix(f"{bucket.prefix}/")


def _time_of(answer: dict[str, Any]) -> datetime:
    """Return the store's time, to the second, from an answer's Date header (RFC 9110, always GMT)."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).replace(tzinfo=UTC)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the object store does not say what time it is: its answers have no Date header") from error
