"""When a run is saved, and the saving itself, in the background: the devices wait for a copy and not for the disk."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tasks.training.checkpoint import Checkpoint, CheckpointFolder


def warn_on_stderr(sentence: str) -> None:
    """Print a warning of the stage."""
    print(f"train: {sentence}", file=sys.stderr, flush=True)


class Saver:
    """Saves a run's state every so often, one save at a time, and goes on training where the disk refuses.

    Args:
        folder: Where checkpoints go.
        every_seconds: Work that a kill may cost.
        every_steps: The same in steps; None for seconds alone.
        mirror: Called in the background with each checkpoint's file.
        warn: Gets a sentence about what went wrong.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        every_seconds: float = 60,
        every_steps: int | None = None,
        mirror: Callable[[Path], None] | None = None,
        warn: Callable[[str], None] = warn_on_stderr,
    ) -> None:
        self.folder, self.every_seconds, self.every_steps = folder, every_seconds, every_steps
        self._mirror, self._warn = mirror, warn
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._last_time = time.monotonic()
        self.last: Path | None = None

    def load(self) -> Checkpoint | None:
        """Return the newest sound checkpoint and warn of the unsound ones."""
        checkpoint, self.last, problems = self.folder.load()
        for problem in problems:
            self._warn(problem)
        return checkpoint

    def due(self, step: int) -> bool:
        """Tell whether the state after `step` is to be saved."""
        by_steps = self.every_steps is not None and step % self.every_steps == 0
        return by_steps or time.monotonic() - self._last_time >= self.every_seconds

    def save(self, checkpoint: Checkpoint) -> None:
        """Save in the background, once the save before is on the disk: where that one is slow, training waits for it.

        The checkpoint's arrays must not change any more.
        """
        self.flush()
        self._last_time = time.monotonic()
        self._pending = self._writer.submit(self._write, checkpoint)

    def standing(self) -> str:
        """Tell which checkpoint stands, once what was given to save is on the disk."""
        self.flush()
        return f"the last good checkpoint is {self.last}" if self.last else "no checkpoint was saved"

    def flush(self) -> None:
        """Wait until what was given to save is on the disk."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def close(self) -> None:
        """Finish the save in progress and end the background thread."""
        self.flush()
        self._writer.shutdown()

    def _write(self, checkpoint: Checkpoint) -> None:
        if not checkpoint.is_finite():
            self._warn(f"step {checkpoint.step} is not saved: a weight or a moment is no finite number")
            return
        try:
            self.last = self.folder.save(checkpoint)
        except OSError as error:
            standing = f"the last good checkpoint is {self.last}" if self.last else "there is none before it"
            self._warn(f"step {checkpoint.step} could not be saved: {error.strerror or error}; {standing}")
            return
        if self._mirror:
            try:
                self._mirror(self.last)
            except Exception as error:  # the checkpoint stands, and a mirror must not end the run
                self._warn(f"step {checkpoint.step} could not be mirrored: {error}")
