import io
import logging

import pytest
from prefect import flow_engine

from flows.console import StageConsole


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, *messages: str, path: str = __file__) -> str:
    """Return what the console prints of a task's messages."""
    console = StageConsole(stream)
    for message in messages:
        record = logging.LogRecord("prefect.task_runs", logging.INFO, path, 1, message, (), None)
        record.task_run_name = "train"
        console.emit(record)
    return stream.getvalue()


def test_lines_stand_under_their_stages_name() -> None:
    assert shown(io.StringIO(), "[ 10.0%] step 1", "done") == "train      [ 10.0%] step 1\ntrain      done\n"


def test_a_terminal_obeys_no_line_of_a_stage() -> None:
    assert shown(io.StringIO(), "class \x1b]0;owned\x07") == "train      class ?]0;owned?\n"


def test_progress_is_rewritten_on_a_terminal() -> None:
    text = shown(Terminal(), "[ 10.0%] step 1", "[ 20.0%] step 2", "done")
    assert text.count("\n") == 2
    assert text.endswith("step 2\ntrain      done\n")


@pytest.mark.parametrize(
    ("message", "is_shown"),
    [("Finished in state Completed()", False), ("Task run failed - Retry 1/3 will start 5 seconds from now", True)],
)
def test_of_prefects_own_words_only_retries_are_shown(message: str, is_shown: bool) -> None:
    assert bool(shown(io.StringIO(), message, path=str(flow_engine.__file__))) is is_shown
