"""What must hold in a bucket whatever happened to it: each violation is a sentence."""

import contextlib
import os
from collections.abc import Callable, Iterator, Set
from pathlib import Path

from tasks.registry.channels import CHANNELS, read_pointer
from tasks.registry.manifest import Manifest
from tasks.registry.moves import all_moves
from tasks.registry.releases import find_manifest, list_releases, pull_release, verify_folder
from tasks.registry.store import Store
from tasks.stage.errors import InputError

Gate = Callable[[Manifest, Manifest | None], str | None]


def audit(bucket: Store, acknowledged: Set[str], gate: Gate, folder: Path) -> list[str]:
    """Return what is wrong: with releases, with what was acknowledged, and with the channels.

    Args:
        bucket: To look into, over a sound connection.
        acknowledged: Ids of the releases whose publisher was told that all is done.
        gate: Decided which release replaces which champion.
        folder: For copies.
    """
    releases = {manifest.id: manifest for manifest in list_releases(bucket)}
    return [
        *_unsound_releases(bucket, releases, folder),
        *(f"{release} was acknowledged and is lost" for release in acknowledged - set(releases)),
        *_wrong_moves(bucket, acknowledged),
        *_wrong_champion(bucket, releases, gate),
    ]


def _unsound_releases(bucket: Store, releases: dict[str, Manifest], folder: Path) -> Iterator[str]:
    for manifest in releases.values():
        try:
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):  # its progress
                pull_release(bucket, manifest, folder / manifest.id)
            verify_folder(folder / manifest.id)
        except InputError as error:
            yield f"{manifest.id} is visible, but {error}"


def _wrong_moves(bucket: Store, acknowledged: Set[str]) -> Iterator[str]:
    """A channel names releases only, each with the manifest that it has, and the candidate was every one of them."""
    for channel in CHANNELS:
        moves = all_moves(bucket, read_pointer(bucket, channel))
        for move in moves:
            try:
                if find_manifest(bucket, move.release, move.manifest_sha256) is None:
                    yield f"{channel} names {move.release}, which is no release"
            except InputError as error:
                yield f"{channel}: {error}"
        if channel == "candidate":
            yield from (f"{release} was never candidate" for release in acknowledged - {move.release for move in moves})


def _wrong_champion(bucket: Store, releases: dict[str, Manifest], gate: Gate) -> Iterator[str]:
    """Each champion passed the gate against the one before."""
    champions = [release for release in _champions(bucket) if release.id in releases]
    for before, after in zip([None, *champions], champions, strict=False):
        if gate(after, before) is None:
            yield f"champion {after.id} does not pass the gate against {before.id if before else 'nothing'}"


def passed_over(bucket: Store, gate: Gate) -> list[str]:
    """Return which releases were never champion though no champion keeps them out, once every publisher has ended.

    Where there is none, some order of the publications leads to this history: that of the champions, with every other
    release right after one that keeps it out.
    """
    champions = _champions(bucket)
    never = [release for release in list_releases(bucket) if release not in champions]
    return [f"{release.id} should be champion" for release in never if all(gate(release, each) for each in champions)]


def _champions(bucket: Store) -> list[Manifest]:
    found = [find_manifest(bucket, move.release) for move in all_moves(bucket, read_pointer(bucket, "champion"))]
    return [manifest for manifest in found if manifest is not None]
