"""`registry verify`: read every byte of a release in the bucket, and say what is not as its manifest has it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.registry.channels import CHANNELS, read_pointer, resolve
from tasks.registry.manifest import DamagedError, FileEntry, Manifest, is_release_id
from tasks.registry.moves import all_moves
from tasks.registry.releases import FOLDER, file_key, find_manifest
from tasks.registry.store import Store
from tasks.s3.objects import read_object
from tasks.stage.files import CHUNK


@dataclass(frozen=True)
class Verification:
    """What is wrong with `subject`, a release or a channel; nothing where `problems` is empty.

    Attributes:
        subject: The release's id, or the channel's name.
        files, bytes: Read and found right.
        problems: A sentence each.
    """

    subject: str
    files: int
    bytes: int
    problems: tuple[str, ...]


def verify_release(bucket: Store, name: str) -> Verification:
    """Verify the release that a channel, an id, or the first digits of one id name.

    Raises:
        InputError: The store refused, or the name means nothing.
    """
    try:
        return _verify(bucket, resolve(bucket, name))
    except DamagedError as error:
        return Verification(name, 0, 0, (str(error),))


def verify_all(bucket: Store) -> Iterator[Verification]:
    """Verify every release, and that each channel's moves name releases with the manifests that it recorded.

    Raises:
        InputError: The store refused.
    """
    for release in bucket.folders(FOLDER):
        if not is_release_id(release):
            continue
        try:
            manifest = find_manifest(bucket, release)
            if manifest is not None:
                yield _verify(bucket, manifest)
        except DamagedError as error:
            yield Verification(release, 0, 0, (str(error),))
    for channel in CHANNELS:
        try:
            named = {(move.release, move.manifest_sha256) for move in all_moves(bucket, read_pointer(bucket, channel))}
        except DamagedError as error:
            yield Verification(channel, 0, 0, (str(error),))
            continue
        if named:
            yield Verification(
                channel, 0, 0, tuple(filter(None, (_problem_of_move(bucket, *each) for each in sorted(named))))
            )


def _verify(bucket: Store, manifest: Manifest) -> Verification:
    problems = {entry: _problem_of_file(bucket, file_key(manifest, entry), entry) for entry in manifest.files}
    right = [entry for entry, problem in problems.items() if problem is None]
    size = sum(entry.size for entry in right)
    return Verification(manifest.id, len(right), size, tuple(filter(None, problems.values())))


def _problem_of_file(bucket: Store, key: str, entry: FileEntry) -> str | None:
    """Return what is wrong with a file; one that is, is read again, since bytes are altered on their way too."""
    for _ in range(2):
        found = _size_and_sha256(bucket, key, entry.size)
        if found == (entry.size, entry.sha256):
            return None
    if found is None:
        return f"{bucket.uri(key)} is missing"
    size, _ = found
    if size != entry.size:
        at_least = "more than " if size > entry.size else ""
        return (
            f"{bucket.uri(key)} has {at_least}{min(size, entry.size)} bytes instead of the {entry.size} of its manifest"
        )
    return f"{bucket.uri(key)} was altered: its sha256 is not the one of its manifest"


def _size_and_sha256(bucket: Store, key: str, expected: int) -> tuple[int, str] | None:
    """Read an object, a piece at a time and not far beyond the expected size; nothing where there is none."""

    def hashed(body: Any) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        while size <= expected and (chunk := body.read(CHUNK)):
            digest.update(chunk)
            size += len(chunk)
        return size, digest.hexdigest()

    return read_object(bucket, key, hashed)


def _problem_of_move(bucket: Store, release: str, sha256: str) -> str | None:
    """Return what is wrong with a manifest that a channel names."""
    try:
        return None if find_manifest(bucket, release, sha256) else f"it names release {release}, which is not there"
    except DamagedError as error:
        return str(error)
