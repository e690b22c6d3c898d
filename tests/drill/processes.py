"""Find the processes of one site: those that work in its folder, or keep their files there."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

# What is in a process's command line, by what people call it; the first that fits counts.
KINDS = {
    "supervisor": ("infra.local", "supervise"),
    "worker": ("infra.worker",),
    "prefect worker": ("prefect", "worker", "start"),
    "server": ("prefect", "server"),
    "object store": ("weed",),
    "training": ("tasks.train",),
    "publishing": ("tasks.publish",),
    "stage": ("tasks.",),
    "dvc": ("dvc", "repro"),
    "leash": ("leash.py",),
    "flow run": ("prefect.engine",),
    "flow run (Prefect's)": ("prefect.flow_engine",),
}
SERVERS = {"supervisor", "worker", "prefect worker", "server", "object store"}


@dataclass(frozen=True)
class Found:
    """A process of a site."""

    pid: int
    kind: str
    command: str


def processes(folder: Path) -> list[Found]:
    """Return the living processes that belong to a folder: by their working folder, or by a path in their command."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            words = process.cmdline()
            inside = Path(process.cwd()).is_relative_to(folder) or str(folder) in " ".join(words)
            if words and inside and process.status() != psutil.STATUS_ZOMBIE:
                found.append(Found(process.pid, kind_of(words), " ".join(words)[:200]))
    return found


def kind_of(words: list[str]) -> str:
    """Return what people call a process with this command line; `other` where it is none of KINDS."""
    line = " ".join(words)
    return next((kind for kind, parts in KINDS.items() if all(part in line for part in parts)), "other")


def workers_of_runs(folder: Path) -> list[Found]:
    """Return the processes that runs need: where no run is at work, orphans."""
    return [each for each in processes(folder) if each.kind not in SERVERS | {"other"}]
