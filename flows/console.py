"""A flow run on a terminal: each stage's lines under its name, progress on one line, nothing about Prefect itself."""

import logging
import sys
from pathlib import Path
from typing import TextIO

import prefect
from prefect.logging.configuration import setup_logging

from flows.stages import parse_progress
from tasks.stage.shown import printable

RUNS = ("prefect.flow_runs", "prefect.task_runs")
ENGINE = str(Path(prefect.__file__).parent)
NAME_WIDTH = 10


class StageConsole(logging.Handler):
    """Prints what stages say; of what Prefect's engine says, only that it tries again."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._rewriting = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; a share of work takes the place of the last one on a terminal."""
        message = printable(record.getMessage())
        if record.name.startswith(RUNS) and record.pathname.startswith(ENGINE) and "Retry" not in message:
            return
        text = f"{getattr(record, 'task_run_name', None) or '':<{NAME_WIDTH}} {message}"
        rewriting = self._terminal and parse_progress(message) is not None
        if rewriting:
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)
        else:
            print("\n" * self._rewriting + text, file=self._stream, flush=True)
        self._rewriting = rewriting


def use_stage_console() -> None:
    """Put the console in the place of Prefect's; the records still go to the Prefect server."""
    setup_logging()
    logging.getLogger().handlers = [StageConsole()]
    for name in RUNS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("prefect").setLevel(logging.WARNING)
