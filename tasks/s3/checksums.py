"""What S3 says of an object's bytes: the sha256 of all of it, or, of one that came in parts, that of the parts' sha256.

The second is what Amazon calls a composite checksum: the base64 of the sha256 over the parts' digests, then `-` and the
number of parts (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html).
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from tasks.stage.files import CHUNK


@dataclass(frozen=True)
class Checksums:
    """A file's checksums.

    Attributes:
        size: In bytes.
        sha256: Of all bytes, in hexadecimal.
        reported: What S3 may report of the object: in one piece, or in parts.
    """

    size: int
    sha256: str
    reported: frozenset[str]


def checksums_of(path: Path, part_bytes: int) -> Checksums:
    """Return a file's checksums, reading it once in pieces of 1 MiB; S3 gets it in parts of `part_bytes`."""
    whole, part, digests, size = hashlib.sha256(), hashlib.sha256(), [], 0
    with path.open("rb") as stream:
        while chunk := stream.read(min(CHUNK, part_bytes - size % part_bytes)):
            whole.update(chunk)
            part.update(chunk)
            size += len(chunk)
            if size % part_bytes == 0:
                digests.append(part.digest())
                part = hashlib.sha256()
    if size % part_bytes:
        digests.append(part.digest())
    composite = f"{base64_of(hashlib.sha256(b''.join(digests)).digest())}-{len(digests)}"
    return Checksums(size, whole.hexdigest(), frozenset({base64_of(whole.digest()), composite}))


def base64_of(digest: bytes) -> str:
    """Return a checksum as S3 writes it."""
    return base64.b64encode(digest).decode()
