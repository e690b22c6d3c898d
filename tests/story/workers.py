"""Two workers: folders in which the real flow runs, by turns; one of them begins each week on an empty disk."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.object_store import ObjectStore
from infra.local.prefect_server import PrefectServer
from tests.fixtures import prefect_api
from tests.fixtures.dvc_project import REPOSITORY, command

RUN = """
import json, sys
from flows.retrain import retrain
from tasks.stage.errors import run_command
def body():
    results = retrain(overrides=json.loads(sys.argv[1]), save_run=False)
    print(json.dumps({result.name: result.outcome for result in results}))
run_command("run", body)
"""


@dataclass(frozen=True)
class Week:
    """What a run of the flow came to.

    Attributes:
        outcomes: Of each stage.
        state: The name of the flow run's state.
        message: That state's sentence.
        lines: Of the run's log.
        seconds: How long it took.
        split: data/split/index.csv, a row an image.
        folder: Of the worker.
    """

    outcomes: dict[str, str]
    state: str
    message: str
    lines: list[str]
    seconds: float
    split: list[dict[str, str]]
    folder: Path

    def line(self, words: str) -> str:
        """Return the one line of the log that has some words."""
        found = [line for line in self.lines if words in line]
        assert len(found) == 1, (words, self.lines)
        return found[0]

    def offer(self) -> dict[str, Any]:
        """Return what became of its release."""
        return dict(json.loads((self.folder / ".dvc/tmp/offer.json").read_text()))


def write_upstream(folder: Path, remote: str) -> Path:
    """Make a repository of the working tree as it is, whose DVC remote is another."""
    listed = command(REPOSITORY, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    config = folder / ".dvc/config"
    config.write_text(config.read_text().replace("s3://retrain/dvc", remote))
    command(folder, "git", "init", "--quiet", "--initial-branch=main")
    command(folder, "git", "config", "user.name", "Test")
    command(folder, "git", "config", "user.email", "test@localhost")
    command(folder, "git", "add", ".")
    command(folder, "git", "commit", "--quiet", "--message", "Begin")
    return folder


class Worker:
    """One worker: its folder, and the servers that it shares with the other."""

    def __init__(self, folder: Path, upstream: Path, store: ObjectStore, server: PrefectServer) -> None:
        self.folder, self._upstream, self._api = folder, upstream, f"{server.url}/api"
        self._environment = os.environ | store.environment | server.environment

    def lose_disk(self) -> None:
        """Begin the next run on an empty disk."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, overrides: dict[str, Any]) -> Week:
        """Run the flow, which must end well."""
        if not self.folder.exists():
            command(self._upstream, "git", "clone", "--quiet", str(self._upstream), str(self.folder))
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(overrides)],
            cwd=self.folder,
            env=self._environment | {"PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        run = prefect_api.latest_flow_run(self._api)
        with (self.folder / "data/split/index.csv").open(newline="", encoding="utf-8") as stream:
            split = list(csv.DictReader(stream))
        return Week(
            outcomes=dict(json.loads(done.stdout.splitlines()[-1])),
            state=run["state_name"],
            message=run["state"]["message"],
            lines=prefect_api.log_lines(self._api, run["id"]),
            seconds=run["total_run_time"],
            split=split,
            folder=self.folder,
        )
