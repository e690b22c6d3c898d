"""Stage download: addresses → data/raw, the archive or snapshot that download.sha256 names, verified by it."""

import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tasks.data.archive import archive_suffix, members
from tasks.data.digits import bundled_digits
from tasks.data.snapshot import SNAPSHOT_NAME
from tasks.params.data import DownloadParams
from tasks.params.params import load_params
from tasks.sources.addresses import TransferSettings, shown
from tasks.sources.look import look
from tasks.sources.memory import Memory
from tasks.sources.renewal import forget_version, is_renewed
from tasks.sources.snapshots import Looked, look_again, place_snapshot
from tasks.sources.source import RawSource, is_intact, load_source, save_source
from tasks.sources.transfer import RetryPolicy, fetch
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import replaced_folder, sha256_of

RAW = Path("data/raw")
CACHE = Path(".cache/downloads")


def download(params: DownloadParams, raw: Path, cache: Path = CACHE) -> None:
    """Fetch a data set's archive, or a collection's snapshot.

    Verified bytes are kept in the cache too, by a hard link where that is possible: DVC removes a stage's output
    before it runs the stage, and what was verified is not to be fetched again. Neither is ever written in place.

    Args:
        params: The section `download`.
        raw: Folder of the archive and source.json, replaced as a whole; equal bytes give an equal folder.
        cache: Folder of partial and verified downloads.

    Raises:
        OutageError: No address gave the bytes asked for, and one of them may do so later; `raw` is as it was before.
        InputError: No address gave the bytes asked for, or they are no archive; `raw` is then as it was before.
    """
    if params.collection is not None:
        _download_snapshot(params, params.collection, raw, cache)
        return
    bundled = bundled_digits() if params.dataset == "digits" else None
    wanted = sha256_of(bundled) if bundled else params.sha256
    if wanted and _is_there(raw, params.dataset, wanted):
        print(f"{raw} is there already, its sha256 verified")
        return
    addresses = (bundled.as_uri(),) if bundled else params.addresses
    archive = fetch(addresses, wanted, cache, _retry(params), _connect_s3)
    if not bundled:
        _refuse_no_archive(archive, addresses)
    name, size = _published_name(params.dataset, archive), archive.stat().st_size
    with replaced_folder(raw) as temporary:
        _place(archive, temporary / name)
        save_source(temporary, RawSource(params.dataset, temporary / name, archive.name, size))
    print(f"{raw / name}: {size:,} bytes, sha256 {archive.name}")
    if wanted is None:
        print(f"To accept only these bytes from now on, set in params.yaml: download.sha256: {archive.name}")
        print("Without it dvc repro does not notice another archive at download.url; make run asks there each time.")


def look_at(params: DownloadParams, address: str, raw: Path, cache: Path = CACHE) -> Looked:
    """Look at a collection, and compare it with the snapshot in `raw`, or else with the one that is pinned.

    Raises:
        InputError: It is not there, does not lie as images of classes do, or has lost more than download.max_lost.
        OutageError: It is away for now.
    """
    with Memory(cache, address) as memory:
        before = _present_snapshot(raw) or params.sha256
        return look_again(address, memory, before, params.max_lost, _settings(params), _retry(params))


def _present_snapshot(raw: Path) -> str | None:
    """Return the name of the snapshot that the stages read last; None where that was none, or is not known."""
    try:
        source = load_source(raw)
    except InputError:
        return None
    return source.sha256 if source.archive.name == SNAPSHOT_NAME else None


def _download_snapshot(params: DownloadParams, address: str, raw: Path, cache: Path) -> None:
    """Put the snapshot that is pinned into `raw`, from what this machine has of the collection, or from there."""
    with Memory(cache, address) as memory:
        name, rows = params.sha256, memory.snapshot(params.sha256)
        if name is None or rows is None:
            found = look(address, memory, _settings(params), _retry(params))
            if name not in (None, found.name):
                raise InputError(
                    f"snapshot {str(name)[:16]} of {shown(address)} is not known on this machine, and the collection "
                    f"now holds another, {found.name}: dvc pull brings the images of one that a run has pushed"
                )
            name, rows = found.name, found.rows
        with replaced_folder(raw) as temporary:
            place_snapshot(address, rows, name, memory, temporary, _settings(params))
            table = temporary / SNAPSHOT_NAME
            save_source(temporary, RawSource(params.dataset, table, name, table.stat().st_size))
    print(f"{raw / SNAPSHOT_NAME}: {len(rows):,} images of {len({row.label for row in rows})} classes, sha256 {name}")


def _settings(params: DownloadParams) -> TransferSettings:
    """Return how addresses are opened, with one S3 client for all of them."""
    return TransferSettings(params.timeout_seconds, functools.cache(_connect_s3))


def _retry(params: DownloadParams) -> RetryPolicy:
    return RetryPolicy(attempts=params.attempts, timeout_seconds=params.timeout_seconds)


def archive_is_renewed(params: DownloadParams, cache: Path = CACHE) -> bool | None:
    """Return whether the address has another archive than the one that was taken; None where that cannot be told.

    One that download.sha256 names is never renewed.
    """
    if params.dataset == "digits" or params.sha256 is not None or params.collection is not None:
        return False
    settings = _settings(params)
    answers = (is_renewed(cache, address, settings) for address in params.addresses)
    return next((answer for answer in answers if answer is not None), None)


def passed_over(params: DownloadParams, raw: Path) -> str | None:
    """Return which file at download.url is plainly another archive than the one that download.sha256 pins, if any.

    Told by its size alone, and of file:// only: whoever renewed it and forgot the hash learns of it, and nobody waits.
    """
    try:
        size = load_source(raw).size
    except InputError:
        return None
    paths = [Path(url2pathname(urlsplit(url).path)) for url in params.addresses if url.startswith("file:")]
    if params.sha256 is None or params.collection is not None:
        return None
    return next((str(path) for path in paths if path.is_file() and path.stat().st_size != size), None)


def _is_there(raw: Path, dataset: str, sha256: str) -> bool:
    """Tell whether the folder holds the archive asked for, intact."""
    try:
        source = load_source(raw)
    except InputError:
        return False
    return (source.dataset, source.sha256) == (dataset, sha256) and is_intact(source)


def _refuse_no_archive(path: Path, addresses: Sequence[str]) -> None:
    """Keep nothing but an archive: a file of secrets or a login page must not go where data are pushed from."""
    try:
        found = next(members(path), None)
    except InputError as error:
        found, reason = None, str(error).replace(str(path), "it")
    else:
        reason = "it is empty"
    if found is None:
        path.unlink()
        for address in addresses:
            forget_version(path.parent, address)
        raise InputError(f"what was downloaded is no archive of images: {reason}; download.url says where it came from")


def _published_name(dataset: str, archive: Path) -> str:
    """Return the archive's name in `raw`: by its content, not by its address, for mirrors name it as they like."""
    names = {"cifar10": "cifar-10-binary.tar.gz", "digits": "digits.csv.gz"}
    return names.get(dataset) or f"images{archive_suffix(archive)}"


def _place(archive: Path, path: Path) -> None:
    """Give the archive a second name, or copy it where the file system has no hard links across folders."""
    try:
        os.link(archive, path)
    except OSError:
        shutil.copyfile(archive, path)


def _connect_s3() -> Any:
    """Return an S3 client; boto3 takes a second to import, and most data sets come over HTTP."""
    from tasks.s3.client import connect  # noqa: PLC0415

    return connect()


def main() -> None:
    """Run the stage on the repository's own folders."""
    run_command("download", lambda: download(load_params().download, RAW))


if __name__ == "__main__":
    main()
