"""A collection: a folder or an S3 prefix of images that people add to, listed without reading it."""

import os
import stat
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from tasks.data.names import is_clutter, member_name
from tasks.sources.addresses import (
    StaleError,
    TemporaryError,
    TransferError,
    TransferSettings,
    open_address,
    s3_errors,
    shown,
)
from tasks.stage.errors import InputError, OutageError

SETTLED_SECONDS = 2.0  # a file that was written to more recently may still be growing


@dataclass(frozen=True)
class Listed:
    """A file of a collection, as a listing shows it.

    Attributes:
        path: Below the collection, in its plain form (tasks/data/names.py).
        address: Of the file.
        size: In bytes.
        mark: What tells this version of it from others: an ETag, or size and time.
        changed: When it was written, in seconds since 1970; 0 where only complete files are listed.
    """

    path: str
    address: str
    size: int
    mark: str
    changed: float = 0.0


def list_collection(address: str, settings: TransferSettings) -> list[Listed]:
    """Return the files of a collection, without clutter, sorted by path.

    Raises:
        InputError: It is not there, may not be read, or has a file whose name cannot be used.
        OutageError: It is away for now.
    """
    try:
        scheme = urlsplit(address).scheme
        found = _files(address) if scheme == "file" else _objects(address, settings)
        return sorted(found, key=lambda listed: listed.path)
    except TransferError as error:
        kind = OutageError if isinstance(error, TemporaryError) else InputError
        raise kind(f"the collection {shown(address)} could not be listed: {error}") from error
    except OutageError:
        raise
    except InputError as error:
        raise InputError(f"the collection {shown(address)} {error}") from error


def read_listed(listed: Listed, settings: TransferSettings) -> bytes | None:
    """Return a file's bytes, or None where it is gone, or no longer the version that was listed.

    Raises:
        TransferError: It cannot be read, or not now (TemporaryError).
    """
    try:
        with open_address(listed.address, 0, listed.mark, settings) as body:
            data = b"".join(body.chunks)
    except StaleError:
        return None
    except TransferError as error:
        if str(error).startswith("404") or not is_as_listed(listed):
            return None
        raise
    return data if len(data) == listed.size and is_as_listed(listed) else None


def wait_until_settled(listed: list[Listed]) -> list[Listed]:
    """Return those of some files that are complete as they were listed, after a moment where some are very new."""
    newest = max((file.changed for file in listed), default=0.0)
    if 0 < time.time() - newest < SETTLED_SECONDS:
        time.sleep(SETTLED_SECONDS)
    return [file for file in listed if file.changed == 0 or is_as_listed(file)]


def _path(name: str) -> str:
    """Return a file's path in its plain form; refuse one that no table can hold and no terminal should show."""
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        raise InputError(f"has a file whose name has a control character: {name!r}")
    return member_name(name)


def _files(address: str) -> Iterator[Listed]:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise TransferError(f"a file:// address names no host, and this one names {parts.netloc!r}")
    root = Path(url2pathname(parts.path))
    if not root.is_dir():
        raise TransferError("no such folder")
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise TransferError(f"{folder}: {error.strerror}") from error
        for entry in entries:
            name = Path(entry.path).relative_to(root).as_posix()
            if is_clutter(name) or entry.is_symlink():  # a link may lead anywhere
                continue
            if entry.is_dir():
                waiting.append(Path(entry.path))
            elif entry.is_file():
                status = entry.stat()
                yield Listed(_path(name), Path(entry.path).as_uri(), status.st_size, _mark(status), status.st_mtime)


def _objects(address: str, settings: TransferSettings) -> Iterator[Listed]:
    parts = urlsplit(address)
    prefix = unquote(parts.path.removeprefix("/"))
    with s3_errors():
        pages = settings.connect_s3().get_paginator("list_objects_v2").paginate(Bucket=parts.netloc, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", ()):
                name = found["Key"].removeprefix(prefix)
                if name and not name.endswith("/") and not is_clutter(name):
                    place = f"s3://{parts.netloc}/{quote(found['Key'])}"
                    yield Listed(_path(name), place, found["Size"], found["ETag"])


def _mark(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"  # as tasks/sources/addresses.py marks a file's version


def is_as_listed(listed: Listed) -> bool:
    """Return whether a file on this machine is the version that was listed; an object is, or was not given."""
    if not listed.address.startswith("file:"):
        return True
    try:
        status = Path(url2pathname(urlsplit(listed.address).path)).stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and _mark(status) == listed.mark
