"""Shards: files that arrived together, in one immutable tar of bounded size, with a table of where each one lies.

As restic's packs and WebDataset's shards: a hundred thousand images are some hundreds of files to DVC, and one more
image is one small file more. A shard is `<sha256>.tar`, named by its own bytes, and lists its members, each named by
the sha256 of its content, in `<sha256>.csv`: sha256,offset,size.
"""

import csv
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.stage.errors import InputError
from tasks.stage.files import sha256_of, sync, write_text

SHARDS_NAME = "shards"  # the folder beside a snapshot's table
SHARD_BYTES = 64 << 20
HEADER_BYTES = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Place:
    """Where a content lies: in which shard, from which byte on, and how many."""

    shard: Path
    offset: int
    size: int


class ShardWriter:
    """Packs contents into shards of a folder; used as a context manager, which completes the last one.

    A shard has its name, and its table, once it is complete and synced; a process that is killed leaves a temporary
    file that nobody reads, and that the next writer removes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[tuple[str, int, int]] = []
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in self._folder.glob(".*.tmp"):
            leftover.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.complete()

    def add(self, sha256: str, data: bytes) -> bool:
        """Pack a content; return whether that completed a shard."""
        if self._tar is None:
            descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self._folder)
            os.fchmod(descriptor, 0o644)
            self._path, self._stream = Path(name), os.fdopen(descriptor, "wb")
            self._tar = tarfile.TarFile(fileobj=self._stream, mode="w", format=tarfile.USTAR_FORMAT)
        header = tarfile.TarInfo(sha256)  # of a time, an owner and rights that are always the same
        header.size = len(data)
        self._rows.append((sha256, self._stream.tell() + HEADER_BYTES, len(data)))
        self._tar.addfile(header, io.BytesIO(data))
        if self._stream.tell() < SHARD_BYTES:
            return False
        self.complete()
        return True

    def complete(self) -> None:
        """Give the shard at hand its name and its table."""
        if self._tar is None:
            return
        self._tar.close()
        self._stream.close()
        sync(self._path)
        name = sha256_of(self._path)
        lines = io.StringIO(newline="")
        csv.writer(lines, lineterminator="\n").writerows([("sha256", "offset", "size"), *self._rows])
        self._path.replace(self._folder / f"{name}.tar")
        write_text(self._folder / f"{name}.csv", lines.getvalue())
        self._tar, self._rows = None, []


def places(folder: Path) -> dict[str, Place]:
    """Return where each content of a folder's shards lies.

    Raises:
        InputError: A shard's table is damaged, or its shard is missing.
    """
    return {sha256: place for path in sorted(folder.glob("*.csv")) for sha256, place in _rows(path)}


def _rows(path: Path) -> Iterator[tuple[str, Place]]:
    shard = path.with_suffix(".tar")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream, strict=True):
                yield row["sha256"], Place(shard, int(row["offset"]), int(row["size"]))
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is no table of a shard: {error}") from error


def read_content(place: Place, sha256: str) -> bytes:
    """Return a content's bytes.

    Raises:
        InputError: The shard is missing, or its bytes are not those of the hash.
    """
    try:
        with place.shard.open("rb") as stream:
            stream.seek(place.offset)
            data = stream.read(place.size)
    except FileNotFoundError as error:
        raise InputError(f"{place.shard} does not exist; run the stage download again") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{place.shard} is damaged: what it holds as {sha256[:16]} is something else")
    return data
