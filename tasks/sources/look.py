"""Looking at a collection: what is there becomes a snapshot, and what is new becomes shards.

What an earlier look learnt of a file, it need not learn again: its hash is kept beside the mark of its version. So a
look reads a listing, and the bytes of new files alone, each once.
"""

import csv
import fcntl
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks.data.labels import LABELS_NAME, label, read_labels
from tasks.data.layout import Entry, read_layout
from tasks.data.shards import ShardWriter, places
from tasks.data.snapshot import Row, name_of, read_table, table
from tasks.sources.addresses import TemporaryError, TransferError, TransferSettings, shown
from tasks.sources.collection import Listed, list_collection, read_listed, wait_until_settled
from tasks.sources.transfer import RetryPolicy, pause_seconds
from tasks.stage.errors import InputError, OutageError
from tasks.stage.files import replaced_file, write_text
from tasks.stage.progress import Progress

READERS = 16
BYTES_AT_ONCE = 64 << 20
FILES_AT_ONCE = 512
Answer = bytes | TransferError | None
MAX_FILE_BYTES = 64 << 20  # as of an archive's members


@dataclass(frozen=True)
class Known:
    """What a look learnt of a file: the mark of the version that it read, and that version's hash and size."""

    mark: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Snapshot:
    """What a look found.

    Attributes:
        name: The sha256 of its table.
        rows: An image each, sorted by path.
        unsettled: Paths that changed while they were looked at, and are left for the next look.
        remarks: What else is worth a sentence, as images without a label.
    """

    name: str
    rows: tuple[Row, ...]
    unsettled: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Memory:
    """What is kept of one collection on this machine, in a folder: shards, tables of snapshots, and hashes of files.

    Used as a context manager: of two runs that look at once, one waits for the other.
    """

    def __init__(self, cache: Path, address: str) -> None:
        self.folder = cache / f"collection-{hashlib.sha256(address.encode()).hexdigest()[:16]}"
        self.shards = self.folder / "shards"
        self._seen = self.folder / "seen.csv"

    def __enter__(self) -> "Memory":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def snapshot_path(self, name: str) -> Path:
        """Return where the table of a snapshot is, if it is known here."""
        return self.folder / "snapshots" / f"{name}.csv"

    def snapshot(self, name: str | None) -> tuple[Row, ...] | None:
        """Return a snapshot's rows, or None where it is not known here."""
        path = self.snapshot_path(name or "none")
        return tuple(read_table(path)) if path.exists() else None

    def keep(self, data: bytes) -> str:
        """Keep a snapshot's table; return the snapshot's name."""
        name = name_of(data)
        with replaced_file(self.snapshot_path(name)) as temporary:
            temporary.write_bytes(data)
        return name

    def seen(self) -> dict[str, Known]:
        """Return what is known of files by their paths; nothing where that is damaged, for it can be learnt again."""
        try:
            with self._seen.open(encoding="utf-8", newline="") as stream:
                return {path: Known(mark, sha256, int(size)) for path, mark, sha256, size in csv.reader(stream)}
        except (FileNotFoundError, ValueError, csv.Error):
            return {}

    def remember(self, seen: dict[str, Known]) -> None:
        """Keep what is known of files."""
        lines = io.StringIO(newline="")
        csv.writer(lines, lineterminator="\n").writerows(
            (path, known.mark, known.sha256, known.size) for path, known in sorted(seen.items())
        )
        write_text(self._seen, lines.getvalue())


