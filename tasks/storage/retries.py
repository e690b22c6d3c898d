"""Trying again: which failures of the object store may pass, and how long it is worth waiting for that.

botocore repeats a request a few times within seconds. This goes on where it gives up, and repeats what it never does: a
body that broke off or was altered on the way, a transfer of several requests, a write to a busy object.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from boto3.exceptions import RetriesExceededError
from botocore.exceptions import (
    ClientError,
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)
from s3transfer.exceptions import S3DownloadFailedError
from urllib3.exceptions import HTTPError

from tasks.storage.client import cause_of, error_code

ATTEMPTS = 6
SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0

BUSY = {"ConditionalRequestConflict", "OperationAborted"}
THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "429"}
BROKEN_ON_THE_WAY = {
    "BadDigest",
    "IncompleteBody",
    "InvalidDigest",
    "InvalidPart",
    "InvalidPartOrder",
    "MalformedXML",
    "NoSuchUpload",
    "RequestTimeout",
    "XAmzContentSHA256Mismatch",
}
PASSING_CODES = BUSY | THROTTLED | BROKEN_ON_THE_WAY

Result = TypeVar("Result")


class AlteredError(Exception):
    """What arrived is not what was sent: at this end, or at the other."""


def retried(operation: Callable[[], Result]) -> Result:
    """Return what `operation` returns; repeat it while it fails in a way that may pass.

    It is tried ATTEMPTS times at most, and not again once SECONDS have passed. The pauses double, and each is cut at
    random, so that many clients do not come back at the same instant.

    Raises:
        Exception: That of the last try.
    """
    start = time.monotonic()
    for attempt in range(1, ATTEMPTS):
        try:
            return operation()
        except Exception as error:
            pause = random.uniform(0.5, 1) * min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))  # noqa: S311  not a secret
            if not may_pass(error) or time.monotonic() + pause - start > SECONDS:
                raise
        time.sleep(pause)
    return operation()


def may_pass(error: Exception) -> bool:
    """Return whether the same operation may succeed a moment later."""
    if isinstance(error, RetriesExceededError):  # boto3's own, of a download that broke off
        return True
    error = cause_of(error)
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in {429, 500, 502, 503, 504} or error_code(error) in PASSING_CODES
    return isinstance(
        error,
        AlteredError
        | ConnectionError
        | FlexibleChecksumError
        | HTTPClientError
        | HTTPError  # a refusal that breaks off: botocore lets it through as it is
        | IncompleteReadError
        | S3DownloadFailedError,
    )
