"""`registry list`: every release's row, with two requests for each thousand releases.

One lists the folders below `releases/`, one the rows of the index; a manifest is read only where it has no row there.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tasks.registry.index import Row, read_index, row_of
from tasks.registry.manifest import DamagedError, is_release_id
from tasks.registry.releases import FOLDER, find_manifest
from tasks.registry.store import Store

READERS = 8  # manifests read at once; boto3's client keeps ten connections


@dataclass(frozen=True)
class Listing:
    """All releases, newest first, and a sentence for each whose manifest cannot be listed."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]


def list_rows(bucket: Store) -> Listing:
    """Return what the bucket holds; a folder without a manifest is not a release.

    Raises:
        InputError: The store refused.
    """
    releases = [name for name in bucket.folders(FOLDER) if is_release_id(name)]
    index = read_index(bucket)
    rows = [index[release] for release in releases if release in index]
    problems = []
    with ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(lambda release: _read_row(bucket, release), set(releases) - index.keys()):
            if isinstance(found, Row):
                rows.append(found)
            elif found is not None:
                problems.append(found)
    rows.sort(key=lambda row: (row.created_at, row.id), reverse=True)
    return Listing(tuple(rows), tuple(sorted(problems)))


def _read_row(bucket: Store, release: str) -> Row | str | None:
    """Return a release's row from its manifest; what is wrong with that; or nothing where there is none."""
    try:
        manifest = find_manifest(bucket, release)
        return None if manifest is None else row_of(manifest)
    except DamagedError as error:
        return str(error)
