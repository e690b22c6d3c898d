"""What a clock or a machine decides about a stage's run: kept in runtime/, which DVC neither tracks nor hashes."""

from pathlib import Path
from typing import Any

from tasks.stage.files import read_json, write_json

RUNTIME_FOLDER = Path("runtime")


def write_runtime(stage: str, facts: dict[str, Any], folder: Path = RUNTIME_FOLDER) -> None:
    """Record a stage's durations (seconds), throughput (per second) and devices in `runtime/<stage>.json`."""
    write_json(folder / f"{stage}.json", facts)


def read_runtime(stage: str, folder: Path = RUNTIME_FOLDER) -> dict[str, Any]:
    """Return what write_runtime recorded, or nothing where the stage ran on another machine (after `dvc pull`)."""
    path = folder / f"{stage}.json"
    return dict(read_json(path)) if path.exists() else {}
