"""The flow's first step where the data set is a collection: look what is there, and pin it for this run."""

import sys
from collections.abc import Callable
from pathlib import Path

from flows.command import Limits, OnLine, run_lines
from flows.overrides import Overrides, preview
from flows.stages import StageError
from tasks.params.params import PARAMS_FILE
from tasks.stage.files import read_json

PIN = "download.sha256"
LOOKED = Path(".dvc/tmp/looked.json")  # git ignores it, and so does DVC
COMMAND = (sys.executable, "-m", "tasks.snapshot", "look", "--output", str(LOOKED))


def is_followed(overrides: Overrides, path: Path = PARAMS_FILE) -> bool:
    """Return whether a run with these values looks first: its data are a collection, and nobody has said which pin."""
    params = preview(overrides, path).download
    return params.collection is not None and params.follow and PIN not in overrides


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
