"""The flow's step after the stages: the release that they made is offered for the channels, in a process of its own.

What became of it is `.dvc/tmp/offer.json`, as `Offer` of tasks/registry/offer.py describes it: `published`, `champion`,
`moved`, `champion_before`, `champion_now`, `outcome`, `verdict` and so on. It is what the bucket says now, after every
run.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.command import Limits, OnLine, run_lines
from flows.stages import StageError
from tasks.stage.files import read_json

PUBLISH = "publish"  # the stage that puts a release into the bucket
RECEIPT = Path("release/receipt.json")
OFFER = Path(".dvc/tmp/offer.json")  # git ignores it, and so does DVC
COMMAND = (sys.executable, "-m", "tasks.registry", "offer", "--output", str(OFFER))
ANSWERS = (0, 1)  # yes and no: whether it is champion


def offer(
    folder: Path, on_line: OnLine, limits: Limits | None = None, on_start: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Offer the workspace's release for the channels and return what became of it; nothing where there is no release.

    Where `published` is false, the bucket does not have the release: it was emptied, and the stage publish must run
    again before anything else can be said.

    Raises:
        StageError: The command failed, under the name `offer`.
        CommandTimeoutError: It took too long.
    """
    (folder / OFFER).unlink(missing_ok=True)
    if not (folder / RECEIPT).exists():
        return {}
    finished = run_lines(COMMAND, folder, on_line, limits, on_start)
    if finished.status not in ANSWERS or not (folder / OFFER).exists():
        raise StageError("offer", finished.status, tuple(line for line in finished.lines if line.strip()))
    return read_offer(folder)


def read_offer(folder: Path) -> dict[str, Any]:
    """Return what the last run's offer came to; nothing where there was none."""
    return dict(read_json(folder / OFFER)) if (folder / OFFER).exists() else {}
