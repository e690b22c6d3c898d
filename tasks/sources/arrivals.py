"""Archives that arrive in a collection: the images in them are the collection's, each as `<archive>!/<member>`.

An archive is read once, when it is new, and its images are packed as files are. One that is damaged, or half written,
is left out and said, and tried again by the next look; so is one whose images do not lie in folders of classes.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tasks.data.archive import members
from tasks.data.layout import Entry, read_part
from tasks.data.names import IMAGE_SUFFIXES, is_clutter
from tasks.data.shards import ShardWriter, places
from tasks.sources.addresses import StaleError, TransferError, TransferSettings, open_address
from tasks.sources.collection import Listed, is_as_listed
from tasks.sources.memory import Known, Memory, hash_of
from tasks.stage.errors import InputError

MEMBER = "!/"  # between an archive's path and its member's, as in the addresses of Java's archives
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass
class Unpacked:
    """What became of archives.

    Attributes:
        known: The mark of each that was read, and of each of its images the mark, hash and size.
        damaged: Why others could not be read.
    """

    known: dict[str, Known] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is worth a sentence."""
        return tuple(f"{path} is left out: {reason}" for path, reason in self.damaged.items())


def is_archive(path: str) -> bool:
    """Return whether a file is an archive of images, as its name says."""
    return path.lower().endswith(SUFFIXES)


def archive_of(path: str) -> str:
    """Return the path of the archive in which an image lies, or its own path where that is none."""
    return _parts(path)[0]


def unpack(archives: Sequence[Listed], memory: Memory, settings: TransferSettings) -> Unpacked:
    """Pack the images of archives into the memory's shards, and return what is known of them."""
    found = Unpacked()
    packed = set(places(memory.shards))
    with ShardWriter(memory.shards) as writer:
        for archive in archives:
            try:
                with _local(archive, memory.folder, settings) as path:
                    known = dict(_pack(archive, path, writer, packed))
            except (InputError, TransferError) as error:
                found.damaged[archive.path] = str(error)
                continue
            if is_as_listed(archive):
                found.known |= known
    return found


def read_archives(paths: Sequence[str]) -> tuple[list[Entry], tuple[str, ...]]:
    """Return the images of archives, each archive by its own folders, and why some archives are left out."""
    of_archive: dict[str, list[str]] = {}
    for path in paths:
        archive, member = _parts(path)
        if member:
            of_archive.setdefault(archive, []).append(member)
    found, remarks = list[Entry](), list[str]()
    for archive, inside in of_archive.items():
        try:
            entries = read_part(inside)
        except InputError as error:
            remarks.append(f"{archive} is left out: {str(error).replace('the archive', 'it', 1)}")
            continue
        found += [Entry(f"{archive}{MEMBER}{entry.name}", entry.split, entry.label) for entry in entries]
    return found, tuple(remarks)


def _parts(path: str) -> tuple[str, str]:
    """Return an archive and its member; the path itself and nothing where it names none: a folder may end with `!`."""
    marks = (mark.start() for mark in re.finditer(MEMBER, path))
    place = next((place for place in marks if is_archive(path[:place])), len(path))
    return path[:place], path[place + len(MEMBER) :]


def _pack(archive: Listed, path: Path, writer: ShardWriter, packed: set[str]) -> Iterator[tuple[str, Known]]:
    """Pack an archive's images; give what is known of each, and at last of the archive itself."""
    for member in members(path):
        name = PurePosixPath(member.name)
        if member.is_folder or is_clutter(member.name) or name.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        data = member.read()
        sha256 = hash_of(data)
        if sha256 not in packed:
            packed.add(sha256)
            writer.add(sha256, data)
        yield f"{archive.path}{MEMBER}{member.name}", Known(archive.mark, sha256, len(data))
    yield archive.path, Known(archive.mark, "", archive.size)


@contextlib.contextmanager
def _local(archive: Listed, folder: Path, settings: TransferSettings) -> Iterator[Path]:
    """Give the path of an archive on this machine: its own, or that of a copy for as long as the block runs."""
    if archive.address.startswith("file:"):
        yield Path(url2pathname(urlsplit(archive.address).path))
        return
    copy = folder / "arriving.tmp"
    try:
        with open_address(archive.address, 0, archive.mark, settings) as body, copy.open("wb") as stream:
            for chunk in body.chunks:
                stream.write(chunk)
        yield copy
    except StaleError as error:
        raise TransferError("it changed while it was read") from error
    finally:
        copy.unlink(missing_ok=True)
