"""Earlier runs of a stage, DVC's run cache: what a run on another machine made is fetched instead of made again.

`dvc push --run-cache` and `dvc repro --pull` copy every run that ever was, for each stage; here only the runs of the
stage at hand, with just these dependencies and parameters, travel.
"""

from pathlib import Path
from typing import Any

from flows.command import OnLine
from flows.lineage import RemoteError, open_project
from flows.run_records import (
    SIGNATURES,
    RecordError,
    check_record,
    check_signature,
    check_size,
    sign_record,
)
from flows.stages import find_stage
from tasks.registry.listings import ListingError, check_listing
from tasks.registry.signatures import SigningKey, TrustedKeys, configured_trust, signing_key
from tasks.stage.errors import InputError


class EarlierRuns:
    """The earlier runs that DVC's remote holds; once it cannot be asked, it is not asked again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_lost = False
        for made in folder.glob(".dvc/cache/runs/*/*"):  # as a copy that was killed leaves one
            _remove_if_empty(made)

    def fetch(self, stage: str, on_warning: OnLine) -> bool:
        """Fetch an earlier run of a stage that would run, so that `dvc repro` restores it; return whether there is one.

        Asking costs time only where the stage would run. A remote that cannot be asked is a warning, and so is a run
        that is not to be believed (flows/run_records.py).

        Raises:
            InputError: The file of a key that is configured cannot be used.
        """
        if self._is_lost:
            return False
        trust = configured_trust()
        try:
            with open_project(self._folder) as repo, repo.lock:
                return repo.config["core"].get("remote") is not None and _fetch(repo, stage, trust, on_warning)
        except RemoteError as error:
            self._is_lost = True
            on_warning(f"what earlier runs made is not fetched from elsewhere: {error.sentence}")
            return False


def push_runs(folder: Path) -> int:
    """Bring the runs that dvc.lock records into DVC's remote, after their files; return how many were missing there.

    Where a signing key is configured, each run's signature goes before it.

    Raises:
        RemoteError: The remote cannot be asked.
        InputError: The file of a key that is configured cannot be used.
    """
    key = signing_key(configured_trust())
    with open_project(folder) as repo:
        missing = _missing_runs(repo, key)
        for objects in missing.values():
            for address, body in objects.items():
                _remote(repo).fs.pipe_file(address, body)
    return len(missing)


def missing_runs(folder: Path) -> int:
    """Return how many of the runs that dvc.lock records DVC's remote lacks; raises like push_runs."""
    key = signing_key(configured_trust())
    with open_project(folder) as repo:
        return len(_missing_runs(repo, key))


def _missing_runs(repo: Any, key: SigningKey | None) -> dict[Path, dict[str, bytes]]:
    """Return each of dvc.lock's runs of which the remote lacks something: what, by its address there, in order."""
    remote = _remote(repo)
    missing = {}
    for path in [path for stage in repo.index.stages if (path := _recorded_run(repo, stage)) is not None]:
        body, objects = path.read_bytes(), {}
        if key is not None:
            address, signature = _signature_address(repo, remote, path), sign_record(key, _place(repo), body)
            if _read(remote, address) != signature:
                objects[address] = signature
        if not remote.fs.exists(address := _address(repo, remote, path)):
            objects[address] = body
        if objects:
            missing[path] = objects
    return missing


def _fetch(repo: Any, name: str, trust: TrustedKeys | None, on_warning: OnLine) -> bool:
    """Copy a stage's earlier runs into the local cache, and what the newest of them made."""
    from dvc.exceptions import DvcException  # noqa: PLC0415 - DVC takes a second to import
    from dvc.stage.cache import _can_hash, _get_cache_hash, _get_stage_hash  # noqa: PLC0415
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
        _copy_runs(repo, folder, trust, on_warning)
        _drop_unsound(folder, on_warning)
        while (run := _newest_run(repo, stage, folder)) is not None:
            record = folder / _get_cache_hash(run)
            StageLoader.fill_from_lock(stage, run)
            try:
                pulled = [repo.cloud.pull(objects) for objects in _used_objects(repo, stage)]
                return not any(each.failed for each in pulled)
            except RecordError as error:
                on_warning(f"an earlier run of {name} is not taken: {error}")
                record.unlink()
        return False
    finally:
        _remove_if_empty(folder)


def _copy_runs(repo: Any, folder: Path, trust: TrustedKeys | None, on_warning: OnLine) -> None:
    """Copy what the remote has of a folder of the local run cache and the cache has not, and what is believed."""
    from tasks.stage.files import replaced_file  # noqa: PLC0415

    remote = _remote(repo)
    address = _address(repo, remote, folder)
    if not remote.fs.exists(address):
        return
    for run in sorted(remote.fs.find(address)):
        path = folder / remote.fs.name(run)
        if run == address or path.exists():  # SeaweedFS lists the folder itself where nothing is in it any more
            continue
        try:
            check_size(remote.fs.size(run), path)
            check_record(body := remote.fs.cat_file(run), path)
            if trust is not None:
                signature = _read(remote, _signature_address(repo, remote, path))
                check_signature(trust, _place(repo), body, signature, path.name)
        except InputError as error:
            on_warning(f"an earlier run is not taken: {error}")
            continue
        with replaced_file(path) as temporary:
            temporary.write_bytes(body)


def _newest_run(repo: Any, stage: Any, folder: Path) -> Any:
    _remove_if_empty(folder)  # on which DVC fails
    return repo.stage_cache._load(stage)


def _drop_unsound(folder: Path, on_warning: OnLine) -> None:
    """Remove from the local run cache what is not a run of its folder's stage: `dvc repro` would believe it."""
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        try:
            check_record(path.read_bytes(), path)
        except RecordError as error:
            on_warning(f"an earlier run is removed: {error}")
            path.unlink()


def _used_objects(repo: Any, stage: Any) -> list[Any]:
    """Return the sets of objects that a stage's outputs need; raises RecordError where one is outside its folder."""
    from dvc_data.hashfile.tree import Tree  # noqa: PLC0415
    from dvc_objects.errors import ObjectFormatError  # noqa: PLC0415

    # Without force DVC asks a person about a folder that is nowhere.
    used = list(stage.get_used_objs(force=True).values())
    for item in (item for objects in used for item in objects if item.isdir):
        try:
            check_listing((parts for parts, _, _ in Tree.load(repo.cache.local, item)), item.value)
        except (ListingError, ObjectFormatError) as error:
            repo.cache.local.delete(item.value)
            raise RecordError(str(error)) from error
    return used


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


def _signature_address(repo: Any, remote: Any, path: Path) -> str:
    """Return where the remote keeps the signature of a path of the local run cache: where DVC looks for no runs."""
    _, *parts = path.relative_to(repo.cache.legacy.path).parts
    return str(remote.fs.join(remote.path, SIGNATURES, *parts))


def _place(repo: Any) -> str:
    """Return the remote's address as DVC's configuration has it, for which a signature holds."""
    return str(repo.config["remote"][repo.config["core"]["remote"]]["url"])


def _read(remote: Any, address: str) -> bytes | None:
    try:
        return bytes(remote.fs.cat_file(address))
    except FileNotFoundError:
        return None
