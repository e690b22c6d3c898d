"""A save's parts: the copy of the state that stops the steps, the write and the upload that run beside them.

The object store is that of the AWS_* variables.
"""

import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sides.ours import build_trainer
from benchmarks.sides.serve import serve
from infra.local.object_store import BUCKET
from tasks.s3.client import connect
from tasks.training.checkpoint import Checkpoint, CheckpointFolder
from tasks.training.lookahead import Lookahead
from tasks.training.remote_checkpoints import RemoteCheckpoints
from tasks.training.state import capture


def make(case: dict[str, Any]) -> Callable[[], None]:
    """Return a round of the case's `part`: `copy`, `write` or `upload`."""
    trainer = build_trainer(case)
    trainer.train_one_epoch()
    average = trainer.recipe.lookahead
    lookahead = Lookahead(average, trainer.model, trainer.total_steps) if average else None
    best = trainer.model.get_weights() if trainer.recipe.select == "best" else []

    def copy() -> Checkpoint:
        return Checkpoint(1, (0.0, 0.0, 0.0), [], capture(trainer.model, trainer.optimizer, lookahead, None, best))

    if case["part"] == "copy":
        return lambda: (copy(), None)[1]
    temporary, state = tempfile.TemporaryDirectory(), copy()
    folder = CheckpointFolder(Path(temporary.name), "0" * 64)
    if case["part"] == "upload":
        saved, remote = folder.save(state), RemoteCheckpoints(f"s3://{BUCKET}/checkpoints", uuid.uuid4().hex, connect())

    def write_or_upload(_: object = temporary) -> None:  # which goes with this program
        if case["part"] == "write":
            folder.save(state)
        else:
            remote.store(saved)

    return write_or_upload


if __name__ == "__main__":
    serve(make)
