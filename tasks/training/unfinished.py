"""What an unfinished run was made of, kept beside its checkpoints, so that a run that cannot use them says why.

Checkpoints that no run goes on from stay for a while: whoever takes a change back goes on with them.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.stage.files import sha256_of, write_json
from tasks.training.checkpoint import NOTE, CheckpointFolder

KEPT_RUNS = 5  # that others left unfinished
NAMED = 3  # differences of a kind; the others are counted

Makings = dict[str, Any]


@dataclass(frozen=True)
class Unfinished:
    """A run that has checkpoints and no result: what it was made of, its newest step, and when it last saved."""

    makings: Makings
    step: int
    saved: datetime


def note_makings(
    folder: CheckpointFolder,
    facts: dict[str, Any],
    sources: dict[str, Path],
    stored_elsewhere: Callable[[], tuple[bytes, int, datetime] | None],
) -> str | None:
    """Write what a run is made of beside its checkpoints, and remove those of runs long ago.

    Args:
        folder: The run's.
        facts: What its fingerprint is made of, with `versions` of TensorFlow, Keras and NumPy.
        sources: Its code by name.
        stored_elsewhere: Gives note, newest step and time of a run that is unfinished elsewhere; asked where none is
            here.

    Returns:
        Why the run begins anew, where another one left checkpoints; nothing where it goes on with its own.

    Raises:
        OSError: The disk refused.
    """
    root, sentence = folder.path.parent, None
    makings = {
        **facts,
        "versions": dict(zip(("tensorflow", "keras", "numpy"), facts["versions"], strict=True)),
        "code": {f"tasks/{name}": sha256_of(source) for name, source in sources.items()},
    }
    if not folder.files():
        other = newest_other(root, folder.path)
        if other is None and (stored := stored_elsewhere()) is not None:
            other = parse(*stored)
        sentence = None if other is None else why_anew(other, makings)
    remove_old(root, folder.path)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(folder.path / NOTE, makings)
    return sentence


def newest_other(root: Path, own: Path) -> Unfinished | None:
    """Return the unfinished run among those of `root` that saved last, but for one's own folder."""
    found = [run for folder in _others(root, own) if (run := _read(folder)) is not None]
    return max(found, key=lambda run: run.saved, default=None)


def remove_old(root: Path, own: Path) -> None:
    """Remove the checkpoints of all other runs but the KEPT_RUNS that were at work last."""
    for folder in sorted(_others(root, own), key=_last_change, reverse=True)[KEPT_RUNS:]:
        shutil.rmtree(folder, ignore_errors=True)  # another process may do the same


def why_anew(other: Unfinished, makings: Makings) -> str:
    """Return a sentence about why a run begins anew, although another one left checkpoints."""
    saved = f"{other.saved.astimezone():%Y-%m-%d %H:%M}"
    reasons = "; ".join(_differences(other.makings, makings)) or "how its checkpoints are made"
    return f"begins anew: the run that stopped after step {other.step} ({saved}) differs in: {reasons}"


def parse(text: bytes, step: int, saved: datetime) -> Unfinished | None:
    """Return the run of a note; nothing where that cannot be read."""
    try:
        return Unfinished(dict(json.loads(text)), step, saved)
    except (ValueError, TypeError):
        return None


def _others(root: Path, own: Path) -> Iterator[Path]:
    return (folder for folder in root.glob("*") if folder.is_dir() and folder != own)


def _read(folder: Path) -> Unfinished | None:
    """Return the run of a folder; nothing where it never saved, or left no readable note."""
    checkpoints = sorted(folder.glob("step-*.npz"))
    if not checkpoints:
        return None
    try:
        saved = datetime.fromtimestamp(checkpoints[-1].stat().st_mtime, UTC)
        return parse((folder / NOTE).read_bytes(), int(checkpoints[-1].name.split("-")[1]), saved)
    except OSError:
        return None


def _last_change(folder: Path) -> float:
    return max((path.stat().st_mtime for path in [folder, *folder.glob("step-*.npz")]), default=0.0)


def _differences(before: Makings, now: Makings) -> list[str]:
    """Return what differs, by its kind: the data, the recipe's settings, the seed, the precision, versions, files."""
    reasons = []
    for kind in sorted({*before, *now}):
        old, new = before.get(kind), now.get(kind)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            reasons.append(f"{kind} ({_named(_changed(old, new))})")
        else:
            reasons.append(kind if kind == "data" or isinstance(old or new, dict) else f"{kind} ({old} → {new})")
    return reasons


def _changed(old: Makings, new: Makings, prefix: str = "") -> list[str]:
    """Return the dotted names of what differs in two nested mappings."""
    names = []
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            names += _changed(before, now, f"{prefix}{name}.")
        elif before != now:
            names.append(f"{prefix}{name}")
    return names


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
