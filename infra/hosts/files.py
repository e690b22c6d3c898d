"""What the other hosts need of the chief's workspace: the code, and what dvc.yaml lists for the stage train."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from tasks.params.params import load_params
from tasks.stage.errors import InputError
from tasks.stage.files import sha256_of

STAGE = "train"
PARAMS_FILE = "params.yaml"
CODE_FOLDER = "tasks"  # dvc.yaml lists of it what decides a result; what the stage merely uses it imports too
CACHE_FOLDER = "__pycache__"


@dataclass(frozen=True)
class Entry:
    """A file: its path from the workspace with `/`, its size in bytes, its sha256."""

    path: str
    size: int
    sha256: str


class Digests:
    """The sha256 of files, computed again only for one whose size or time has changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def of(self, path: Path) -> str:
        """Return a file's sha256 in hexadecimal."""
        status = path.stat()
        mark = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._known.get(path)
        if known is None or known[0] != mark:
            self._known[path] = known = (mark, sha256_of(path))
        return known[1]


def list_files(workspace: Path, digests: Digests) -> list[Entry]:
    """Return what a host must have to train as the chief does: code, arrays, parameters.

    Raises:
        InputError: dvc.yaml has no stage train, or a file that it reads is missing.
    """
    entries = []
    for path in sorted(_paths(workspace)):
        file = workspace / path
        if not file.is_file():
            raise InputError(f"{file}, which the stage {STAGE} reads, is not there")
        entries.append(Entry(path, file.stat().st_size, digests.of(file)))
    return entries


def inside(path: str) -> bool:
    """Tell whether a path from another host stays in the folder that it is taken from."""
    parts = PurePosixPath(path)
    return bool(path) and not parts.is_absolute() and ".." not in parts.parts


def _paths(workspace: Path) -> set[str]:
    paths = {PARAMS_FILE}
    for dependency in (CODE_FOLDER, *_dependencies(workspace / "dvc.yaml")):
        target = workspace / dependency
        files = [file for file in target.rglob("*") if file.is_file()] if target.is_dir() else [target]
        paths |= {file.relative_to(workspace).as_posix() for file in files if CACHE_FOLDER not in file.parts}
    weights = load_params(workspace / PARAMS_FILE).recipe.model.weights
    return paths | ({weights} if inside(weights) and (workspace / weights).is_file() else set())


def _dependencies(file: Path) -> list[str]:
    document: Any = YAML(typ="safe").load(file) if file.is_file() else {}
    try:
        return [str(dependency) for dependency in document["stages"][STAGE]["deps"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} has no stage {STAGE} that lists what it reads") from error
