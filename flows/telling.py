"""Whatever becomes of a run, its end is told: an event to Prefect, and metrics to the file that monitoring reads."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prefect import get_run_logger

from flows.conclusion import Conclusion, Ending, conclude
from flows.events import announce
from flows.failures import StepError
from flows.interrupted import is_transient
from flows.monitoring import record_run
from flows.stages import StageResult


@dataclass
class Run:
    """What is known of a run while it goes on: `results` grow stage by stage."""

    folder: Path
    results: list[StageResult] = field(default_factory=list)
    conclusion: Conclusion | None = None

    def conclude(self) -> Conclusion:
        """Say what the stages came to, and tell it at once: what follows may fail."""
        return self._tell(conclude(self.results, self.folder))

    def end_untrained(self, why: str) -> Conclusion:
        """Say that what came is no reason to train, and why."""
        return self._tell(Conclusion(Ending.NOT_NEEDED, why))

    def _tell(self, conclusion: Conclusion) -> Conclusion:
        self.conclusion = conclusion
        get_run_logger().info("%s: %s", self.conclusion.ending, self.conclusion.message)
        announce(self.conclusion, self.folder)
        return self.conclusion


@contextlib.contextmanager
def told(folder: Path) -> Iterator[Run]:
    """Tell how the run in this block ended, with an exception or without."""
    run, start, warn = Run(folder), time.time(), get_run_logger().warning
    try:
        yield run
    except Exception as error:
        sentence = error.sentence if isinstance(error, StepError) else str(error)
        ending = Ending.INTERRUPTED if is_transient(error) else Ending.FAILED
        failure = Conclusion(ending, sentence or type(error).__name__)
        announce(failure, folder)
        record_run(failure, run.results, start, folder, warn)
        raise
    except BaseException:
        record_run(Conclusion(Ending.STOPPED, "stopped"), run.results, start, folder, warn)
        raise
    record_run(run.conclusion or Conclusion(Ending.COMPLETED, ""), run.results, start, folder, warn)
