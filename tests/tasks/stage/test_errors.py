import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.stage.errors import InputError, OutageError, ResumableError, run_command


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "sentence", "status"),
    [
        (InputError("the archive is cut short"), "split: the archive is cut short\n", 2),
        (OutageError("the object store is away"), "split: the object store is away\n", 69),
        (ResumableError("stopped and saved"), "split: stopped and saved\n", 75),
        (OSError(28, "No space left on device", "data/split"), "split: No space left on device (data/split)\n", 2),
        (KeyboardInterrupt(), "split: interrupted\n", 130),
    ],
)
def test_a_person_reads_one_sentence(
    capsys: pytest.CaptureFixture[str], error: BaseException, sentence: str, status: int
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command("split", lambda: raises(error))
    assert ended.value.code == status
    assert capsys.readouterr().err == sentence


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command("split", lambda: raises(ZeroDivisionError()))


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    run_command("split", lambda: None)
    assert capsys.readouterr() == ("", "")


def end_of(*words: str, reader: str = "", errors: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command that is made of these statements in a shell, its output read by another program."""
    program = f"from tasks.stage.errors import *\ndef body():\n  {'; '.join(words)}\nrun_command('list', body)"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$0" -c "$1" {errors} {reader}', sys.executable, program],
        cwd=Path(__file__).parents[3],
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("import time", "print('one', flush=True)", "time.sleep(1)", "print('two')"),  # told when Python ends
        ("print('one')", "[print('line', number) for number in range(100_000)]"),  # told in the middle
        ("import time", "print('one', flush=True)", "time.sleep(1)", "print('two', flush=True)"),
    ],
)
@pytest.mark.parametrize("errors", ["", "2>&1"])
def test_a_reader_that_has_read_enough_ends_the_command_quietly(words: tuple[str, ...], errors: str) -> None:
    done = end_of(*words, reader="| head -n 1", errors=errors)
    assert (done.returncode, done.stdout, done.stderr) == (141, "one\n", "")


def test_a_sentence_is_said_though_nobody_reads_the_output() -> None:
    words = ("import time", "print('one', flush=True)", "time.sleep(1)", "print('two')", "raise InputError('wrong')")
    done = end_of(*words, reader="| head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (2, "one\n", "list: wrong\n")


def test_a_status_of_its_own_is_kept_though_nobody_reads_the_output() -> None:
    words = ("import time", "print('one', flush=True)", "time.sleep(1)", "print('two')", "raise SystemExit(1)")
    done = end_of(*words, reader="| head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "one\n", "")


def test_a_pipe_to_somebody_else_that_breaks_is_an_error() -> None:
    done = end_of("raise BrokenPipeError(32, 'Broken pipe')", reader="| cat")
    assert (done.returncode, done.stderr) == (2, "list: Broken pipe\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has such a device")
def test_an_output_that_has_no_room_is_one_sentence() -> None:
    done = end_of("print('one')", reader="> /dev/full")
    assert (done.returncode, done.stderr) == (2, "list: No space left on device\n")


def test_a_command_without_an_output_goes_on() -> None:
    assert end_of("print('one')", reader=">&-").returncode == 0
