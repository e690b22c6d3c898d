"""The flow draws what the data set holds and what came: data/report.html, for people; a run does not depend on it."""

import sys
from collections.abc import Callable
from pathlib import Path

from flows.command import Limits, OnLine, run_lines

PAGE = Path("data/report.html")
COMMAND = (sys.executable, "-m", "tasks.data_report")


def draw(
    folder: Path, on_line: OnLine, limits: Limits | None = None, on_start: Callable[[int], None] | None = None
) -> bool:
    """Draw it in a process of its own; return whether that came to its end: its own line says why not."""
    return run_lines(COMMAND, folder, on_line, limits, on_start).status == 0
