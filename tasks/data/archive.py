"""The members of a .tar, .tar.gz or .zip archive, one after another, in memory; nothing is ever extracted.

An archive is a stranger's: links, devices, climbing paths, repeated names, damage and bombs end in an InputError.
"""

import contextlib
import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from tasks.data.names import member_name, zip_name
from tasks.stage.errors import InputError

MEMBERS_LIMIT = 2_000_000
MEMBER_BYTES_LIMIT = 64 << 20
EXPANSION_LIMIT = 100  # pictures are compressed already; deflate can expand a bomb 1,032 times
EXPANSION_ALWAYS_ALLOWED = 1 << 30
TAR_HEADER_BYTES_LIMIT = 1 << 20  # of a long name or extended attributes, which tarfile reads whole
DRAIN_CHUNK = 1 << 20

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: Relative path with forward slashes, without `./` before or `/` after it.
        is_folder: Whether it is a folder's own entry.
        size: Bytes of a file once expanded.
        read: Returns those bytes; to be called before the next member is asked for.
    """

    name: str
    is_folder: bool
    size: int
    read: Callable[[], bytes]


def archive_suffix(path: Path) -> str:
    """Return `.zip`, `.tar.gz` or `.tar` as the first bytes say; a tar has no mark there, so it is the default."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        return ".zip"
    return ".tar.gz" if start.startswith(b"\x1f\x8b") else ".tar"


def members(path: Path) -> Iterator[Member]:
    """Give an archive's members in their order, checked.

    Raises:
        InputError: It is not an archive, is cut short or damaged, expands beyond all reason, or has a member that is
            a link, a device, encrypted, too large, named twice, or whose path is absolute or climbs out.
    """
    source = _zip_members(path) if archive_suffix(path) == ".zip" else _tar_members(path)
    place = ""
    seen: set[str] = set()
    while True:
        with _damage_named(path, place):
            member = next(source, None)
        if member is None:
            return
        if member.name in seen and not member.is_folder:
            raise InputError(f"{path} has the member {member.name!r} twice")
        seen.add(member.name)
        if len(seen) > MEMBERS_LIMIT:
            raise InputError(f"{path} has more than {MEMBERS_LIMIT:,} members")
        if member.size > MEMBER_BYTES_LIMIT:
            raise InputError(f"{path} has a member of {member.size:,} bytes, too large to read: {member.name!r}")
        place = f" after {member.name!r}"
        yield replace(member, read=partial(_read, path, member))


def _read(path: Path, member: Member) -> bytes:
    """Return a member's bytes."""
    with _damage_named(path, f" in {member.name!r}"):
        return member.read()


@contextlib.contextmanager
def _damage_named(path: Path, place: str) -> Iterator[None]:
    """Turn what the standard library raises on damage into an InputError; without a place, nothing was read yet."""
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, EOFError) and (place or archive_suffix(path) == ".tar.gz"):
            raise InputError(f"{path} is truncated{place}") from error
        if place:
            raise InputError(f"{path} is truncated or damaged{place}: {error}") from error
        raise InputError(f"{path} is not a .tar, .tar.gz or .zip archive: {error}") from error


def _checked_name(path: Path, entry: tarfile.TarInfo | zipfile.ZipInfo) -> str:
    """Return a member's path in its plain form, or refuse it with the archive's name."""
    try:
        return member_name(zip_name(entry) if isinstance(entry, zipfile.ZipInfo) else entry.name)
    except InputError as error:
        raise InputError(f"{path} {error}") from error


class _StrictTarInfo(tarfile.TarInfo):
    """A tar header that does not let tarfile take a damaged or missing header for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) != tarfile.BLOCKSIZE:
            raise EOFError("the closing block of zeros is missing")
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # missing from the stubs
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        is_content = header.type in tarfile.SUPPORTED_TYPES and header.type not in tarfile.GNU_TYPES
        if header.size < 0 or (not is_content and header.size > TAR_HEADER_BYTES_LIMIT):
            raise tarfile.ReadError("a header has an impossible size")
        return header


class _BoundedStream(io.BufferedIOBase):
    """A stream that refuses to expand without end."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, path: Path) -> None:
        super().__init__()
        self._stream, self._path = stream, path
        self._left = _expansion_limit(path)

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = self._stream.read(-1 if size is None else size)
        self._left -= len(chunk)
        if self._left < 0:
            raise InputError(_expands_too_far(self._path))
        return chunk


def _expansion_limit(path: Path) -> int:
    return max(EXPANSION_ALWAYS_ALLOWED, EXPANSION_LIMIT * path.stat().st_size)


def _expands_too_far(path: Path) -> str:
    return f"{path} of {path.stat().st_size:,} bytes expands to more than {_expansion_limit(path):,} bytes"


def _tar_members(path: Path) -> Iterator[Member]:
    """Read a tar as a stream, to its last byte, so that gzip's own checksum is compared too."""
    with contextlib.ExitStack() as stack:
        opened: BinaryIO | gzip.GzipFile = stack.enter_context(path.open("rb"))
        if archive_suffix(path) == ".tar.gz":
            opened = stack.enter_context(gzip.GzipFile(fileobj=opened, mode="rb"))
        stream = _BoundedStream(opened, path)
        tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo))
        while (header := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            name = _checked_name(path, header)
            if not (header.isreg() or header.isdir()) or header.issparse():
                raise InputError(f"{path} has a member that is a link, a device or sparse: {name!r}")
            if header.size < 0:
                raise tarfile.ReadError("a header has an impossible size")
            yield Member(name, header.isdir(), header.size, partial(_tar_bytes, tar, header))
        while stream.read(DRAIN_CHUNK):
            continue


def _tar_bytes(tar: tarfile.TarFile, header: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(header)
    if content is None:
        raise tarfile.ReadError(f"{header.name!r} has no content")
    data = content.read()
    if len(data) != header.size:
        raise EOFError
    return data


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > _expansion_limit(path):
            raise InputError(_expands_too_far(path))
        for entry in entries:
            name = _checked_name(path, entry)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise InputError(f"{path} has a member that is a link or a device: {name!r}")
            if not 0 <= entry.header_offset < archive.start_dir:
                raise zipfile.BadZipFile(f"{name!r} lies outside the archive")
            if entry.flag_bits & 1:
                raise InputError(f"{path} has an encrypted member: {name!r}")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # lzma may ask for gigabytes
                raise InputError(f"{path} has a member that is compressed by something else than deflate: {name!r}")
            yield Member(name, entry.filename.endswith(("/", "\\")), entry.file_size, partial(archive.read, entry))
