"""One run at a time in a workspace: two would write the same files, and DVC would mix them up."""

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from infra.process_group import birth_of, command_of, folder_of, stop_group
from tasks.stage.errors import InputError, OutageError
from tasks.stage.files import write_json
from tasks.stage.progress import format_duration

LOCK_FILE = Path(".dvc/tmp/retrain.lock")  # beside DVC's own locks, which git ignores
DVC_LOCKS = (Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/exps/rwlock"))  # of stages, and of experiments
PROGRAM = re.compile(r"^.*(?:__main__\.py|bin/dvc)|^\S+")  # as DVC notes its own: Python has it as `-m dvc`
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
    check_dvc(folder)
    path = folder / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        _lock(stream, folder, wait_seconds, say)
        _stop_orphan(_read(stream))
        for locks in DVC_LOCKS:
            _unlock_dvc(folder / locks, folder)
        _write(stream, {"run": os.getpid()})
        try:
            yield lambda leader: _write(stream, {"run": os.getpid(), "group": leader, "birth": birth_of(leader)})
        finally:
            _write(stream, {})


def check_dvc(folder: Path) -> None:
    """Raise InputError where a folder is no DVC project."""
    if not (folder / ".dvc").is_dir():
        raise InputError(f"{folder} is not a DVC project: it has no folder .dvc")


def check_git(folder: Path) -> None:
    """Raise InputError where a DVC project is in no git repository, and is not set to do without."""
    if any((place / ".git").exists() for place in (folder, *folder.parents)):
        return
    from dvc.repo import Repo  # noqa: PLC0415 - DVC takes a second to import
    from dvc.scm import SCMError  # noqa: PLC0415

    try:
        with Repo(str(folder)):
            return
    except SCMError as error:
        raise InputError(
            f"{folder} is in no git repository, without which DVC does not work: git clone the project instead of "
            "unpacking it, or type: git init && git add . && git commit -m Unpacked"
        ) from error


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


def _unlock_dvc(path: Path, folder: Path) -> None:
    """Take out of DVC's notes, of which process reads and writes what, those whose process is not that one any more.

    DVC looks only whether a process has the number, which may be another one by now, and fails on a note that was cut
    off when its writer was killed.
    """
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        readers = {name: [note for note in each if _is_at_work(note, folder)] for name, each in notes["read"].items()}
        writers = {name: note for name, note in notes["write"].items() if _is_at_work(note, folder)}
    except FileNotFoundError:
        return
    except (ValueError, TypeError, KeyError, AttributeError):
        notes, readers, writers = {}, {}, {}
    kept = {"read": {name: each for name, each in readers.items() if each}, "write": writers}
    if not any(kept.values()):
        path.unlink()
    elif kept != notes:
        write_json(path, kept)


def _is_at_work(note: dict[str, Any], folder: Path) -> bool:
    """Return whether the process that wrote a note lives: the number, its words after the program's name, its folder.

    Where that is the folder of another workspace, the number belongs to another DVC.
    """
    words = PROGRAM.sub("", str(note["cmd"])).strip()
    command = command_of(int(note["pid"]))
    if "dvc" not in command or not command.endswith(words):
        return False
    place = folder_of(int(note["pid"]))
    return place is None or place.is_relative_to(folder.resolve())


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
