"""Bring a run's experiment to the git remote, from where `dvc exp pull` brings it to any laptop."""

from pathlib import Path

from flows.command import OnLine
from infra.git import GitError, Remote, in_clone, run_git

LOCAL_SECONDS, PUSH_SECONDS = 30.0, 60.0


def push_experiment(name: str, folder: Path, on_line: OnLine) -> bool:
    """Do what `dvc exp push --no-cache` does, never asking for a password; return whether the remote has it.

    Where there is no remote, or it is away or may not be written, a line says so: the run is sound without.
    """
    try:
        remotes = _git(folder, "remote").split()
        if not remotes:
            on_line(f"experiment {name} stays in this repository, which has no git remote")
            return False
        origin = "origin" if "origin" in remotes else remotes[0]
        address = _git(folder, "remote", "get-url", "--push", origin).strip()
        ref = _git(folder, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").strip()
        remote = Remote.from_address(address)
        run_git([*in_clone(folder), "push", "--quiet", "--", remote.url, f"{ref}:{ref}"], PUSH_SECONDS, remote)
    except GitError as error:
        on_line(f"experiment {name} stays in this repository; its git remote did not take it: {error}")
        return False
    on_line(f"experiment {name} is in git remote {origin}: dvc exp pull {origin} {name}")
    return True


def _git(folder: Path, *arguments: str) -> str:
    return run_git([*in_clone(folder), *arguments], LOCAL_SECONDS)
