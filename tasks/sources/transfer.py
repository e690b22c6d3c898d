"""One file from the first of several addresses that gives it: resumed, retried, and kept only if it is verified."""

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.sources.addresses import (
    StaleError,
    TemporaryError,
    TransferError,
    TransferSettings,
    is_address,
    open_address,
    shown,
)
from tasks.sources.partial import PartialFile
from tasks.sources.renewal import note_version
from tasks.stage.errors import InputError, OutageError
from tasks.stage.files import sha256_of
from tasks.stage.progress import Progress, format_duration

NOUNS = {"download": "the data set", "weights": "the pretrained weights"}


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try.

    Attributes:
        attempts: Tries at each address before the next one.
        timeout_seconds: Longest silence of a server.
        first_pause_seconds: Before the second try; it doubles from try to try, and a random part of up to a half is
            taken off, so that many workers do not come back at the same instant.
        max_pause_seconds: Bound of a pause, also of one that a server asks for.
    """

    attempts: int = 5
    timeout_seconds: float = 30
    first_pause_seconds: float = 1
    max_pause_seconds: float = 60


def fetch(
    addresses: Sequence[str],
    sha256: str | None,
    folder: Path,
    retry: RetryPolicy,
    connect_s3: Callable[[], Any],
    section: str = "download",
) -> Path:
    """Return a file with the bytes of one of `addresses`, in `folder` and named by its sha256.

    A verified file that is already there is not fetched again. What an interrupted transfer left is continued.

    Args:
        addresses: Tried in order.
        sha256: Which bytes are wanted; None takes any.
        folder: Where partial and verified files are kept.
        retry: How long to try.
        connect_s3: Gives a boto3 S3 client; called for s3:// addresses only.
        section: Of params.yaml, whose `url` the addresses are and whose `sha256` the hash, for what is said.

    Raises:
        OutageError: No address gave the file, and one of them may do so later.
        InputError: No address gave the file; the text names each one and why, without credentials.
    """
    if sha256 and _is_verified(folder / sha256, sha256):
        return folder / sha256
    for position, address in enumerate(addresses, 1):
        if not is_address(address):
            raise InputError(f"address {position} of {len(addresses)} under {section}.url is not a valid URL")
    settings = TransferSettings(retry.timeout_seconds, connect_s3)
    failures, is_transient = [], False
    for address in addresses:
        with PartialFile(folder / f"{sha256 or _key(address)}.part") as part:
            try:
                _fetch_from(address, sha256, part, retry, settings, section)
            except TransferError as error:
                failures.append(f"{shown(address)} ({error})")
                is_transient = is_transient or isinstance(error, TemporaryError)
                continue
            verified = folder / part.sha256
            if sha256 is None:
                note_version(folder, address, part.validator)
            part.keep(verified)
            return verified
    kind = OutageError if is_transient else InputError
    raise kind(f"{NOUNS[section]} could not be downloaded: {'; '.join(failures)}")


def _key(address: str) -> str:
    """Return a name for an address that gives nothing away."""
    return hashlib.sha256(address.encode()).hexdigest()


def _is_verified(path: Path, sha256: str) -> bool:
    """Tell whether a file is there and still has its bytes; a changed one is removed."""
    if not path.exists():
        return False
    if sha256_of(path) == sha256:
        return True
    path.unlink()
    return False


def _fetch_from(
    address: str, sha256: str | None, part: PartialFile, retry: RetryPolicy, settings: TransferSettings, section: str
) -> None:
    """Fill `part` from one address until it is complete and verified.

    Raises:
        TemporaryError: The address did not give the file in as many tries as `retry` allows.
        TransferError: It will not.
    """
    for attempt in range(1, retry.attempts + 1):
        try:
            if sha256 is None or part.sha256 != sha256:
                resumed = _receive(address, sha256, part, settings)
                _verify(sha256, part, resumed, section)
        except TemporaryError as error:
            if attempt == retry.attempts:
                raise TemporaryError(f"{error}; tried {attempt} times" if attempt > 1 else str(error)) from error
            pause = pause_seconds(retry, attempt, error.retry_after)
            print(f"{shown(address)}: {error}; try {attempt + 1} of {retry.attempts} in {format_duration(pause)}")
            time.sleep(pause)
        else:
            return


def _receive(address: str, sha256: str | None, part: PartialFile, settings: TransferSettings) -> bool:
    """Receive what is missing; return whether bytes of an earlier transfer were kept.

    Raises:
        TransferError: As open_address; StaleError has become TemporaryError, and the old bytes are gone.
    """
    same_address = part.address_key == _key(address)
    if sha256 is None and not (same_address and part.validator):
        part.restart()  # nothing would show that the old bytes and the new ones belong together
    begun = part.size
    validator = part.validator if same_address and begun else None
    try:
        with open_address(address, begun, validator, settings) as body:
            if body.start != part.size:
                part.restart()
            part.begin(_key(address), body.validator)
            _append_all(body.chunks, body.total, part)
    except StaleError as error:
        part.restart()
        raise TemporaryError(f"{error}, so the transfer starts again") from error
    if body.total is not None and part.size != body.total:
        raise TemporaryError(f"the transfer broke off after {part.size:,} of {body.total:,} bytes")
    return body.start > 0


def _append_all(chunks: Any, total: int | None, part: PartialFile) -> None:
    """Write the chunks as they come, with progress."""
    progress = Progress(total or 0, "bytes", done=part.size)
    try:
        for chunk in chunks:
            part.append(chunk)
            progress.update(part.size, "downloading")
    except TemporaryError as error:
        raise TemporaryError(f"{error} after {part.size:,} bytes") from error
    finally:
        progress.close()


def _verify(sha256: str | None, part: PartialFile, resumed: bool, section: str) -> None:
    """Compare the complete file's hash; our copy of a wrong file is removed.

    Raises:
        TemporaryError: It is wrong, but began with bytes of an earlier transfer, which may be to blame.
        TransferError: It is wrong, and all of it came from this address.
    """
    if sha256 in (None, part.sha256):
        return
    reason = f"its sha256 is {part.sha256} instead of {sha256}"
    renewed = (
        f"{reason}, which {section}.sha256 asks for: what stands there stays, and was not taken; if it was renewed, "
    )
    renewed += f"set {section}.sha256={part.sha256}"
    part.restart()
    raise TemporaryError(f"{reason}, so it is fetched anew") if resumed else TransferError(renewed)


def pause_seconds(retry: RetryPolicy, attempt: int, retry_after: float) -> float:
    """Return the seconds to wait after a failed attempt: exponential back-off with jitter, or what the server asks."""
    doubled = retry.first_pause_seconds * 2.0 ** (attempt - 1) * random.uniform(0.5, 1)  # noqa: S311  # no secret
    return min(max(doubled, retry_after), retry.max_pause_seconds)
