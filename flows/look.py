"""The flow's first step where the data set is a collection: look what is there, and pin it for this run."""

import sys
from collections.abc import Callable
from pathlib import Path

from flows.command import Limits, OnLine, run_lines
from flows.overrides import Overrides, preview
from flows.stages import StageError
from tasks.params.params import PARAMS_FILE
from tasks.stage.files import read_json, write_json

PIN = "download.sha256"
PINNED = Path(".dvc/tmp/pinned.json")  # what each of the last runs began with
KEPT_RUNS = 20
LOOKED = Path(".dvc/tmp/looked.json")  # git ignores it, and so does DVC
COMMAND = (sys.executable, "-m", "tasks.snapshot", "look", "--output", str(LOOKED))


def is_followed(overrides: Overrides, path: Path = PARAMS_FILE) -> bool:
    """Return whether a run with these values looks first: its data are a collection, and nobody has said which pin."""
    params = preview(overrides, path).download
    return params.collection is not None and params.follow and PIN not in overrides


def begun_with(folder: Path, run: str, note: Path = PINNED) -> str | None:
    """Return the snapshot that a run began with here, if it began before: started again, it goes on with that.

    Another `note` holds what else a run began with (flows/start.py).
    """
    pins = _pins(folder / note)
    return pins.get(run)


def note_pin(folder: Path, run: str, snapshot: str, note: Path = PINNED) -> None:
    """Note which snapshot a run begins with, for when it is started again."""
    pins = {**_pins(folder / note), run: snapshot}
    write_json(folder / note, {"runs": [[name, pins[name]] for name in list(pins)[-KEPT_RUNS:]]})


def _pins(note: Path) -> dict[str, str]:
    try:
        return {str(run): str(snapshot) for run, snapshot in read_json(note)["runs"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def look(
    folder: Path, on_line: OnLine, limits: Limits | None = None, on_start: Callable[[int], None] | None = None
) -> str:
    """Look at the collection of params.yaml in a process of its own; return the name of the snapshot that is there.

    Raises:
        StageError: The command failed, under the name `look`.
    """
    (folder / LOOKED).unlink(missing_ok=True)
    finished = run_lines(COMMAND, folder, on_line, limits, on_start)
    if finished.status or not (folder / LOOKED).exists():
        raise StageError("look", finished.status, tuple(line for line in finished.lines if line.strip()))
    return str(read_json(folder / LOOKED)["sha256"])
