"""What a machine keeps of a collection: the contents in shards, the tables of snapshots, and each file's hash."""

import csv
import fcntl
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from tasks.data.snapshot import Row, name_of, read_table
from tasks.stage.files import replaced_file, write_text


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


def hash_of(data: bytes) -> str:
    """Return the sha256 of a content, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
