"""Whether a store honours conditional writes, on which the release protocol rests; asked once a process.

A manifest is written only if there is none (If-None-Match), a pointer only if it is still what was read (If-Match).
Amazon S3, SeaweedFS, MinIO and others refuse the loser with 412; some stores ignore the headers in silence and let the
last writer win. So a small object is written on a condition that cannot hold, and the answer says which kind it is.

On a store of the second kind Bucket.write compares, writes and reads back by itself. Between the comparison and the
write another writer may slip in unseen: that is safe for a single writer only, and one line says so.
"""

import sys
import threading
from typing import Any

from botocore.exceptions import ClientError

from tasks.s3.client import BUSY, error_code
from tasks.s3.retries import retried

LOST = {"PreconditionFailed", "412"}
UNKNOWN = {"NotImplemented", "501"}

# Beside the pointers: whoever may move these may write it, and nobody takes it for one of them. It stays there.
PROBE = "channels/conditional-writes.probe"
PROBE_BODY = b"Written to learn whether this store honours conditional writes.\n"
NO_ETAG = '"00000000000000000000000000000000"'

_answers: dict[tuple[str, str], bool] = {}
_asking = threading.Lock()


def honours_conditions(client: Any, bucket: str, probe: str) -> bool:
    """Return whether the store refuses a write whose condition does not hold; says so on stderr where it does not.

    The answer is kept for the endpoint and the bucket as long as the process lives.

    Args:
        client: S3 client.
        bucket: Its name.
        probe: Key of the object to try with; it is made where there is none.

    Raises:
        ClientError: The store refused for another reason.
        BotoCoreError: It cannot be reached.
    """
    place = (client.meta.endpoint_url, bucket)
    with _asking:
        if place not in _answers:
            _answers[place] = _ask(client, bucket, probe)
            if not _answers[place]:
                print(
                    f"the object store at {place[0]} ignores conditional writes: releases in bucket {bucket!r} are "
                    "safe only while no two publishers run at once",
                    file=sys.stderr,
                )
        return _answers[place]


def _ask(client: Any, bucket: str, probe: str) -> bool:
    """Try both conditions, each on an object that is there already: the first write of all makes it."""

    def refused(condition: dict[str, str]) -> bool:
        return retried(lambda: _is_refused(client, {"Bucket": bucket, "Key": probe, "Body": PROBE_BODY, **condition}))

    absent, unchanged = {"IfNoneMatch": "*"}, {"IfMatch": NO_ETAG}
    return (refused(absent) or refused(absent)) and refused(unchanged)


def _is_refused(client: Any, write: dict[str, Any]) -> bool:
    try:
        client.put_object(**write, ChecksumAlgorithm="SHA256")
    except ClientError as error:
        if error_code(error) in LOST | BUSY:  # only a store that looks at the condition answers so
            return True
        if error_code(error) in UNKNOWN:
            return False
        raise
    return False
