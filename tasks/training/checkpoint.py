"""Checkpoints: complete or absent, under a fingerprint, so that a run resumes its own state and nobody else's."""

import errno
import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tasks.stage.files import sha256_of, sync

KEPT = 2
FACTS = "facts.json"
NOTE = "run.json"  # what the run is made of: tasks/training/unfinished.py

History = list[dict[str, float]]
Arrays = dict[str, list[NDArray[Any]]]


@dataclass
class Checkpoint:
    """All that a run needs to go on from a step, in the middle of an epoch too.

    Attributes:
        step: Steps finished.
        totals: Of the epoch in progress: the sums of loss and of right answers, and the images seen.
        history: One dict of metrics a finished epoch.
        arrays: Named groups of arrays: weights, optimizer, slow, averaged and best weights.
        machine: On which it was made (tasks/training/machine.py), once it was read; empty in older ones.
    """

    step: int = 0
    totals: tuple[float, float, float] = (0.0, 0.0, 0.0)
    history: History = field(default_factory=list)
    arrays: Arrays = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)

    def is_finite(self) -> bool:
        """Tell whether all arrays hold numbers, neither infinite nor none."""
        return all(np.isfinite(array).all() for group in self.arrays.values() for array in group)


class UnsoundError(Exception):
    """A file or an object is not the checkpoint that its name says; the text is a sentence."""


def fingerprint(facts: dict[str, Any], sources: dict[str, Path]) -> str:
    """Return a sha256 over what decides a run: facts (data hashes, recipe, seed, versions) and named source files."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, source in sorted(sources.items()):
        digest.update(f"{name} {sha256_of(source)}\n".encode())
    return digest.hexdigest()


class CheckpointFolder:
    """The checkpoints of one run, the last two kept; a file's name carries the sha256 of its bytes.

    Args:
        root: Folder of all runs' checkpoints.
        run: The run's fingerprint.
        machine: What is noted in each checkpoint of the machine that it is made on.
    """

    def __init__(self, root: Path, run: str, machine: dict[str, str] | None = None) -> None:
        self.run, self.path, self._machine = run, root / run[:16], machine or {}
        self._unsound: set[Path] = set()  # found so by load

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint and remove all but it and the one before it. Raises OSError where the disk refuses.

        The arrays go straight to the file, whose memory is then that of one array and not of a second checkpoint.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".step-{checkpoint.step:08d}.{os.getpid()}.tmp"
        try:
            with temporary.open("wb") as stream:
                hashed = _HashedStream(stream)
                np.savez(hashed, allow_pickle=False, **self._members(checkpoint))
            sync(temporary)
            path = self.path / f"step-{checkpoint.step:08d}-{hashed.digest.hexdigest()}.npz"
            temporary.rename(path)
            sync(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._unsound.discard(path)
        # Unsound ones, which this run went back behind, stay until it has overtaken them, and count for none.
        passed = [file for file in self.files() if file.name <= path.name]
        for old in {*passed} - {*[file for file in passed if file not in self._unsound][-KEPT:]}:
            old.unlink(missing_ok=True)
        return path

    def load(self) -> tuple[Checkpoint | None, Path | None, list[str]]:
        """Return the newest sound checkpoint and its file, or nothing, and a sentence for each one passed over."""
        problems: list[str] = []
        self._unsound.clear()
        for leftover in self.path.glob(".step-*.tmp"):
            leftover.unlink(missing_ok=True)
        for path in reversed(self.files()):
            try:
                if sha256_of(path) != path.stem.rpartition("-")[2]:
                    raise UnsoundError("does not match its sha256")
                with path.open("rb") as stream:
                    return self.read(stream), path, problems
            except UnsoundError as error:
                problems.append(f"checkpoint {path.name} {error} and is passed over")
            except OSError as error:
                if error.errno != errno.EIO:  # a bad sector stays bad; other troubles may pass, and nothing is lost
                    raise
                problems.append(f"checkpoint {path.name} cannot be read ({error.strerror}) and is passed over")
            self._unsound.add(path)
        return None, None, problems

    def newest_step(self) -> int:
        """Return the step of the newest sound checkpoint; -1 where there is none."""
        checkpoint, _, _ = self.load()
        return checkpoint.step if checkpoint else -1

    def newest_machine(self) -> dict[str, str]:
        """Return what the newest sound checkpoint notes of its machine; nothing where there is none."""
        checkpoint, _, _ = self.load()
        return checkpoint.machine if checkpoint else {}

    def read(self, stream: IO[bytes]) -> Checkpoint:
        """Return the checkpoint that a stream holds; raises UnsoundError for anything but this run's."""
        try:
            with np.load(stream, allow_pickle=False) as archive:
                facts = json.loads(archive[FACTS].tobytes())
                if facts["run"] != self.run:
                    raise UnsoundError("belongs to another run")
                groups = {
                    name: [archive[f"{name}/{i:05d}"] for i in range(count)] for name, count in facts["groups"].items()
                }
                loss, right, seen = facts["totals"]
                machine = dict(facts.get("machine", {}))
                return Checkpoint(facts["step"], (loss, right, seen), facts["history"], groups, machine)
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise UnsoundError("is not a checkpoint") from error

    def remove(self) -> None:
        """Remove the run's checkpoints and its note; its result is written."""
        for path in [*self.files(), self.path / NOTE]:
            path.unlink(missing_ok=True)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def files(self) -> list[Path]:
        """Return the checkpoints' files, oldest first."""
        return sorted(self.path.glob("step-*.npz"))

    def _members(self, checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
        facts = {
            "run": self.run,
            "step": checkpoint.step,
            "totals": checkpoint.totals,
            "history": checkpoint.history,
            "machine": self._machine,
            "groups": {name: len(group) for name, group in checkpoint.arrays.items()},
        }
        members = {FACTS: np.frombuffer(json.dumps(facts).encode(), np.uint8)}
        for name, group in checkpoint.arrays.items():
            members.update({f"{name}/{index:05d}": array for index, array in enumerate(group)})
        return members


class _HashedStream(io.RawIOBase):
    """Passes what is written on to a stream and hashes it; it cannot seek, so that a zip file never goes back."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.digest = stream, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._stream.write(data)