def look(address: str, memory: Memory, settings: TransferSettings, retry: RetryPolicy) -> Snapshot:
    """Return what a collection holds, once the bytes of all of it are in the memory's shards.

    Args:
        address: Of the collection; ends with a slash.
        memory: Of the collection, entered.
        settings: Timeouts and clients.
        retry: How often to try for a file.

    Raises:
        InputError: It is not there, or its files do not lie as labelled images do (tasks/data/layout.py).
        OutageError: It is away for now; what was read is kept.
    """
    listing = list_collection(address, settings)
    before = memory.seen()
    files = [file for file in listing if file.path != LABELS_NAME]
    new = [file for file in files if file.path not in before or before[file.path].mark != file.mark]
    settled = wait_until_settled(new)
    learnt = _learn(address, settled, memory, before, lambda file: _read(file, settings, retry))
    seen = {file.path: known for file in files if (known := learnt.get(file.path) or before.get(file.path))}
    memory.remember(seen)
    unsettled = tuple(sorted({file.path for file in new} - learnt.keys()))
    entries, remarks = _entries(address, listing, list(seen), lambda file: _read(file, settings, retry))
    rows = [Row(e.name, seen[e.name].sha256, seen[e.name].size, e.label, e.split or "", e.group) for e in entries]
    return Snapshot(memory.keep(table(rows)), tuple(sorted(rows)), unsettled, remarks)


def _entries(
    address: str, listing: Sequence[Listed], paths: list[str], read: Callable[[Listed], Answer]
) -> tuple[list[Entry], tuple[str, ...]]:
    """Return which files are images of which class, and what is worth a sentence."""
    table_file = next((file for file in listing if file.path == LABELS_NAME), None)
    try:
        if table_file is None:
            return read_layout(paths, []), ()
        data = read(table_file)
        if not isinstance(data, bytes):
            kind = InputError if data is not None and not isinstance(data, TemporaryError) else OutageError
            raise kind(f"{LABELS_NAME} cannot be read: {data or 'it changes while it is looked at'}")
        labelled = label(paths, read_labels(data, PurePosixPath()), PurePosixPath())
    except OutageError as error:
        raise OutageError(f"{shown(address)}: {error}") from error
    except InputError as error:
        raise InputError(f"{shown(address)}: {str(error).replace('the archive', 'the collection')}") from error
    return labelled.entries, labelled.remarks


def _learn(
    address: str, files: Sequence[Listed], memory: Memory, before: dict[str, Known], read: Callable[[Listed], Answer]
) -> dict[str, Known]:
    """Read files in parallel and pack what is new; return what is known of those that were read as they were listed."""
    learnt: dict[str, Known] = {}
    packed = set(places(memory.shards))
    progress = Progress(len(files), "files")
    done = 0
    with ShardWriter(memory.shards) as writer, ThreadPoolExecutor(READERS) as pool:
        for batch in _batches(files):
            for file, data in zip(batch, pool.map(read, batch), strict=True):
                if isinstance(data, TransferError):
                    writer.complete()
                    memory.remember(before | learnt)
                    kind = OutageError if isinstance(data, TemporaryError) else InputError
                    raise kind(f"{shown(address)}{file.path} could not be read: {data}") from data
                if data is None:
                    continue
                sha256 = hashlib.sha256(data).hexdigest()
                learnt[file.path] = Known(file.mark, sha256, len(data))
                if sha256 not in packed:
                    packed.add(sha256)
                    if writer.add(sha256, data):  # whoever is killed now need not read these again
                        memory.remember(before | learnt)
            done += len(batch)
            progress.update(done, "looking")
    progress.close()
    return learnt


def _read(file: Listed, settings: TransferSettings, retry: RetryPolicy) -> Answer:
    """Return a file's bytes, the reason why it cannot be read, or None where it has changed since it was listed."""
    attempt = 1
    while True:
        try:
            return read_listed(file, settings)
        except TemporaryError as error:
            if attempt == retry.attempts:
                return error
            time.sleep(pause_seconds(retry, attempt, error.retry_after))
            attempt += 1
        except TransferError as error:
            return error


def _batches(files: Sequence[Listed]) -> Iterator[list[Listed]]:
    """Give files in batches of bounded number and size.

    Raises:
        InputError: A file is too large to be an image.
    """
    batch: list[Listed] = []
    size = 0
    for file in files:
        if file.size > MAX_FILE_BYTES:
            raise InputError(f"the collection's file {file.path!r} of {file.size:,} bytes is too large to read")
        batch.append(file)
        size += file.size
        if len(batch) == FILES_AT_ONCE or size >= BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
