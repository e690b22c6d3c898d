r"""A snapshot: what a collection of images held at one moment, a row an image; the sha256 of its table is its name.

The table is CSV in UTF-8 with `\n` line ends: path, sha256 and bytes of the file, its label, and the split and the
group that its folder or labels.csv gives it (empty for none), sorted by path. Equal collections have equal tables,
whoever looked, and whenever.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tasks.stage.errors import InputError

SNAPSHOT_NAME = "snapshot.csv"


@dataclass(frozen=True, order=True)
class Row:
    """An image of a snapshot: the path of its file in the collection, and what is known of it."""

    path: str
    sha256: str
    size: int
    label: str
    split: str
    group: str = ""


@dataclass(frozen=True)
class Changes:
    """What came between two snapshots, each a number of images.

    Attributes:
        came: Whose bytes were not there.
        went: Whose bytes are there no more.
        relabelled: Whose bytes are there under other labels than before.
        moved: Whose bytes and label are the same, and whose path is another.
    """

    came: int
    went: int
    relabelled: int
    moved: int


COLUMNS = tuple(field.name for field in fields(Row))


def table(rows: Iterable[Row]) -> bytes:
    """Return a snapshot as bytes; equal rows are equal bytes, in whatever order they come."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(row) for row in sorted(rows))
    return stream.getvalue().encode()


def name_of(data: bytes) -> str:
    """Return a snapshot's name: the sha256 of its table, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read_table(path: Path) -> list[Row]:
    """Read a snapshot's rows.

    Raises:
        InputError: It is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            if tuple(next(reader, ())) != COLUMNS:
                raise ValueError(f"its columns are not {','.join(COLUMNS)}")
            return [Row(path, sha256, int(size), *words) for path, sha256, size, *words in map(_complete, reader)]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is no table of a snapshot: {error}") from error


def _complete(row: list[str]) -> list[str]:
    if len(row) != len(COLUMNS):
        raise ValueError(f"a row has {len(row)} columns of {len(COLUMNS)}")
    return row


def changes(before: Iterable[Row], now: Iterable[Row]) -> Changes:
    """Return what became of the images from one snapshot to another; an image is its bytes."""
    labels_before, labels_now = _by_content(before), _by_content(now)
    came, went = labels_now.keys() - labels_before.keys(), labels_before.keys() - labels_now.keys()
    stayed = labels_before.keys() & labels_now.keys()
    relabelled = {content for content in stayed if set(labels_before[content]) != set(labels_now[content])}
    paths_before, paths_now = _paths(before), _paths(now)
    moved = {content for content in stayed - relabelled if paths_before[content] != paths_now[content]}
    return Changes(len(came), len(went), len(relabelled), len(moved))


def _by_content(rows: Iterable[Row]) -> dict[str, Counter[str]]:
    labels: dict[str, Counter[str]] = {}
    for row in rows:
        labels.setdefault(row.sha256, Counter())[row.label] += 1
    return labels


def _paths(rows: Iterable[Row]) -> dict[str, set[str]]:
    paths: dict[str, set[str]] = {}
    for row in rows:
        paths.setdefault(row.sha256, set()).add(row.path)
    return paths
