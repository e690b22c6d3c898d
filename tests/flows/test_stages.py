import signal
from pathlib import Path

import pytest

from flows.command import Limits
from flows.stages import Outcome, StageError, parse_progress, read_stages, run_stage
from infra.process_group import group_lives
from tasks.stage.errors import InputError
from tests.fixtures.dvc_project import MAKE, REPOSITORY


def silent(_line: str) -> None:
    """Swallow a line."""


def test_own_stages_run_in_the_order_of_the_data() -> None:
    assert read_stages(REPOSITORY) == ["download", "split", "weights", "train", "evaluate", "publish"]


def test_order_is_the_dags_and_not_the_files(project: Path) -> None:
    assert read_stages(project) == ["make", "report"]


def test_stage_added_to_dvc_yaml_is_picked_up(project: Path) -> None:
    text = (project / "dvc.yaml").read_text()
    between = "  check:\n    cmd: cp -r made checked\n    deps: [made]\n    outs: [checked]\n"
    text = text.replace("stages:\n", f"stages:\n{between}").replace("[report.py, made]", "[report.py, made, checked]")
    (project / "dvc.yaml").write_text(text)
    assert read_stages(project) == ["make", "check", "report"]


def test_stage_of_a_folder_is_called_as_dvc_calls_it(project: Path) -> None:
    (project / "extra").mkdir()
    (project / "extra/dvc.yaml").write_text(
        "stages:\n  copy:\n    cmd: cp -r ../made here\n    deps: [../made]\n    outs: [here]\n"
    )
    assert "extra/dvc.yaml:copy" in read_stages(project)
    run_stage("make", project, silent)
    assert run_stage("extra/dvc.yaml:copy", project, silent).outcome is Outcome.RAN
    assert run_stage("extra/dvc.yaml:copy", project, silent).outcome is Outcome.UNCHANGED


def test_unreadable_dag_is_one_sentence(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages:\n  make:\n    command: none\n")
    with pytest.raises(InputError, match=r"dvc\.yaml"):
        read_stages(project)


def test_stage_runs_then_is_unchanged_then_is_restored(project: Path) -> None:
    lines: list[str] = []
    assert run_stage("make", project, lines.append).outcome is Outcome.RAN
    assert "[ 50.0%] step 1" in lines
    assert run_stage("make", project, silent).outcome is Outcome.UNCHANGED
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("  seed: 0", "  seed: 5", 1))
    assert run_stage("make", project, silent).outcome is Outcome.RAN
    (project / "params.yaml").write_text(params)
    assert run_stage("make", project, silent).outcome is Outcome.RESTORED


def test_dvcs_advice_is_left_out(project: Path) -> None:
    lines: list[str] = []
    run_stage("make", project, lines.append)
    assert not [line for line in lines if "git add" in line or "dvc push" in line or "Updating lock" in line]


def fail(project: Path, script: str) -> StageError:
    """Let stage `make` run once, then replace its script and return how the stage failed."""
    run_stage("make", project, silent)
    (project / "make.py").write_text(script)
    with pytest.raises(StageError) as caught:
        run_stage("make", project, silent)
    return caught.value


def test_failure_carries_the_stages_own_status_and_last_lines(project: Path) -> None:
    error = fail(project, "import sys\nprint('working')\nsys.exit('make: the archive is empty')")
    assert (error.stage, error.status, error.is_final) == ("make", 1, False)
    assert error.lines == ("working", "make: the archive is empty")
    assert error.sentence == "stage make failed with exit status 1: make: the archive is empty"
    assert "working" in str(error)


def test_bad_input_is_final(project: Path) -> None:
    error = fail(project, "import sys\nprint('make: no such recipe', file=sys.stderr)\nsys.exit(2)")
    assert error.status == 2
    assert error.is_final


@pytest.mark.parametrize("script", ["python killed.py", "python killed.py; exit $?"])
def test_a_stage_that_a_signal_killed_may_pass(project: Path, script: str) -> None:
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("cmd: python make.py", f"cmd: {script}"))
    (project / "killed.py").write_text("import os\nprint('working', flush=True)\nos.kill(os.getpid(), 9)")
    with pytest.raises(StageError) as caught:
        run_stage("make", project, silent)
    assert caught.value.is_killed
    assert caught.value.sentence.startswith("stage make was killed by signal 9, perhaps for want of memory: ")


def test_dvc_that_was_killed_itself_may_pass(project: Path) -> None:
    (project / "make.py").write_text("import os\nos.kill(int(os.environ['DVC_PROCESS']), 9)")
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("cmd: python make.py", "cmd: DVC_PROCESS=$PPID python make.py"))
    with pytest.raises(StageError) as caught:
        run_stage("make", project, silent)
    assert caught.value.status == -9
    assert caught.value.is_transient


def test_failure_before_the_stage_runs_shows_dvcs_words(project: Path) -> None:
    (project / "make.py").unlink()
    with pytest.raises(StageError) as caught:
        run_stage("make", project, silent)
    assert caught.value.status is None
    assert "make.py" in caught.value.sentence


def test_failed_stage_leaves_what_stood_there_before(project: Path) -> None:
    fail(project, "import os\nos.makedirs('made')\nopen('made/half', 'w').close()\nraise SystemExit(1)")
    assert sorted(path.name for path in (project / "made").iterdir()) == ["more.txt", "numbers.txt"]


def test_stage_that_takes_too_long_is_stopped_and_undone(project: Path) -> None:
    run_stage("make", project, silent)
    (project / "make.py").write_text("import time\nprint('slow', flush=True)\ntime.sleep(600)")
    groups: list[int] = []
    with pytest.raises(StageError, match="longer than 5 s"):
        run_stage("make", project, silent, Limits(5, 5), groups.append)
    assert not group_lives(groups[0])
    assert (project / "made/numbers.txt").exists()


def test_interrupted_stage_is_stopped_and_undone(project: Path) -> None:
    run_stage("make", project, silent)
    (project / "make.py").write_text("import time\nprint('slow', flush=True)\ntime.sleep(600)")
    groups: list[int] = []

    def interrupt(line: str) -> None:
        if line == "slow":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_stage("make", project, interrupt, on_start=groups.append)
    assert not group_lives(groups[0])
    assert (project / "made/numbers.txt").exists()
    (project / "make.py").write_text(MAKE)
    assert run_stage("make", project, silent).outcome is Outcome.UNCHANGED  # no lock of the stopped one is in the way


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("[ 37.5%] epoch 4/10", (37.5, "epoch 4/10")),
        ("[100.0%] done", (100.0, "done")),
        ("[  0.0%]", (0.0, "")),
        ("epoch 4/10 [ 37.5%]", None),
        ("[INFO] reading", None),
    ],
)
def test_progress_is_read_from_the_beginning_of_a_line(line: str, progress: tuple[float, str] | None) -> None:
    assert parse_progress(line) == progress


def test_progress_reads_what_stages_print() -> None:
    from tasks.stage.progress import Progress  # noqa: PLC0415

    shown = Progress(total=8, unit="images")
    shown.done = 3
    assert parse_progress(shown.line("split")) is not None
    assert parse_progress(shown.line("split"))[0] == 37.5  # type: ignore[index]
