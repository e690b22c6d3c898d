"""Releases in a bucket: complete or absent, never changed.

    releases/<id>/<tree>/model.keras …     files first
    releases/<id>/manifest.json            last, and only if there is none: from now on it is a release
    index/<id>/<row>                       its row in the list (tasks/registry/index.py)
    channels/champion.json                 then the pointers (tasks/registry/channels.py)

A publisher that dies leaves files without a manifest, which no reader takes for a release; running it again
completes it. The files' folder is named after all their bytes, so two publishers of one id that exported SavedModel
with other bytes cannot overwrite each other's; the first manifest decides. It is named after the time too, so that
what was left long ago is never taken up again, and can be removed: tasks/registry/garbage.py has the argument.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from tasks.registry.index import add_to_index
from tasks.registry.manifest import (
    MANIFEST_NAME,
    DamagedError,
    FileEntry,
    Manifest,
    list_files,
    parse_manifest,
    tree_name,
)
from tasks.registry.signatures import SigningKey, TrustedKeys, signing_key
from tasks.registry.store import Store
from tasks.s3.bucket import ConflictError, sha256_of_bytes
from tasks.s3.objects import list_objects, read_object, store_time
from tasks.stage.errors import InputError, OutageError
from tasks.stage.files import replaced_folder, sha256_of
from tasks.stage.progress import Progress

FOLDER = "releases"
CACHE = Path(".cache/releases")

# A publisher writes its manifest in the period of the store's clock in which it began, or in the next.
PERIOD = timedelta(hours=6)


def manifest_key(release: str) -> str:
    """Return where the manifest of a release is."""
    return f"{FOLDER}/{release}/{MANIFEST_NAME}"


def file_key(manifest: Manifest, entry: FileEntry) -> str:
    """Return where a file of a release is."""
    return f"{FOLDER}/{manifest.id}/{manifest.tree}/{entry.path}"


def publishing_period(now: datetime) -> int:
    """Return the number of the period that a time of the store's clock is in."""
    return int(now.timestamp() // PERIOD.total_seconds())


def publish_release(
    bucket: Store, folder: Path, manifest: Manifest, complete: Callable[[Manifest], Manifest] = lambda whole: whole
) -> Manifest:
    """Upload a release's files, then its manifest, signed where there is a key, and its row in the list.

    Where there is a manifest already, nothing is uploaded.

    Args:
        bucket: Where to.
        folder: Of the files.
        manifest: Theirs.
        complete: Is given the manifest once all files are in the bucket and returns the one to write, of the same
            files; what it raises leaves no release.

    Returns:
        The manifest in the bucket: the given one with `tree` named anew, or the one of whoever published the same
        content first.

    Raises:
        InputError: The store refused, or the upload took more than six hours; run it again. Or the key cannot be
            used, or somebody published the same content without its signature.
    """
    key = signing_key(bucket.trust)
    present = find_manifest(bucket, manifest.id)
    if present is not None:
        return _accepted(bucket, present, key)
    bucket.learn_conditions()
    period = publishing_period(store_time(bucket))
    manifest = manifest.model_copy(update={"tree": tree_name(manifest.files, period)})
    progress = Progress(manifest.size, "bytes")
    for entry in manifest.files:
        bucket.upload(folder / entry.path, file_key(manifest, entry), entry.sha256)
        progress.update(progress.done + entry.size, f"uploaded {entry.path}")
    progress.close()
    manifest = complete(manifest)
    if key is not None:
        manifest = manifest.model_copy(update={"signature": key.sign(manifest.statement(bucket.place))})
    _check_uploaded(bucket, manifest, period)
    try:
        bucket.write(manifest_key(manifest.id), manifest.to_bytes(), replacing=None)
    except ConflictError as error:
        present = find_manifest(bucket, manifest.id)
        if present is None:
            raise OutageError(f"{bucket.uri(manifest_key(manifest.id))} is busy; publish again") from error
        return _accepted(bucket, present, key)
    add_to_index(bucket, manifest)
    return manifest


def _accepted(bucket: Store, manifest: Manifest, key: SigningKey | None) -> Manifest:
    """Return somebody else's manifest of the same content, which a publisher who signs must not vouch for unsigned."""
    if key is not None:
        check_signature(manifest, bucket.trust or key.trusted, bucket.place)
    add_to_index(bucket, manifest)
    return manifest


def check_signature(manifest: Manifest, trust: TrustedKeys, place: str) -> None:
    """Raise UntrustedError unless a trusted key signed a manifest for `s3://bucket/prefix`."""
    trust.check(manifest.signature, manifest.statement(place), f"the manifest of release {manifest.id}")


def find_manifest(bucket: Store, release: str, sha256: str | None = None) -> Manifest | None:
    """Return a release's manifest, or nothing where there is no such release.

    Args:
        bucket: Where to look.
        release: The id.
        sha256: What the manifest's bytes must hash to, as a pointer says; not checked if not given.

    Raises:
        DamagedError: What is there is not the manifest of this release.
        InputError: The store refused, or a signature that is asked for is missing or wrong.
    """
    stored = bucket.read(manifest_key(release))
    if stored is None:
        return None
    source = bucket.uri(manifest_key(release))
    if sha256 is not None and sha256_of_bytes(stored.body) != sha256:
        raise DamagedError(f"{source} was altered: its sha256 is not the one that the channel recorded")
    manifest = parse_manifest(stored.body, source)
    if manifest.id != release:
        raise DamagedError(f"{source} is the manifest of another release, {manifest.id}")
    if bucket.trust is not None:
        check_signature(manifest, bucket.trust, bucket.place)
    return manifest


def read_manifest(bucket: Store, release: str, sha256: str | None = None) -> Manifest:
    """Return a release's manifest; raises InputError where there is no such release, or like find_manifest."""
    manifest = find_manifest(bucket, release, sha256)
    if manifest is None:
        raise InputError(f"there is no release {release!r} in {bucket.uri(FOLDER)}")
    return manifest


def read_release_file(bucket: Store, manifest: Manifest, entry: FileEntry) -> bytes:
    """Return the bytes of one small file of a release.

    Raises:
        DamagedError: It is missing, or not as its manifest has it.
        InputError: The store refused.
    """
    key = file_key(manifest, entry)
    body: bytes | None = read_object(bucket, key, lambda stream: stream.read(entry.size + 1))
    if body is None:
        raise DamagedError(f"{bucket.uri(key)} is missing")
    if len(body) != entry.size or sha256_of_bytes(body) != entry.sha256:
        raise DamagedError(f"{bucket.uri(key)} was altered: its sha256 is not the one of its manifest")
    return body


def list_releases(bucket: Store) -> Iterator[Manifest]:
    """Yield the manifest of every release, in the order of their ids; a folder without a manifest is not one."""
    for release in bucket.folders(FOLDER):
        manifest = find_manifest(bucket, release)
        if manifest is not None:
            yield manifest


def pull_release(bucket: Store, manifest: Manifest, folder: Path) -> None:
    """Download a release into a folder, which is replaced only when every size and sha256 was right.

    Raises:
        InputError: A file is missing or altered in the bucket, or the folder holds something that is not a release.
    """
    if folder.exists() and not _may_be_replaced(folder):
        raise InputError(f"{folder} exists and is not a release; name an empty or a new folder")
    progress = Progress(manifest.size, "bytes", stream=sys.stderr)  # standard output is the command's answer
    with replaced_folder(folder) as temporary:
        for entry in manifest.files:
            target = temporary / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            bucket.download(file_key(manifest, entry), target, size=entry.size, sha256=entry.sha256)
            progress.update(progress.done + entry.size, f"downloaded {entry.path}")
        (temporary / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    progress.close()


def cached_release(bucket: Store, manifest: Manifest, cache: Path = CACHE) -> Path:
    """Return the folder `cache/<id>` of a release, verified; pulled where it is missing, altered or incomplete."""
    folder = cache / manifest.id
    try:
        if verify_folder(folder) == manifest:
            return folder
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)  # a cache: what it held is in the bucket
    pull_release(bucket, manifest, folder)
    return folder


def verify_folder(folder: Path) -> Manifest:
    """Check every file of a pulled release against its manifest.

    Raises:
        InputError: The manifest or a file is missing, a file is altered, or there is one that the manifest lacks.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InputError(f"{folder} is not a release: it has no {MANIFEST_NAME}")
    manifest = parse_manifest(path.read_bytes(), str(path))
    for entry in manifest.files:
        file = folder / entry.path
        if not file.is_file():
            raise InputError(f"{file} is missing from the release; pull it again")
        if file.stat().st_size != entry.size or sha256_of(file) != entry.sha256:
            raise InputError(f"{file} was altered: it does not match {path}; pull the release again")
    extra = {entry.path for entry in list_files(folder)} - {entry.path for entry in manifest.files}
    if extra:
        raise InputError(f"{folder / min(extra)} is not part of the release that {path} describes")
    return manifest


def _may_be_replaced(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MANIFEST_NAME).is_file() or not any(folder.iterdir()))


def _check_uploaded(bucket: Store, manifest: Manifest, period: int) -> None:
    """Raise InputError unless every file is there and the store's clock is in the period, or in the next."""
    found = {entry.key: entry.size for entry in list_objects(bucket, f"{FOLDER}/{manifest.id}/{manifest.tree}")}
    for entry in manifest.files:
        if found.get(file_key(manifest, entry)) != entry.size:
            raise InputError(f"{bucket.uri(file_key(manifest, entry))} is not there any more; publish again")
    if publishing_period(store_time(bucket)) > period + 1:
        raise InputError(
            f"the upload of release {manifest.id} took so long that it may be removed as old; publish again"
        )
