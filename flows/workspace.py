"""One run at a time in a workspace: two would write the same files, and DVC would mix them up."""

import contextlib
import fcntl
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from infra.process_group import birth_of, command_of, stop_group
from tasks.stage.errors import InputError, OutageError
from tasks.stage.progress import format_duration

LOCK_FILE = Path(".dvc/tmp/retrain.lock")  # beside DVC's own locks, which git ignores
DVC_LOCKS = Path(".dvc/tmp/rwlock")
GRACE_SECONDS = 60.0
POLL_SECONDS = 0.5


@contextlib.contextmanager
def exclusive_workspace(
    folder: Path, wait_seconds: float = 0.0, say: Callable[[str], None] = print
) -> Iterator[Callable[[int], None]]:
    """Hold the workspace; the kernel lets go of it when this process ends, however it ends.

    Yields a function that notes the process group at work. Where a killed run left its stage alive, the next run finds
    it by that note and stops it before it starts its own. What a killed DVC left locked is unlocked.

    Args:
        folder: The DVC project.
        wait_seconds: How long to wait for a run that holds it.
        say: Gets a line where that is waited for.

    Raises:
        InputError: `folder` is no DVC project, or another run holds it; that is an OutageError where it was waited for.
    """
    if not (folder / ".dvc").is_dir():
        raise InputError(f"{folder} is not a DVC project: it has no folder .dvc")
    path = folder / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        _lock(stream, folder, wait_seconds, say)
        _stop_orphan(_read(stream))
        _unlock_dvc(folder)
        _write(stream, {"run": os.getpid()})
        try:
            yield lambda leader: _write(stream, {"run": os.getpid(), "group": leader, "birth": birth_of(leader)})
        finally:
            _write(stream, {})


def _lock(stream: IO[str], folder: Path, wait_seconds: float, say: Callable[[str], None]) -> None:
    deadline, said = time.monotonic() + wait_seconds, False
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            at_work = f"another run (process {_read(stream).get('run', 'unknown')}) is at work in {folder}"
            if time.monotonic() >= deadline:
                kind = OutageError if wait_seconds else InputError
                raise kind(f"{at_work}; wait for it or stop it") from error
            if not said:
                say(f"{at_work}; waiting for {format_duration(wait_seconds)} at most until it has tidied up")
            said = True
            time.sleep(POLL_SECONDS)
        else:
            return


def _unlock_dvc(folder: Path) -> None:
    """Remove DVC's note of which process reads and writes what, unless one of them is a DVC that lives.

    DVC looks only whether a process has the number, which may be another one by now, and fails on a note that was cut
    off when its writer was killed.
    """
    path = folder / DVC_LOCKS
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        readers, writers = notes["read"].values(), notes["write"].values()
        holders = {int(note["pid"]) for note in [*itertools.chain(*readers), *writers]}
    except FileNotFoundError:
        return
    except (ValueError, TypeError, KeyError, AttributeError):
        holders = set()
    if not any("dvc" in command_of(holder) for holder in holders):
        path.unlink()


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
