"""Checkpoints: complete or absent, under a fingerprint, so that a run resumes its own state and nobody else's."""

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.files import replaced_file, sha256_of

KEPT = 2
FACTS = "facts.json"

History = list[dict[str, float]]


@dataclass
class Checkpoint:
    """All that a run needs to go on from the end of an epoch.

    Attributes:
        epoch: Epochs finished.
        step: Steps finished.
        history: One dict of metrics an epoch.
        arrays: Named groups of arrays: weights, optimizer, slow and best weights.
    """

    epoch: int
    step: int
    history: History
    arrays: dict[str, list[NDArray[Any]]] = field(default_factory=dict)


def fingerprint(facts: dict[str, Any], sources: list[Path]) -> str:
    """Return a sha256 over what decides a run: facts (data hashes, recipe, seed, versions) and source files."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for source in sorted(sources):
        digest.update(f"{source.as_posix()} {sha256_of(source)}\n".encode())
    return digest.hexdigest()


class CheckpointFolder:
    """The checkpoints of one run, the last two kept; a file's name carries the sha256 of its bytes.

    Args:
        root: Folder of all runs' checkpoints.
        run: The run's fingerprint.
    """

    def __init__(self, root: Path, run: str) -> None:
        self.path = root / run[:16]

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint and remove all but the last two. Raises OSError where the disk refuses."""
        buffer = io.BytesIO()
        facts = {"epoch": checkpoint.epoch, "step": checkpoint.step, "history": checkpoint.history}
        facts["groups"] = {name: len(group) for name, group in checkpoint.arrays.items()}
        members: dict[str, Any] = {FACTS: np.frombuffer(json.dumps(facts).encode(), np.uint8)}
        for name, group in checkpoint.arrays.items():
            members.update({f"{name}/{index:05d}": array for index, array in enumerate(group)})
        np.savez(buffer, **members)
        data = buffer.getvalue()
        path = self.path / f"step-{checkpoint.step:08d}-{hashlib.sha256(data).hexdigest()}.npz"
        with replaced_file(path) as temporary:
            temporary.write_bytes(data)
        for old in self._files()[:-KEPT]:
            old.unlink()
        return path

    def load(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest sound checkpoint, or nothing, and a sentence for each unsound one that was passed over."""
        problems: list[str] = []
        for path in reversed(self._files()):
            if sha256_of(path) == path.stem.rpartition("-")[2]:
                return self._read(path), problems
            problems.append(f"{path.name} does not match its sha256 and is passed over")
        return None, problems

    def remove(self) -> None:
        """Remove the run's checkpoints; its result is written."""
        for path in self._files():
            path.unlink()
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("step-*.npz"))

    def _read(self, path: Path) -> Checkpoint:
        with np.load(path, allow_pickle=False) as archive:
            facts = json.loads(archive[FACTS].tobytes())
            groups = {
                name: [archive[f"{name}/{i:05d}"] for i in range(count)] for name, count in facts["groups"].items()
            }
        return Checkpoint(facts["epoch"], facts["step"], facts["history"], groups)
