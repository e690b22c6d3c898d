"""The flow's step before training: the champion is asked about what came, which says whether to train.

It runs `python -m tasks.registry drift` in a process of its own. What that found is `.dvc/tmp/drift.json`, and goes
into the manifest of the release that this run may make, with what its stages left under runtime/.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.command import Limits, OnLine, run_lines
from flows.stages import StageError
from tasks.stage.files import read_json
from tasks.stage.runtime import RUNTIME_FOLDER, write_runtime

TRAIN = "train"  # the stage before which it is asked
DRIFT = Path(".dvc/tmp/drift.json")  # git ignores it, and so does DVC
COMMAND = (sys.executable, "-m", "tasks.registry", "drift", "--output", str(DRIFT))
ANSWERS = (0, 1)  # yes and no: whether to train


def measure(
    folder: Path, on_line: OnLine, limits: Limits | None = None, on_start: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Ask the champion; return whether to `retrain`, the `sentence` that says why, and the `drift`.

    Raises:
        StageError: The command failed, under the name `drift`.
        CommandTimeoutError: It took too long.
    """
    (folder / DRIFT).unlink(missing_ok=True)
    finished = run_lines(COMMAND, folder, on_line, limits, on_start)
    if finished.status not in ANSWERS or not (folder / DRIFT).exists():
        raise StageError("drift", finished.status, tuple(line for line in finished.lines if line.strip()))
    found = dict(read_json(folder / DRIFT))
    write_runtime("drift", found["drift"] or {}, folder / RUNTIME_FOLDER)
    return found
