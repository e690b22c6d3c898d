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
