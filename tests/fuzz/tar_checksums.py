"""Right checksums in a tar's headers, so that mutated headers get past the first check of whoever reads them."""

BLOCK = 512
CHECKSUM = slice(148, 156)
MAGIC = slice(257, 262)


def with_checksums(data: bytes) -> bytes:
    """Return bytes with the checksum of every block that is marked as a tar header set right (POSIX ustar)."""
    body = bytearray(data)
    for start in range(0, len(body) - BLOCK + 1, BLOCK):
        header = body[start : start + BLOCK]
        if header[MAGIC] == b"ustar":
            header[CHECKSUM] = b" " * 8
            header[CHECKSUM] = b"%06o\0 " % (sum(header) & 0o777777)
            body[start : start + BLOCK] = header
    return bytes(body)
