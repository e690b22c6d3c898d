"""The stages of dvc.yaml: their order, and how one is run, watched, stopped and, where it fails, undone."""

import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from flows.command import CommandTimeoutError, Finished, Limits, OnLine, run_lines
from flows.failures import StepError
from tasks.stage.errors import BAD_INPUT_STATUS, OUTAGE_STATUS, RESUMABLE_STATUS, InputError

DVC = (sys.executable, "-m", "dvc")
SHARE = re.compile(r"\[ *(\d+(?:\.\d+)?)%\] ?(.*)")  # as tasks/stage/progress.py prints it
FAILED_COMMAND = re.compile(r"failed to run: .*, exited with (-?\d+)$")
SHELL_SIGNALS = range(128 + 1, 128 + 32)  # a shell's statuses for a command that a signal killed

# What DVC advises after a stage; a person who watches a flow has no use for it.
ADVICE = (
    "To track the changes with git, run:",
    "To enable auto staging, run:",
    "Use `dvc push` to send your updates",
    "Data and pipelines are up to date.",
    "Updating lock file ",
    "Generating lock file ",
    "\tgit add ",
    "\tdvc config core.autostage",
)


class Outcome(StrEnum):
    """What `dvc repro` did with a stage."""

    RAN = "ran"
    UNCHANGED = "unchanged"
    RESTORED = "restored from an earlier run"


@dataclass(frozen=True)
class StageResult:
    """What became of a stage and how long it took."""

    name: str
    outcome: Outcome
    seconds: float


class StageError(StepError):
    """A stage failed: which one, its last lines, and its exit status.

    The status is negative where a signal killed the stage or DVC, None where DVC never ran it or it took too long.
    """

    def __init__(self, stage: str, status: int | None, lines: tuple[str, ...], reason: str = "") -> None:
        self.stage, self.status, self.lines = stage, status, lines
        how = reason or _how(status)
        self.sentence = f"stage {stage} {how}" + (f": {lines[-1]}" if lines else "")
        self.reason = lines[-1] if lines else self.sentence
        super().__init__("\n  ".join([f"stage {stage} {how}{'; its last lines:' if lines else ''}", *lines]))

    def __reduce__(self) -> tuple[type, tuple[str, int | None, tuple[str, ...]]]:
        return type(self), (self.stage, self.status, self.lines)

    @property
    def is_final(self) -> bool:
        """Whether another try would end the same way: a stage said that its input is wrong."""
        return self.status == BAD_INPUT_STATUS

    @property
    def is_resumable(self) -> bool:
        """Whether the stage saved its work and another try goes on with it: a host was lost, or it was told to stop."""
        return self.status == RESUMABLE_STATUS

    @property
    def is_killed(self) -> bool:
        """Whether a signal ended the stage, as where memory ran out."""
        return self.status is not None and (self.status < 0 or self.status in SHELL_SIGNALS)

    @property
    def is_outage(self) -> bool:
        """Whether the stage says that something it needs is away for now."""
        return self.status == OUTAGE_STATUS

    @property
    def passes_soon(self) -> bool:
        """Whether another try may succeed at once: it was killed, or goes on from what it saved."""
        return self.is_killed or self.is_resumable


def _how(status: int | None) -> str:
    if status is None:
        return "failed in DVC, outside its own command"
    number = -status if status < 0 else status - SHELL_SIGNALS.start + 1
    if status < 0 or status in SHELL_SIGNALS:
        return f"was killed by signal {number}" + (", perhaps for want of memory" if number == signal.SIGKILL else "")
    return f"failed with exit status {status}"


def read_stages(folder: Path) -> list[str]:
    """Return the names of the stages of dvc.yaml, each after those whose outputs it reads.

    Raises:
        InputError: DVC cannot read the project; the text is DVC's own.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - DVC takes a second to import
    from dvc.repo import Repo  # noqa: PLC0415
    from dvc.repo.reproduce import plan_repro  # noqa: PLC0415

    try:
        with Repo(str(folder)) as repo:
            root = Path(repo.root_dir)
            return [address_of(stage.path, stage.name, root) for stage in plan_repro(repo.index.graph) if stage.cmd]
    except DvcException as error:
        raise InputError(f"DVC cannot read {folder / 'dvc.yaml'}: {' '.join(str(error).split())}") from error


def is_unchanged(name: str, folder: Path) -> bool:
    """Return whether `dvc repro` would leave a stage alone; a process of its own takes five times as long to say so.

    Where DVC cannot tell, as while a person's DVC holds its lock, `dvc repro` has the word.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - DVC takes a second to import
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(folder)) as repo, repo.lock:
            return not find_stage(repo, name).changed()
    except DvcException:
        return False


