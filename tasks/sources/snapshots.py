"""A collection's snapshots: looked at anew, compared with the one before, and put where the stages read."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.data.shards import SHARDS_NAME, ShardWriter, places
from tasks.data.snapshot import SNAPSHOT_NAME, Changes, Row, changes
from tasks.sources.addresses import TransferSettings, shown
from tasks.sources.arrivals import archive_of, unpack
from tasks.sources.collection import list_collection, read_listed
from tasks.sources.look import look
from tasks.sources.memory import Memory, Snapshot, hash_of
from tasks.sources.transfer import RetryPolicy
from tasks.stage.errors import InputError

NAMED_FILES = 3


@dataclass(frozen=True)
class Looked:
    """A snapshot, and what came since the one that was pinned; None where that one is not known here."""

    snapshot: Snapshot
    changes: Changes | None


def look_again(
    address: str, memory: Memory, pinned: str | None, max_lost: float, settings: TransferSettings, retry: RetryPolicy
) -> Looked:
    """Look at a collection, and compare with the snapshot that is pinned.

    Raises:
        InputError: As look says; or a larger share of the images has gone than `max_lost`.
        OutageError: The collection is away for now.
    """
    before = memory.snapshot(pinned)
    found = look(address, memory, settings, retry)
    if before is None:
        return Looked(found, None)
    came = changes(before, found.rows)
    known = len({row.sha256 for row in before})
    if came.went > max_lost * known:
        raise InputError(
            f"{shown(address)} has lost {came.went:,} of the {known:,} images of snapshot {str(pinned)[:16]}, more "
            f"than download.max_lost = {max_lost:g} allows; if that is meant, set download.max_lost=1 for one run"
        )
    return Looked(found, came)


def told(looked: Looked) -> str:
    """Return what a look found as a sentence."""
    rows, unsettled = looked.snapshot.rows, looked.snapshot.unsettled
    left = f"; left for the next look, for they still change: {_listed(unsettled)}" if unsettled else ""
    left += "".join(f"; {remark}" for remark in looked.snapshot.remarks)
    whole = f"{len(rows):,} images of {len({row.label for row in rows})} classes, snapshot {looked.snapshot.name[:16]}"
    if looked.changes is None:
        return f"{whole}{left}"
    if looked.changes == Changes(0, 0, 0, 0):
        return f"nothing new: {whole}{left}"
    c = looked.changes
    return f"{c.came:,} images came, {c.went:,} went, {c.relabelled:,} changed their class: {whole}{left}"


def place_snapshot(
    address: str, rows: Sequence[Row], name: str, memory: Memory, raw: Path, settings: TransferSettings
) -> None:
    """Put a snapshot's table and its shards into an empty folder: by second names where that is possible.

    Raises:
        InputError: Neither this machine nor the collection has all of its images any more.
    """
    held = places(memory.shards)
    if missing := [row for row in rows if row.sha256 not in held]:
        _fetch(address, missing, memory, settings)
        held = places(memory.shards)
    lost = [row.path for row in rows if row.sha256 not in held]
    if lost:
        raise InputError(
            f"{shown(address)} has no longer {len(lost):,} of the images that snapshot {name[:16]} needs, as "
            f"{_listed(lost)}; dvc pull brings them where a run has pushed them"
        )
    (raw / SHARDS_NAME).mkdir()
    for shard in sorted({held[row.sha256].shard for row in rows}):
        for path in (shard, shard.with_suffix(".csv")):
            _second_name(path, raw / SHARDS_NAME / path.name)
    shutil.copyfile(memory.snapshot_path(name), raw / SNAPSHOT_NAME)


def _fetch(address: str, missing: Sequence[Row], memory: Memory, settings: TransferSettings) -> None:
    """Bring the bytes of images that the memory lost from where they lay, as far as they still are what they were."""
    wanted = {row.path: row.sha256 for row in missing}
    archives = {archive_of(path) for path in wanted if archive_of(path) != path}
    listing = list_collection(address, settings)
    unpack([listed for listed in listing if listed.path in archives], memory, settings)
    with ShardWriter(memory.shards) as writer:
        for listed in listing:
            if listed.path in wanted and (data := read_listed(listed, settings)) is not None:
                sha256 = hash_of(data)
                if sha256 == wanted[listed.path]:
                    writer.add(sha256, data)


def _second_name(path: Path, second: Path) -> None:
    try:
        os.link(path, second)
    except OSError:  # a file system without hard links across folders
        shutil.copyfile(path, second)


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - NAMED_FILES:,} more" if len(paths) > NAMED_FILES else ""
    return ", ".join(map(repr, paths[:NAMED_FILES])) + more
