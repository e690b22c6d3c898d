"""Looking at a collection: what is there becomes a snapshot, and what is new becomes shards.

What an earlier look learnt of a file, it need not learn again: its hash is kept beside the mark of its version. So a
look reads a listing, and the bytes of new files alone, each once.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from tasks.data.labels import LABELS_NAME, MAX_LABELS_BYTES, label, read_labels
from tasks.data.layout import Entry, read_layout, read_part, refuse_too_few
from tasks.data.shards import ShardWriter, places
from tasks.data.snapshot import Row, table
from tasks.sources.addresses import TemporaryError, TransferError, TransferSettings, shown
from tasks.sources.arrivals import archive_of, is_archive, read_archives, unpack
from tasks.sources.collection import Listed, list_collection, read_listed, wait_until_settled
from tasks.sources.memory import Known, Memory, Snapshot
from tasks.sources.transfer import RetryPolicy, pause_seconds
from tasks.stage.errors import InputError, OutageError
from tasks.stage.progress import Progress

READERS = 16
BYTES_AT_ONCE = 64 << 20
FILES_AT_ONCE = 512
Answer = bytes | TransferError | None
MAX_FILE_BYTES = 64 << 20  # as of an archive's members


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
    listing, before = list_collection(address, settings), memory.seen()
    files = [file for file in listing if file.path != LABELS_NAME]
    new = [file for file in files if file.path not in before or before[file.path].mark != file.mark]
    settled = wait_until_settled(new)

    def read(file: Listed) -> Answer:
        return _read(file, settings, retry)

    learnt = _learn(address, [file for file in settled if not is_archive(file.path)], memory, before, read)
    unpacked = unpack([file for file in settled if is_archive(file.path)], memory, settings)
    learnt |= unpacked.known
    seen = _still_there({file.path for file in files}, before, learnt)
    memory.remember(seen)
    unsettled = tuple(sorted({file.path for file in new} - learnt.keys() - unpacked.damaged.keys()))
    entries, remarks = _entries(address, listing, [path for path in seen if not is_archive(path)], read)
    rows = [Row(e.name, seen[e.name].sha256, seen[e.name].size, e.label, e.split or "", e.group) for e in entries]
    return Snapshot(memory.keep(table(rows)), tuple(sorted(rows)), unsettled, (*unpacked.remarks, *remarks))


def _still_there(paths: set[str], before: dict[str, Known], learnt: dict[str, Known]) -> dict[str, Known]:
    """Return what is known of the files that are there, and of such archives' images, in their newest version."""
    found = {path: known for path, known in before.items() if archive_of(path) not in learnt} | learnt
    return {path: known for path, known in found.items() if archive_of(path) in paths}


def _entries(
    address: str, listing: Sequence[Listed], paths: list[str], read: Callable[[Listed], Answer]
) -> tuple[list[Entry], tuple[str, ...]]:
    """Return which files, and members of archives, are images of which class, and what is worth a sentence."""
    table_file = next((file for file in listing if file.path == LABELS_NAME), None)
    plain = [path for path in paths if archive_of(path) == path]
    try:
        if table_file is None and len(plain) == len(paths):
            return read_layout(plain, []), ()
        of_archives, remarks = read_archives(paths)
        packed = {entry.name: entry for entry in of_archives}
        if table_file is None:
            found = [*(read_part(plain) if plain else []), *of_archives]
        else:
            if table_file.size > MAX_LABELS_BYTES:
                raise InputError(f"{LABELS_NAME} of {table_file.size:,} bytes is too large to read")
            data = read(table_file)
            if not isinstance(data, bytes):
                kind = InputError if data is not None and not isinstance(data, TemporaryError) else OutageError
                raise kind(f"{LABELS_NAME} cannot be read: {data or 'it changes while it is looked at'}")
            labels = read_labels(data, PurePosixPath())
            of_plain = {name: entry for name, entry in labels.items() if name not in packed}
            labelled = label(plain, of_plain, PurePosixPath())
            found = [*labelled.entries, *(labels.get(name, entry) for name, entry in packed.items())]
            remarks += labelled.remarks
        refuse_too_few(found)
    except OutageError as error:
        raise OutageError(f"{shown(address)}: {error}") from error
    except InputError as error:
        raise InputError(f"{shown(address)}: {str(error).replace('the archive', 'the collection')}") from error
    return found, remarks


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
