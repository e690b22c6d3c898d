"""Bring a release's params.yaml and dvc.lock into this workspace, so that `dvc pull` brings the rest.

Behind `python -m tasks.registry checkout`. What a scheduled run made on a worker is then what a laptop has: its data,
model and evaluation by `dvc pull`, and `dvc repro` has nothing to do.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.params.params import read_yaml
from tasks.registry.lineage import git_state
from tasks.registry.listings import fetch_listings
from tasks.registry.manifest import Manifest
from tasks.registry.store import Store
from tasks.registry.workspaces import WorkspaceRecord, folders_of, read_workspace
from tasks.stage.errors import InputError
from tasks.stage.files import write_text


@dataclass(frozen=True)
class Checkout:
    """What a workspace has now.

    Attributes:
        id: The release's.
        commit: That the release was made of; None: it was made outside a git repository.
        here: The commit of this workspace.
        changed: The files that are not as they were before.
        doubts: Why `dvc repro` may have something to do all the same, a sentence each.
    """

    id: str
    commit: str | None
    here: str
    changed: tuple[str, ...]
    doubts: tuple[str, ...]


def checkout(bucket: Store, release: Manifest, root: Path) -> Checkout:
    """Write the release's params.yaml and dvc.lock into the workspace at `root`.

    Raises:
        InputError: The workspace is no git repository's, or one of the two files has changes that would be lost;
            nobody kept what the release's workspace held; or what `dvc pull` would bring lies outside of its folders.
            Nothing was written then.
    """
    record = read_workspace(bucket, release)
    if record is None:
        raise InputError(
            f"what stood in the workspace of release {release.id} was not kept: "
            f"python -m tasks.registry rebuild {release.id} says how to make it again"
        )
    state = git_state(root)
    if state is None:
        raise InputError(f"{root.absolute()} is in no git repository with a commit: clone the project first")
    changed = _changed(root, record)
    for name in changed:
        _refuse_to_lose(root, name)
    missing = fetch_listings(root, folders_of(record))
    for name, text in changed.items():
        write_text(root / name, text)
    commit, here = (release.git or {}).get("commit"), str(state["commit"])
    doubts = tuple(_doubts(release, here, missing, _unknown_parameters(root, record.params)))
    return Checkout(release.id, commit, here, tuple(changed), doubts)


def _changed(root: Path, record: WorkspaceRecord) -> dict[str, str]:
    """Return the texts of those files that are not in the workspace as the record has them."""
    texts = {"params.yaml": record.params, "dvc.lock": record.lock}
    there = {name: (root / name).read_bytes() if (root / name).exists() else None for name in texts}
    return {name: text for name, text in texts.items() if there[name] != text.encode()}


def _refuse_to_lose(root: Path, name: str) -> None:
    """Raise InputError where a file is not as git has it."""
    status = ["git", "-C", str(root), "status", "--porcelain", "--ignored", "--", name]
    answer = subprocess.run(status, capture_output=True, text=True, check=True)
    if answer.stdout.strip():
        raise InputError(f"{name} has changes that would be lost: commit it, or move it away, then check out again")


def _unknown_parameters(root: Path, params: str) -> list[str]:
    """Return the parameters that this workspace's dvc.yaml tracks, and the text of a params.yaml has not."""
    path, values = root / "dvc.yaml", read_yaml(params, "params.yaml")
    stages = read_yaml(path.read_text(encoding="utf-8"), "dvc.yaml")["stages"] if path.exists() else {}
    tracked = {key for stage in stages.values() for key in stage.get("params", []) if isinstance(key, str)}
    return sorted(key for key in tracked if "${" not in key and not _has(values, key.split(".")))


def _has(values: Any, parts: Sequence[str]) -> bool:
    for part in parts:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _doubts(release: Manifest, here: str, missing: Sequence[str], unknown: Sequence[str]) -> list[str]:
    git = release.git or {}
    doubts = [f"DVC's remote has no listing {value}: dvc pull has nothing to bring there" for value in missing]
    if unknown:
        doubts.append(
            f"its params.yaml is older than dvc.yaml here and has no {', '.join(unknown)}: dvc repro wants the key "
            "there, with its default, or the commit that the release was made of"
        )
    if git.get("commit") != here:
        made = f"commit {git['commit']}" if git.get("commit") else "code that is in no repository"
        doubts.append(f"it was made of {made}, and this workspace is at {here}: stages whose code differs run again")
    elif git.get("dirty"):
        doubts.append("its working tree had uncommitted changes: stages whose code differs run again")
    return doubts
