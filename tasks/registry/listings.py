"""What `dvc pull` would write, looked at before it does: the listings of the folders that a dvc.lock names.

DVC believes what its remote says a folder holds, `../` and all. Whoever may write there could so put a module beside
the code. A listing that was looked at lies in DVC's own cache, from where `dvc pull` then takes it.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.stage.errors import InputError
from tasks.stage.files import replaced_file


class ListingError(InputError):
    """A folder's listing has a file outside the folder; the text says which."""


def check_listing(files: Iterable[tuple[str, ...]], name: str) -> None:
    """Raise ListingError where a folder's listing has a file outside the folder; each is the parts of its path."""
    for parts in files:
        if not parts or any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts):
            raise ListingError(f"{name} lists {'/'.join(parts)!r}, which is outside its folder")


def fetch_listings(root: Path, hashes: Iterable[str]) -> tuple[str, ...]:
    """Bring the listings of folders from DVC's remote into the workspace's cache, each looked at.

    Args:
        root: A DVC project.
        hashes: Of the listings, as dvc.lock has them, each ending in `.dir`.

    Returns:
        Those that are nowhere.

    Raises:
        ListingError: One has a file outside its folder, or is no listing.
        InputError: The remote cannot be asked.
    """
    missing = []
    with _project(root) as repo:
        for value in hashes:
            path = Path(repo.cache.local.oid_to_path(value))
            body = path.read_bytes() if path.exists() else _from_remote(repo, value)
            if body is None:
                missing.append(value)
                continue
            _check(body, value)
            if not path.exists():
                with replaced_file(path) as temporary:
                    temporary.write_bytes(body)
    return tuple(missing)


def _from_remote(repo: Any, value: str) -> bytes | None:
    """Return a listing from the default remote; nothing where there is no remote, or it has none."""
    if repo.config["core"].get("remote") is None:
        return None
    remote = repo.cloud.get_remote_odb(None, "fetch", hash_name="md5")
    try:
        return bytes(remote.fs.cat_file(remote.oid_to_path(value)))
    except FileNotFoundError:
        return None


def _check(body: bytes, value: str) -> None:
    """Raise ListingError unless a listing is the one of its hash and stays inside."""
    if f"{hashlib.md5(body, usedforsecurity=False).hexdigest()}.dir" != value:
        raise ListingError(f"{value} is not the listing that it is called after")
    try:
        files = [tuple(entry["relpath"].split("/")) for entry in json.loads(body)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ListingError(f"{value} is no listing") from error
    check_listing(files, value)


@contextlib.contextmanager
def _project(root: Path) -> Iterator[Any]:
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415
    from dvc.exceptions import DvcException  # noqa: PLC0415
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(root)) as repo:
            yield repo
    except (BotoCoreError, DvcException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"what dvc pull would write cannot be looked at, for DVC's remote cannot be asked: {reason}"
        ) from error
