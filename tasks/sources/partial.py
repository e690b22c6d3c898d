"""A file that is still coming in: it knows its sha256 so far, survives a kill, and belongs to one process."""

import fcntl
import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.stage.errors import InputError
from tasks.stage.files import CHUNK, read_json, sync, write_json


class PartialFile:
    """The first bytes of a download, in `<path>`, and where they came from, in `<path>.json`.

    Writes are unbuffered, so that a killed process loses nothing that it received. Used as a context manager, which
    holds a lock on the file.

    Attributes:
        size: Bytes so far.
        address_key: Names the address that they came from; empty if unknown.
        validator: That server's mark of the version that they are from, if it gave one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.address_key = ""
        self.validator: str | None = None
        self._origin = path.with_name(f"{path.name}.json")
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        """Open the file and hash what is there.

        Raises:
            InputError: Another process is filling the same file.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise InputError(f"another process is downloading to {self.path}") from error
        self._stream.seek(0)
        while chunk := self._stream.read(CHUNK):
            self._digest.update(chunk)
            self.size += len(chunk)
        self._read_origin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size == 0:
            self.path.unlink(missing_ok=True)
        self._stream.close()

    @property
    def sha256(self) -> str:
        """Of the bytes so far, in hexadecimal."""
        return self._digest.hexdigest()

    def restart(self) -> None:
        """Throw away what is there."""
        self._stream.truncate(0)
        self._digest = hashlib.sha256()
        self.size, self.address_key, self.validator = 0, "", None
        self._origin.unlink(missing_ok=True)

    def begin(self, address_key: str, validator: str | None) -> None:
        """Remember where the bytes that follow come from."""
        if (address_key, validator) != (self.address_key, self.validator):
            self.address_key, self.validator = address_key, validator
            write_json(self._origin, {"address": address_key, "validator": validator})

    def append(self, chunk: bytes) -> None:
        """Add the bytes that follow."""
        view = memoryview(chunk)
        while view:  # an unbuffered write may take only a part
            view = view[self._stream.write(view) :]
        self._digest.update(chunk)
        self.size += len(chunk)

    def keep(self, path: Path) -> None:
        """Give the complete file its final name, on the disk for good."""
        sync(self.path)
        self.path.replace(path)
        sync(path.parent)
        self._origin.unlink(missing_ok=True)

    def _read_origin(self) -> None:
        if self.size == 0 or not self._origin.exists():
            return
        try:
            origin = read_json(self._origin)
            self.address_key, self.validator = str(origin["address"]), origin["validator"]
        except (ValueError, KeyError, TypeError):
            self.address_key, self.validator = "", None
