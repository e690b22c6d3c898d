"""`registry gc`: find and remove what publishers left that died or lost a race; never a release, nor a part of one.

What it removes, once it is a day old by the store's clock:

    uploads       multipart uploads to a release's folder that neither ended nor were aborted
    unfinished    files of a release without a manifest
    stray         files beside a manifest that does not name them: a second publisher's
    index         rows of the list without a release, or not the ones of its manifest

Why this is safe against a publisher at work, even one that publishes at this very moment what died a day ago, and even
where a removal is late or done twice; all times are the store's, cut into periods of six hours:

1. A publisher reads the time, and uploads to a folder whose name follows from the files and from the period p of that
   time. So every file in such a folder was written after p began; and who comes later, in another period, writes to
   another folder.
2. Right before it writes its manifest it sees all its files there, and p or p + 1 as the period. So a manifest that
   names the folder is written within twelve hours of p's beginning, or never: a publisher that was slower is refused,
   and one that stalls between that look and the write would have to stall for twelve hours more.
3. The collector lists a file of this folder as a day old. So at least a day has passed since p began, and no manifest
   that names the folder can still come. After that it reads the release's manifest: what that names, it keeps. What it
   does not name, it never will, since a manifest is written once and never changed.

So a file that is garbage stays garbage, and it does not matter when it is removed. A check of the manifest's absence
right before each removal would not do: a publisher could find an old file still there and name it in between.

A release whose manifest cannot be read, or that a channel names though it has none, is left alone and spoken of.
"""

import itertools
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from tasks.registry.channels import CHANNELS, read_pointer
from tasks.registry.index import FOLDER as INDEX
from tasks.registry.index import add_to_index, index_key, row_of
from tasks.registry.manifest import DamagedError, Manifest, is_release_id
from tasks.registry.moves import all_moves
from tasks.registry.releases import FOLDER, file_key, find_manifest, manifest_key
from tasks.registry.store import Store
from tasks.s3.objects import Listed, Upload, abort_upload, delete_object, list_objects, list_uploads

GRACE = timedelta(days=1)

Kind = Literal["upload", "unfinished", "stray", "index"]


@dataclass(frozen=True)
class Garbage:
    """Something to remove: an object, or the multipart upload to `key`, whose size in bytes S3 does not tell."""

    kind: Kind
    key: str
    age: timedelta
    size: int | None = None
    upload: Upload | None = None


@dataclass(frozen=True)
class Found:
    """What a look at the bucket found.

    Attributes:
        garbage: What can be removed.
        unlisted: Manifests that the index has no row for.
        problems: A sentence for each release that is left alone because something is wrong with it.
    """

    garbage: tuple[Garbage, ...]
    unlisted: tuple[Manifest, ...]
    problems: tuple[str, ...]


def find_garbage(bucket: Store, grace: timedelta = GRACE) -> Found:
    """Look for garbage of at least this age; nothing is changed.

    Raises:
        InputError: The store refused, or a channel's pointer cannot be read: what it names must not be touched.
    """
    named = _named_by_channels(bucket)
    garbage = _old_uploads(bucket, grace)
    index = list_objects(bucket, INDEX)
    present = {entry.key for entry in index}
    rows: dict[str, str | None] = {}  # of each release, the key that the index should have
    unlisted: list[Manifest] = []
    problems: dict[str, str] = {}
    for release, listed in _by_release(bucket):
        files = [entry for entry in listed if entry.key != manifest_key(release)]
        try:
            manifest = _manifest_of(bucket, release, expected=release in named or len(files) < len(listed))
            rows[release] = index_key(row_of(manifest)) if manifest else None
        except DamagedError as error:
            problems[release] = f"{error}; nothing of that release is touched"
            continue
        garbage += _not_named(manifest, files, grace)
        if manifest and rows[release] and rows[release] not in present:
            unlisted.append(manifest)
    garbage += _wrong_rows(index, rows, problems, grace)
    return Found(tuple(garbage), tuple(unlisted), tuple(problems.values()))


def remove_garbage(bucket: Store, found: Found) -> None:
    """Remove what was found, and add the missing rows to the index.

    Raises:
        InputError: The store refused; what was removed until then stays removed.
    """
    for item in found.garbage:
        if item.upload is None:
            delete_object(bucket, item.key)
        else:
            abort_upload(bucket, item.upload)
    for manifest in found.unlisted:
        add_to_index(bucket, manifest)


def _named_by_channels(bucket: Store) -> set[str]:
    """Return every release that a channel points at, or pointed at before."""
    return {move.release for channel in CHANNELS for move in all_moves(bucket, read_pointer(bucket, channel))}


def _release_of(key: str) -> str | None:
    """Return the release that a key belongs to; nothing where it is not one that this project writes."""
    folder, _, rest = key.partition("/")
    release, slash, _ = rest.partition("/")
    return release if folder == FOLDER and slash and is_release_id(release) else None


def _old_uploads(bucket: Store, grace: timedelta) -> list[Garbage]:
    return [
        Garbage("upload", upload.key, upload.age, upload=upload)
        for upload in list_uploads(bucket, FOLDER)
        if upload.age >= grace and _release_of(upload.key)
    ]


def _by_release(bucket: Store) -> Iterator[tuple[str, list[Listed]]]:
    """Yield each release with all of its objects, from one listing of the bucket."""
    for release, objects in itertools.groupby(list_objects(bucket, FOLDER), lambda entry: _release_of(entry.key)):
        if release is not None:
            yield release, list(objects)


def _manifest_of(bucket: Store, release: str, *, expected: bool) -> Manifest | None:
    """Return a release's manifest, read after its files were listed; raises DamagedError where it must be there."""
    manifest = find_manifest(bucket, release)
    if manifest is None and expected:
        raise DamagedError(
            f"{bucket.uri(manifest_key(release))} is missing, though it was listed or a channel names it"
        )
    return manifest


def _not_named(manifest: Manifest | None, files: list[Listed], grace: timedelta) -> list[Garbage]:
    """Return the old ones of a release's files that its manifest does not name."""
    named = set() if manifest is None else {file_key(manifest, entry) for entry in manifest.files}
    kind: Kind = "unfinished" if manifest is None else "stray"
    return [
        Garbage(kind, file.key, file.age, file.size) for file in files if file.age >= grace and file.key not in named
    ]


def _wrong_rows(
    index: list[Listed], rows: Mapping[str, str | None], problems: Container[str], grace: timedelta
) -> list[Garbage]:
    """Return the old objects of the index that are not the row of a release, damaged releases aside."""
    garbage = []
    for entry in index:
        _, release, *_ = f"{entry.key}/".split("/")
        if entry.age >= grace and release not in problems and rows.get(release) != entry.key:
            garbage.append(Garbage("index", entry.key, entry.age, entry.size))
    return garbage
