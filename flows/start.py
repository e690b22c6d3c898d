"""The flow's step where train.start is champion: which release training begins from is asked, and pinned for this run.

As with a collection's snapshot, `dvc repro` takes the pin that stands in params.yaml, and only a run of the flow moves
it. tasks/registry/start.py says when: where it moved with every champion, each would be a reason to train the next.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from flows.command import Limits, OnLine, run_lines
from flows.overrides import Overrides, preview
from flows.stages import StageError
from tasks.params.params import PARAMS_FILE
from tasks.stage.files import read_json

RELEASE = "weights.release"
STARTED = Path(".dvc/tmp/started.json")  # what each of the last runs began from, "" for scratch
CHOSEN = Path(".dvc/tmp/start.json")  # git ignores it, and so does DVC
COMMAND = (sys.executable, "-m", "tasks.registry", "start", "--output", str(CHOSEN))


def begins_from_champion(overrides: Overrides, path: Path = PARAMS_FILE) -> bool:
    """Return whether a run with these values asks where to begin: from the champion, and nobody has said which pin."""
    return RELEASE not in overrides and preview(overrides, path).train.start == "champion"


def ask_start(
    folder: Path, on_line: OnLine, limits: Limits | None = None, on_start: Callable[[int], None] | None = None
) -> str | None:
    """Ask the registry, in a process of its own, which release training begins from; None for from scratch.

    Raises:
        StageError: The command failed, under the name `start`.
    """
    (folder / CHOSEN).unlink(missing_ok=True)
    finished = run_lines(COMMAND, folder, on_line, limits, on_start)
    if finished.status or not (folder / CHOSEN).exists():
        raise StageError("start", finished.status, tuple(line for line in finished.lines if line.strip()))
    release = read_json(folder / CHOSEN)["release"]
    return None if release is None else str(release)