def find_stage(repo: Any, name: str) -> Any:
    """Return DVC's own stage of that name; repo is a `dvc.repo.Repo`, whose types DVC does not give."""
    root = Path(repo.root_dir)
    return next(stage for stage in repo.index.stages if stage.cmd and address_of(stage.path, stage.name, root) == name)


def run_stage(
    name: str,
    folder: Path,
    on_line: OnLine,
    limits: Limits | None = None,
    on_start: Callable[[int], None] | None = None,
    *,
    force: bool = False,
) -> StageResult:
    """Bring one stage up to date with `dvc repro --single-item`.

    DVC deletes a stage's outputs before it runs the stage. Where the stage then fails or is stopped, what stood there
    before is put back from DVC's cache.

    Args:
        name: The stage's name in dvc.yaml.
        folder: The DVC project.
        on_line: Called with each line that DVC and the stage print.
        limits: How long the stage may take, and how long it may save its work when it is stopped.
        on_start: Called with the number of the stage's process group.
        force: Run it although nothing changed.

    Raises:
        StageError: The stage failed or took too long.
    """
    start = time.monotonic()
    outcomes: list[Outcome] = []

    def watch(line: str) -> None:
        if outcome := _outcome(name, line):
            outcomes.append(outcome)
        elif line and not line.startswith(ADVICE):
            on_line(line)

    try:
        command = [*DVC, "repro", "--single-item", *(["--force"] if force else []), name]
        finished = run_lines(command, folder, watch, limits, on_start)
        if finished.status != 0:
            raise _failure(name, finished)
    except CommandTimeoutError as error:
        restore(name, folder, on_line)
        raise StageError(name, None, (), str(error)) from error
    except BaseException:
        restore(name, folder, on_line)
        raise
    return StageResult(name, outcomes[-1] if outcomes else Outcome.RAN, time.monotonic() - start)


def restore(name: str, folder: Path, on_line: OnLine) -> None:
    """Put back the outputs that dvc.lock records for a stage; a stage that never succeeded has none."""
    file, _, key = name.rpartition(":")
    lock = (folder / (file or "dvc.yaml")).with_name("dvc.lock")
    if lock.exists() and re.search(rf"^  {re.escape(key)}:$", lock.read_text(encoding="utf-8"), re.MULTILINE):
        finished = run_lines([*DVC, "checkout", "--quiet", "--force", name], folder, lambda _: None)
        if finished.status != 0:
            on_line(f"the former outputs of {name} could not be put back: {' '.join(finished.lines)}")


def parse_progress(line: str) -> tuple[float, str] | None:
    """Return the percentage and the text of a line like `[ 37.5%] epoch 4/10 …`; None for any other line."""
    match = SHARE.match(line)
    return (float(match[1]), match[2]) if match else None


def address_of(file: str, name: str, root: Path) -> str:
    """Return how `dvc repro` calls a stage: its name, after its file where that is not the project's own dvc.yaml."""
    relative = Path(file).relative_to(root)
    return name if relative == Path("dvc.yaml") else f"{relative}:{name}"


def _outcome(name: str, line: str) -> Outcome | None:
    """Tell from one of DVC's lines what it does with the stage."""
    words = {
        f"Stage '{name}' didn't change, skipping": Outcome.UNCHANGED,
        f"Stage '{name}' is cached - skipping run, checking out outputs": Outcome.RESTORED,
        f"Running stage '{name}':": Outcome.RAN,
    }
    return words.get(line.strip())


def _failure(name: str, finished: Finished) -> StageError:
    """Tell the stage's own exit status and words from DVC's: DVC exits with 255 whatever the stage said."""
    statuses = [int(match[1]) for line in finished.lines if (match := FAILED_COMMAND.search(line))]
    if not statuses:
        status = finished.status if finished.status < 0 else None  # DVC itself was killed
        return StageError(name, status, tuple(line for line in finished.lines if line.strip()))
    own = (
        line for line in finished.lines if not line.startswith(("Running stage", "> ", "ERROR: failed to reproduce"))
    )
    return StageError(name, statuses[-1], tuple(line for line in own if line.strip()))
