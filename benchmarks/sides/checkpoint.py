"""A save's two parts: the copy of the state that stops the steps, or the write that runs beside them."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sides.ours import build_trainer
from benchmarks.sides.serve import serve
from tasks.training.checkpoint import Checkpoint, CheckpointFolder
from tasks.training.lookahead import Lookahead
from tasks.training.state import capture


def make(case: dict[str, Any]) -> Callable[[], None]:
    """Return a round of the case's `part`: `copy` or `write`."""
    trainer = build_trainer(case)
    trainer.train_one_epoch()
    average = trainer.recipe.lookahead
    lookahead = Lookahead(average, trainer.model, trainer.total_steps) if average else None
    best = trainer.model.get_weights() if trainer.recipe.select == "best" else []

    def copy() -> Checkpoint:
        return Checkpoint(1, (0.0, 0.0, 0.0), [], capture(trainer.model, trainer.optimizer, lookahead, best))

    if case["part"] == "copy":
        return lambda: (copy(), None)[1]
    temporary, state = tempfile.TemporaryDirectory(), copy()
    folder = CheckpointFolder(Path(temporary.name), "0" * 64)

    def write(_: object = temporary) -> None:  # which goes with this program
        folder.save(state)

    return write


if __name__ == "__main__":
    serve(make)
