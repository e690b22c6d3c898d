"""Names as people's systems write them: one form of Unicode, folders, and the clutter that nobody meant to pack."""

import unicodedata
import zipfile
from pathlib import PurePosixPath

from tasks.stage.errors import InputError

UTF8_FLAG = 0x800
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
# Of macOS, Windows, Synology and QNAP, in lower case: some write `Thumbs.db`, some `thumbs.db`.
CLUTTER = frozenset(
    {
        "__macosx",
        "icon\r",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "@eadir",
        "#recycle",
        "@recycle",
        "lost+found",
        "__pycache__",
    }
)


def is_clutter(name: str) -> bool:
    """Tell a file that people did not mean to pack: hidden, `__MACOSX`, `Thumbs.db` in any case."""
    return any(part.casefold() in CLUTTER or part.startswith(".") for part in PurePosixPath(name).parts)


def member_name(name: str) -> str:
    """Return a member's path in its plain form: NFC, so that what looks alike is alike, without `./` or a last `/`.

    Raises:
        InputError: There is no name, it is not UTF-8, or it is absolute, climbs out, or has backslashes.
    """
    if not name:
        raise InputError("has a member without a name")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"has a member whose name is not UTF-8: {name!r}") from error
    if "\\" in name:
        raise InputError(f"has a member with backslashes in its name: {name!r}; pack it again, with / between folders")
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise InputError(f"has a member whose path is absolute or climbs out of the archive: {name!r}")
    return str(PurePosixPath(unicodedata.normalize("NFC", name)))


def zip_name(entry: zipfile.ZipInfo) -> str:
    """Return the name of a zip's entry as every unzip shows it.

    A name without the UTF-8 flag is read as UTF-8 all the same (macOS does not set it), and where its folders are
    parted by backslashes alone (PowerShell 5, .NET below 4.6.1), these are taken for slashes.

    Raises:
        InputError: It is in another encoding, of which the archive does not say the name.
    """
    name = entry.filename
    if not entry.flag_bits & UTF8_FLAG and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError as error:
            raise InputError(
                f"has a member whose name is neither UTF-8 nor ASCII, shown here as {name!r}: it was packed in the "
                "encoding of one machine's language; pack it again as a .tar, or as a .zip with UTF-8 names"
            ) from error
    return name.replace("\\", "/") if "/" not in name else name
