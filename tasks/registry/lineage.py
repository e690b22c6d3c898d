"""Where a release comes from: the commit, the lock, and the versions that decide the result."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

# The libraries that can change a pixel, a weight or a figure.
LIBRARIES = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn", "matplotlib", "dvc", "boto3")


# Every run writes these, and the manifest holds them as they were.
RECORDED = ("params.yaml", "dvc.lock")


def git_state(root: Path) -> dict[str, Any] | None:
    """Return `{"commit": sha, "dirty": bool}` of a working tree; nothing outside one, or before its first commit.

    Dirty is whether anything differs from the commit but params.yaml and dvc.lock, which are recorded themselves.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    others = (":/", *(f":(exclude){name}" for name in RECORDED))
    status = _git(root, "status", "--porcelain", "--untracked-files=normal", "--", *others)
    if commit is None or status is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(status.strip())}


def dvc_lock(root: Path, without: str) -> dict[str, Any] | None:
    """Return dvc.lock without one stage's own entry, which is that of its last run; nothing without DVC."""
    path = root / "dvc.lock"
    if not path.is_file():
        return None
    lock = dict(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    return {**lock, "stages": {name: entry for name, entry in lock.get("stages", {}).items() if name != without}}


def environment_versions() -> dict[str, str]:
    """Return the versions of Python, of the platform and of the libraries that decide the result."""
    versions = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git prints, or nothing where it is not installed or this is no repository."""
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout if answer.returncode == 0 else None
