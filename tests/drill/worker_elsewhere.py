"""A worker on another machine, as far as one machine has it: its own /workspace, and code from an image's folder.

infra/prefect.yaml runs in /workspace. Each worker gets a mount namespace in which a folder of its own is mounted there,
so that two of them live side by side; only root may do that.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.process_group import stop_group

WORKSPACE = "/workspace"
MOUNTED = 'mount --bind "$1" /workspace && exec "${@:2}"'


class WorkerElsewhere:
    """One worker with a disk of its own.

    Args:
        name: By which Prefect knows it.
        folder: Its disk.
        image: The code of its image: a clone of the repository that runs never write to.
        pool: The work pool.
        environment: With PREFECT_* of the server and AWS_* of the store.
    """

    def __init__(self, name: str, folder: Path, image: Path, pool: str, environment: Mapping[str, str]) -> None:
        self.name, self.folder, self.image, self.pool = name, folder, image, pool
        self.environment = dict(environment) | {
            "PYTHONPATH": str(image),
            "HOME": WORKSPACE,
            "PREFECT_HOME": f"{WORKSPACE}/.prefect",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder.with_suffix(".log")

    def start(self) -> None:
        """Start it with the disk that it has."""
        Path(WORKSPACE).mkdir(exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        worker = [sys.executable, "-m", "infra.worker", "--pool", self.pool, "--type", "process", "--name", self.name]
        command = ["unshare", "--mount", "bash", "-c", MOUNTED, "bash", str(self.folder), *worker, "--limit", "1"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.image, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self) -> None:
        """Stop it as a container's end does."""
        if self._process is not None:
            stop_group(self._process.pid, 120.0, self._process)
            self._process = None

    def lose_disk(self) -> None:
        """Stop it and begin again with an empty disk."""
        self.stop()
        shutil.rmtree(self.folder)
        self.start()


def may_unshare() -> bool:
    """Return whether this user may give a process mounts of its own."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
