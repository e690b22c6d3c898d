"""A save's parts: the copy of the state that stops the steps, the write and the upload that run beside them."""

import atexit
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sides.ours import build_trainer
from benchmarks.sides.serve import serve
from infra.local.object_store import ObjectStore
from tasks.storage.checkpoints import RemoteCheckpoints
from tasks.storage.client import connect
from tasks.training.checkpoint import Checkpoint, CheckpointFolder
from tasks.training.lookahead import Lookahead
from tasks.training.state import capture


def make(case: dict[str, Any]) -> Callable[[], None]:
    """Return a round of the case's `part`: `copy`, `write` or `upload`."""
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

    if case["part"] == "upload":
        return upload_of(folder.save(state), temporary)

    def write(_: object = temporary) -> None:  # which goes with this program
        folder.save(state)

    return write


def upload_of(checkpoint: Path, temporary: tempfile.TemporaryDirectory[str]) -> Callable[[], None]:
    """Return a round that stores a checkpoint in an object store of its own, which ends with this program."""
    store = ObjectStore(Path(temporary.name) / "object_store")
    store.start()
    atexit.register(store.stop)
    remote = RemoteCheckpoints(f"s3://{store.bucket}/checkpoints", "0" * 64, connect(store.environment))

    def upload(_: object = temporary) -> None:  # which goes with this program
        remote.store(checkpoint)

    return upload


if __name__ == "__main__":
    serve(make)
