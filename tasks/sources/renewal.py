"""Whether another archive stands at an address by now, where no sha256 says which one is wanted.

A server's mark of a version (an ETag, a date; of a file its size and time) is noted beside the archives that are kept.
"""

import hashlib
from pathlib import Path

from tasks.sources.addresses import TransferError, TransferSettings, open_address
from tasks.stage.files import read_json, write_json


def note_version(folder: Path, address: str, validator: str | None) -> None:
    """Note which version an address gave; its name gives nothing away."""
    write_json(_path(folder, address), {"validator": validator})


def forget_version(folder: Path, address: str) -> None:
    """Take a note back: what the address gave is not kept."""
    _path(folder, address).unlink(missing_ok=True)


def is_renewed(folder: Path, address: str, settings: TransferSettings) -> bool | None:
    """Return whether an address has another version than the one noted; None where that cannot be told."""
    try:
        noted = read_json(_path(folder, address))["validator"]
        with open_address(address, 0, None, settings) as body:
            return None if None in (noted, body.validator) else bool(noted != body.validator)
    except (FileNotFoundError, ValueError, KeyError, TypeError, TransferError):
        return None


def _path(folder: Path, address: str) -> Path:
    return folder / f"{hashlib.sha256(address.encode()).hexdigest()}.version.json"
