"""Credentials of the local servers: made once, kept in files that only their owner can read."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from tasks.stage.files import OWNER_ONLY, replaced_file


@dataclass(frozen=True)
class KeyPair:
    """An S3 access key and its secret; `repr` shows neither."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return "KeyPair(…)"


def generate_key_pair() -> KeyPair:
    """Return a fresh pair in the shape that S3 clients expect: 20 upper-case characters and 40 secret ones."""
    return KeyPair(access_key="LOCAL" + secrets.token_hex(8).upper()[:15], secret_key=secrets.token_hex(20))


def private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, or make of one that is there such a one."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def write_private_text(path: Path, text: str) -> None:
    """Write a file that never, not even for an instant, can be read by others: mode 600 before the first byte."""
    with replaced_file(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
