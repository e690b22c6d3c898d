"""Earlier runs of a stage, DVC's run cache: what a run on another machine made is fetched instead of made again.

`dvc push --run-cache` and `dvc repro --pull` copy every run that ever was, for each stage; here only the runs of the
stage at hand, with just these dependencies and parameters, travel.
"""

from pathlib import Path
from typing import Any

from flows.command import OnLine
from flows.lineage import RemoteError, open_project
from flows.stages import find_stage


class EarlierRuns:
    """The earlier runs that DVC's remote holds; once it cannot be asked, it is not asked again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_lost = False
        for made in folder.glob(".dvc/cache/runs/*/*"):  # as a copy that was killed leaves one
            _remove_if_empty(made)

    def fetch(self, stage: str, on_warning: OnLine) -> bool:
        """Fetch an earlier run of a stage that would run, so that `dvc repro` restores it; return whether there is one.

        Asking costs time only where the stage would run. A remote that cannot be asked is a warning.
        """
        if self._is_lost:
            return False
        try:
            with open_project(self._folder) as repo, repo.lock:
                return repo.config["core"].get("remote") is not None and _fetch(repo, stage)
        except RemoteError as error:
            self._is_lost = True
            on_warning(f"what earlier runs made is not fetched from elsewhere: {error.sentence}")
            return False


def push_runs(folder: Path) -> int:
    """Bring the runs that dvc.lock records into DVC's remote, after their files; return how many were missing there.

    Raises:
        RemoteError: The remote cannot be asked.
    """
    with open_project(folder) as repo:
        missing = _missing_runs(repo)
        for path, address in missing.items():
            _remote(repo).fs.put_file(str(path), address)
    return len(missing)


def missing_runs(folder: Path) -> int:
    """Return how many of the runs that dvc.lock records DVC's remote lacks; raises RemoteError like push_runs."""
    with open_project(folder) as repo:
        return len(_missing_runs(repo))


def _missing_runs(repo: Any) -> dict[Path, str]:
    """Return each of dvc.lock's runs that the remote lacks, with its address there."""
    remote = _remote(repo)
    recorded = [path for stage in repo.index.stages if (path := _recorded_run(repo, stage)) is not None]
    addresses = {path: _address(repo, remote, path) for path in recorded}
    return {path: address for path, address in addresses.items() if not remote.fs.exists(address)}


def _fetch(repo: Any, name: str) -> bool:
    """Copy a stage's earlier runs into the local cache, and what the newest of them made."""
    from dvc.exceptions import DvcException  # noqa: PLC0415 - DVC takes a second to import
    from dvc.stage.cache import _can_hash, _get_stage_hash  # noqa: PLC0415
    from dvc.stage.loader import StageLoader  # noqa: PLC0415

    stage = find_stage(repo, name)
    if not stage.changed():
        return False
    try:
        stage.save_deps()
    except DvcException:
        return False  # a dependency is not there: `dvc repro` says which
    if not _can_hash(stage):
        return False
    folder = Path(repo.stage_cache._get_cache_dir(_get_stage_hash(stage)))
    try:
        _copy_runs(repo, folder)
    finally:
        _remove_if_empty(folder)
    run = repo.stage_cache._load(stage)
    if run is None:
        return False
    StageLoader.fill_from_lock(stage, run)
    used = stage.get_used_objs(force=True).values()  # without force DVC asks a person about a folder that is nowhere
    pulled = [repo.cloud.pull(objects) for objects in used]
    return not any(each.failed for each in pulled)


def _copy_runs(repo: Any, folder: Path) -> None:
    """Copy what the remote has of a folder of the local run cache and the cache has not."""
    from tasks.files import replaced_file  # noqa: PLC0415

    remote = _remote(repo)
    address = _address(repo, remote, folder)
    if not remote.fs.exists(address):
        return
    for run in sorted(remote.fs.find(address)):
        path = folder / remote.fs.name(run)
        if run != address and not path.exists():  # SeaweedFS lists the folder itself where nothing is in it any more
            with replaced_file(path) as temporary:
                remote.fs.get_file(run, str(temporary))


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder of the run cache if nothing is in it: `dvc repro` fails on an empty one."""
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _recorded_run(repo: Any, stage: Any) -> Path | None:
    """Return the file of the run cache that holds what dvc.lock says of a stage, where the cache has it."""
    from dvc.stage.cache import _can_hash, _get_cache_hash, _get_stage_hash  # noqa: PLC0415
    from dvc.stage.serialize import to_single_stage_lockfile  # noqa: PLC0415

    if not _can_hash(stage) or not all(out.hash_info for out in stage.outs):
        return None
    value = _get_cache_hash(to_single_stage_lockfile(stage))
    path = Path(repo.stage_cache._get_cache_path(_get_stage_hash(stage), value))
    return path if path.exists() else None


def _remote(repo: Any) -> Any:
    """Return where DVC itself keeps the run cache in the default remote."""
    return repo.cloud.get_remote_odb(None, "fetch --run-cache", hash_name="md5-dos2unix")


def _address(repo: Any, remote: Any, path: Path) -> str:
    """Return where the remote keeps a path of the local run cache."""
    return str(remote.fs.join(remote.path, *path.relative_to(repo.cache.legacy.path).parts))
