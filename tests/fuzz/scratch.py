"""A file for what a parser wants to read from a path, and for what it wants to write."""

import atexit
import tempfile
from pathlib import Path

_folder = tempfile.TemporaryDirectory(prefix="fuzz-")
atexit.register(_folder.cleanup)
FOLDER = Path(_folder.name)


def file_of(data: bytes, name: str = "input") -> Path:
    """Return a file with these bytes, the same one every time."""
    path = FOLDER / name
    path.write_bytes(data)
    return path
