"""Trying again: which failures of the object store may pass, and how long it is worth waiting for that.

botocore repeats a request a few times within seconds. This goes on where it gives up, and repeats what it never does: a
body that broke off or was altered on the way, a transfer of several requests, a write to a busy object.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError, FlexibleChecksumError

from tasks.s3.client import cause_of, error_code, is_outage

ATTEMPTS = 6
SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 5.0

ALTERED_ON_THE_WAY = {
    "BadDigest",
    "InvalidDigest",
    "InvalidPart",
    "InvalidPartOrder",
    "MalformedXML",
    "NoSuchUpload",
    "XAmzContentSHA256Mismatch",
}

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
            pause = random.uniform(0.5, 1) * min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))  # noqa: S311  not a secret
            if not is_transient(error) or time.monotonic() + pause - start > SECONDS:
                raise
        time.sleep(pause)
    return operation()


def is_transient(error: Exception) -> bool:
    """Return whether the same operation may succeed a moment later: after an outage, or what the way altered."""
    if is_outage(error) or isinstance(error, AlteredError | FlexibleChecksumError):
        return True
    cause = cause_of(error)
    return isinstance(cause, ClientError) and error_code(cause) in ALTERED_ON_THE_WAY
