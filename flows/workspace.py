"""One run at a time in a workspace: two would write the same files, and DVC would mix them up."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from infra.process_group import birth_of, stop_group
from tasks.errors import InputError

LOCK_FILE = Path(".dvc/tmp/retrain.lock")  # beside DVC's own locks, which git ignores
GRACE_SECONDS = 60.0


@contextlib.contextmanager
def exclusive_workspace(folder: Path) -> Iterator[Callable[[int], None]]:
    """Hold the workspace; the kernel lets go of it when this process ends, however it ends.

    Yields a function that notes the process group at work. Where a killed run left its stage alive, the next run finds
    it by that note and stops it before it starts its own.

    Raises:
        InputError: `folder` is no DVC project, or another run holds it.
    """
    if not (folder / ".dvc").is_dir():
        raise InputError(f"{folder} is not a DVC project: it has no folder .dvc")
    path = folder / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read(stream).get("run", "unknown")
            raise InputError(
                f"another run (process {holder}) is at work in {folder}; wait for it or stop it"
            ) from error
        _stop_orphan(_read(stream))
        _write(stream, {"run": os.getpid()})
        try:
            yield lambda leader: _write(stream, {"run": os.getpid(), "group": leader, "birth": birth_of(leader)})
        finally:
            _write(stream, {})


def _stop_orphan(record: dict[str, Any]) -> None:
    """Stop the stage that a killed run left behind, if it is certainly that stage."""
    group = record.get("group")
    if group is not None and birth_of(group) == record["birth"]:
        stop_group(group, GRACE_SECONDS)


def _read(stream: IO[str]) -> dict[str, Any]:
    """Return what the last holder noted; nothing where it was cut off in the middle of a note."""
    stream.seek(0)
    with contextlib.suppress(json.JSONDecodeError):
        return dict(json.loads(stream.read() or "{}"))
    return {}


def _write(stream: IO[str], record: dict[str, Any]) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(json.dumps(record))
    stream.flush()
