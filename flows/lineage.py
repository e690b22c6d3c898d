"""What a finished run leaves for others: its data and models in DVC's remote, and an experiment in git."""

import subprocess
from pathlib import Path

from flows.command import Limits, OnLine, run_lines
from flows.stages import DVC


class PushError(Exception):
    """Files did not arrive in DVC's remote."""


def push(folder: Path, on_line: OnLine, limits: Limits | None = None) -> int:
    """Bring everything that dvc.lock names into DVC's remote; return how many files were missing there.

    `dvc push` trusts its own notes of what it pushed before and says "up to date" of a bucket that has lost files. So
    the remote itself is asked, before and after, and the notes are dropped where it disagrees with them.

    Raises:
        PushError: Files are still missing afterwards, or the remote cannot be reached.
    """
    missing = missing_in_remote(folder, forget=True)
    if not missing:
        return 0
    finished = run_lines([*DVC, "push"], folder, on_line, limits)
    if finished.status != 0:
        raise PushError(f"dvc push failed: {' '.join(line for line in finished.lines[-3:] if line)}")
    lost = missing_in_remote(folder)
    if lost:
        raise PushError(f"dvc push ended well, but {len(lost)} files are not in the remote, {lost[0]} among them")
    return len(missing)


def missing_in_remote(folder: Path, *, forget: bool = False) -> list[str]:
    """Return the content hashes of dvc.lock's outputs, files in folders included, that the default remote lacks.

    Args:
        folder: The DVC project.
        forget: Where some are missing, drop DVC's notes of what the remote holds.

    Raises:
        PushError: The remote cannot be asked, or this workspace lacks a folder's listing.
    """
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - with DVC a second to import
    from dvc.exceptions import DvcException  # noqa: PLC0415
    from dvc.repo import Repo  # noqa: PLC0415
    from dvc_data.hashfile.db import get_index  # noqa: PLC0415
    from dvc_data.hashfile.tree import Tree  # noqa: PLC0415

    try:
        with Repo(str(folder)) as repo:
            wanted: set[str] = set()
            for objects in repo.used_objs(push=True).values():
                for item in objects:
                    tree = Tree.load(repo.cache.local, item) if item.isdir else ()
                    wanted |= {item.value, *(entry.value for _, _, entry in tree)}
            remote = repo.cloud.get_remote_odb()
            missing = sorted(wanted - set(remote.list_oids_exists(wanted)))
            if missing and forget:
                get_index(remote).clear()
                repo.drop_data_index()
            return missing
    except (BotoCoreError, DvcException, OSError) as error:
        raise PushError(f"DVC's remote cannot be asked: {' '.join(str(error).split())}") from error


def save_experiment(name: str, folder: Path, on_line: OnLine) -> bool:
    """Record the run as a DVC experiment; return whether there is a git repository with a commit to attach it to."""
    head = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], cwd=folder, capture_output=True, check=False)
    if head.returncode != 0:
        on_line("not saved as an experiment: there is no git commit to attach it to")
        return False
    finished = run_lines([*DVC, "exp", "save", "--force", "--name", name], folder, lambda _: None)
    if finished.status != 0:
        on_line(f"not saved as an experiment: {' '.join(line for line in finished.lines[-3:] if line)}")
    return finished.status == 0
