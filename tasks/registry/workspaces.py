"""What stood in the workspace in which a release was made: `workspaces/<id>.json`, for `registry checkout`.

A manifest records dvc.lock before the stage publish ends, without that stage's own entry, and of params.yaml the values
alone. Here both stand as they were. The record is believed only where it says what the manifest says, where dvc.lock
names nothing outside the workspace, and, where a bucket is asked for signatures, where a trusted key signed it.
"""

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.params.params import as_read_today, parse_params, read_yaml
from tasks.registry.manifest import Manifest
from tasks.registry.signatures import Signature, Statement, signing_key
from tasks.registry.store import Store
from tasks.s3.bucket import ConflictError
from tasks.stage.errors import InputError

FOLDER = "workspaces"
LOCKED = {"path", "hash", "md5", "size", "nfiles", "isexec"}
PUBLISH = "publish"  # the stage whose entry a manifest's dvc.lock cannot have


class WorkspaceRecord(BaseModel):
    """Two files of a workspace, as text.

    Attributes:
        params: params.yaml.
        lock: dvc.lock.
        signature: Of both and the release's id, where its publisher signs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    params: str
    lock: str
    signature: Signature | None = None

    def statement(self, bucket: Store, release: Manifest) -> Statement:
        """Return what its signature is of."""
        digests = {name: hashlib.sha256(getattr(self, name).encode()).hexdigest() for name in ("params", "lock")}
        return Statement("retrain workspace record 1", bucket.place, {"release": release.id, **digests})


def record_workspace(bucket: Store, release: Manifest, root: Path) -> bool:
    """Keep the workspace's params.yaml and dvc.lock if the release was made of them; return whether they are kept now.

    Raises:
        InputError: The store refused.
    """
    try:
        record = WorkspaceRecord(params=(root / "params.yaml").read_text(), lock=(root / "dvc.lock").read_text())
    except (OSError, UnicodeDecodeError):
        return False  # published without DVC
    if not agrees(record, release):
        return False
    if (key := signing_key(bucket.trust)) is not None:
        record = record.model_copy(update={"signature": key.sign(record.statement(bucket, release))})
    try:
        bucket.write(_key(release), record.model_dump_json().encode(), replacing=None)
    except ConflictError:
        return True  # the same release, made again elsewhere: the first record stays
    return True


def read_workspace(bucket: Store, release: Manifest) -> WorkspaceRecord | None:
    """Return what stood in the workspace; nothing where that was not kept.

    Raises:
        InputError: What is there is not that release's, or the store refused.
    """
    stored = bucket.read(_key(release))
    if stored is None:
        return None
    try:
        record = WorkspaceRecord.model_validate_json(stored.body)
    except ValidationError as error:
        raise InputError(f"{bucket.uri(_key(release))} is not what a publisher writes") from error
    if bucket.trust is not None:
        bucket.trust.check(record.signature, record.statement(bucket, release), bucket.uri(_key(release)))
    if not agrees(record, release):
        raise InputError(f"{bucket.uri(_key(release))} does not say what the manifest of release {release.id} says")
    return record


def agrees(record: WorkspaceRecord, release: Manifest) -> bool:
    """Return whether a record has the manifest's parameters, and its hashes for every stage but publish."""
    try:
        params = parse_params(read_yaml(record.params, "params.yaml"), "params.yaml")
        lock = read_yaml(record.lock, "dvc.lock")
    except InputError:
        return False
    same = params.used() == as_read_today(release.parameters)
    return same and without_publish(lock) == release.dvc_lock and _stays_inside(lock)


def folders_of(record: WorkspaceRecord) -> list[str]:
    """Return the hashes of the folders that a record's dvc.lock has as outputs: those of their listings."""
    stages = read_yaml(record.lock, "dvc.lock")["stages"].values()
    return sorted({out["md5"] for stage in stages for out in stage.get("outs", []) if out["md5"].endswith(".dir")})


def _stays_inside(lock: Any) -> bool:
    """Return whether each dependency and output of a dvc.lock is a path in the workspace and a hash, and no more.

    An entry may else list files of its own, `../` and all, and `dvc pull` would write them.
    """
    try:
        entries = [
            entry for stage in lock["stages"].values() for kind in ("deps", "outs") for entry in stage.get(kind, [])
        ]
        return all(
            entry.keys() <= LOCKED
            and re.fullmatch(r"[0-9a-f]{32}(\.dir)?", entry["md5"]) is not None
            and not PurePosixPath(entry["path"]).is_absolute()
            and ".." not in PurePosixPath(entry["path"]).parts
            for entry in entries
        )
    except (KeyError, TypeError, AttributeError):
        return False


def without_publish(lock: Any) -> Any:
    """Return a dvc.lock without the entry of the stage publish."""
    if not isinstance(lock, dict) or not isinstance(lock.get("stages"), dict):
        return None
    return {**lock, "stages": {name: entry for name, entry in lock["stages"].items() if name != PUBLISH}}


def _key(release: Manifest) -> str:
    return f"{FOLDER}/{release.id}.json"
