"""`registry rebuild`: the commands that make a release again from what its manifest records.

    python -m tasks.registry rebuild champion | bash

Everything is in the commands: the commit, the parameters, the recorded dvc.lock, and last the sha256 that every file
must have. A manifest comes from outside, so nothing in it is ever a command: what is not of a known form goes into a
file, as text that the shell does not read, or is left out.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from tasks.registry.manifest import Manifest

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

TO_THE_ROOT = 'cd "$(git rev-parse --show-toplevel)"'
ACTIVATE = "source .venv/bin/activate"

# Where the stages leave the files that the release's id is derived from; labels.json is made when it is published.
PROOFS = {
    "metrics.json": "evaluation",
    "model.keras": "model",
    "probabilities.npy": "evaluation",
    "split.json": "data/split",
}


@dataclass(frozen=True)
class Step:
    """What some commands are for, in one line, and the commands, for a POSIX shell as they stand."""

    purpose: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Rebuild:
    """How a release is made again.

    Attributes:
        steps: In their order, all in one shell, from a clone of the repository.
        doubts: What cannot be promised, a sentence each; with none, equal data and an equal model are.
    """

    steps: tuple[Step, ...]
    doubts: tuple[str, ...]

    def script(self) -> str:
        """Return all of it as a script for bash."""
        lines = ["set -euo pipefail"]
        lines += [f"# NOT PROMISED: {doubt}" for doubt in self.doubts]
        for step in self.steps:
            lines += ["", f"# {step.purpose}", *step.commands]
        return "\n".join(lines)


def plan_rebuild(manifest: Manifest) -> Rebuild:
    """Return how to make a release again, and what its manifest does not allow to promise."""
    folder, commit = f".cache/rebuild-{manifest.id}", _commit(manifest)  # git and DVC ignore .cache
    checkout = (f"git checkout --quiet --detach {commit}",) if commit else ()
    parameters = _written("cat > params.yaml", _yaml(manifest.parameters))
    steps = [
        Step("the code", (TO_THE_ROOT, f"git clone --quiet . {folder}", f"cd {folder}", *checkout)),
        Step(f"its environment; that of the release: {_environment(manifest)}", ("make environment", ACTIVATE)),
        Step("its parameters, with every default", (parameters,)),
    ]
    if manifest.dvc_lock is not None:
        lock = _written("cat > dvc.lock", _yaml(manifest.dvc_lock))
        steps.append(Step("its hashes, which the next step must come to", (lock,)))
    steps += [
        Step(f"data, model and evaluation{_precision(manifest)}", ("python -m dvc repro evaluate",)),
        Step("the proof: equal data and an equal model", (_written("sha256sum --check --strict", _sums(manifest)),)),
    ]
    return Rebuild(tuple(steps), _doubts(manifest))


def _commit(manifest: Manifest) -> str | None:
    commit = str((manifest.git or {}).get("commit"))
    return commit if COMMIT.fullmatch(commit) else None


def _doubts(manifest: Manifest) -> tuple[str, ...]:
    """Return what cannot be promised of a rebuild."""
    doubts = []
    if _commit(manifest) is None:
        doubts.append("it was published outside a git repository, so nothing says which code made it")
    elif (manifest.git or {}).get("dirty") is not False:
        doubts.append("its working tree had uncommitted changes, so the commit is not all of the code that made it")
    if manifest.dvc_lock is None:
        doubts.append("it was published without a dvc.lock, so nothing says that its model came from these parameters")
    return tuple(doubts)


def _environment(manifest: Manifest) -> str:
    return _plain(", ".join(f"{name} {version}" for name, version in manifest.environment.items()))


def _precision(manifest: Manifest) -> str:
    precision = manifest.training.get("precision")
    return (
        f"; the same bits where it trains in {_plain(str(precision))} on the same kind of device" if precision else ""
    )


def _sums(manifest: Manifest) -> str:
    """Return the lines that sha256sum checks."""
    return "".join(
        f"{entry.sha256}  {PROOFS[entry.path]}/{entry.path}\n" for entry in manifest.files if entry.path in PROOFS
    )


def _plain(text: str) -> str:
    """Return text that cannot leave a comment."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _yaml(value: dict[str, Any]) -> str:
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = False, 4096
    yaml.dump(value, stream)
    return stream.getvalue()


def _written(command: str, text: str) -> str:
    """Return a command that reads text as it is; its end is a word that the text cannot hold, since it is its hash."""
    end = f"END-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    return f"{command} <<'{end}'\n{text}{end}"
