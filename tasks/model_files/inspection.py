"""Whether a model file may be given to Keras: a look at the archive before anything in it is built or allocated.

Three members and nothing else, uncompressed, of bounded size; a config of known classes; weights that are all there and
are exactly the config's. What passes can cost Keras a few times the file's own size in memory, and runs no code of its
author's.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from tasks.model_files.configuration import weight_shapes
from tasks.models.weights_file import stored_shapes
from tasks.stage.errors import InputError

CONFIG, METADATA, WEIGHTS = MEMBERS = ("config.json", "metadata.json", "model.weights.h5")
LIMITS = {CONFIG: 2 << 20, METADATA: 4 << 10, WEIGHTS: 2 << 30}  # bytes; ResNet50 needs 250 KB and 94 MB
DIRECTORY_LIMIT = 4 << 10  # bytes of the archive's list of members

END = struct.Struct("<4s4H2LH")  # a zip's last record (APPNOTE.TXT 4.3.16)
END_MARK, END64_MARK = b"PK\x05\x06", b"PK\x06\x07"
END64_BYTES = 20
HEADER = struct.Struct(
    "<26xHH"
)  # what stands before a member's bytes ends with the lengths of its name and extra fields
HDF5_MARK = b"\x89HDF\r\n\x1a\n"


def inspect_archive(path: Path) -> None:
    """Refuse a model file that is anything else than what Keras 3.15 writes for a model of ours.

    Raises:
        InputError: The text goes on after the file's name.
    """
    with path.open("rb") as stream:
        _check_end(stream)
        try:
            with zipfile.ZipFile(stream) as archive:
                _check_members(archive, path.stat().st_size)
                _check_layout(stream, archive)
                expected = weight_shapes(archive.read(CONFIG))
                archive.read(METADATA)
                weights = archive.read(WEIGHTS)  # as Keras does; and its checksum is compared
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
            raise InputError(f"is damaged: {error}") from error
    found = stored_shapes(io.BytesIO(weights), len(weights))
    if sorted(expected) != sorted(found):
        raise InputError(f"has {len(found)} arrays of weights that are not the {len(expected)} of its config.json")


def _check_end(stream: BinaryIO) -> None:
    """Check the record at the archive's end first: by it alone zipfile would read a directory of any size."""
    if stream.read(len(HDF5_MARK)) == HDF5_MARK:
        raise InputError("is an HDF5 file, a format that can carry code; only .keras archives are read")
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - END.size - END64_BYTES))
    tail = stream.read()
    if len(tail) < END.size or tail[-END.size :][:4] != END_MARK:
        raise InputError("is not a Keras model: it is no .keras archive, or one that was cut short")
    *_, members, directory, start, comment = END.unpack(tail[-END.size :])
    plain = comment == 0 and members == len(MEMBERS) and directory <= DIRECTORY_LIMIT
    if not plain or start + directory + END.size != size or tail.startswith(END64_MARK):
        raise InputError(f"is not a Keras model: its members are not exactly {', '.join(MEMBERS)}")


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    if sorted(entry.filename for entry in entries) != sorted(MEMBERS):
        raise InputError(f"is not a Keras model: its members are not exactly {', '.join(MEMBERS)}")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise InputError(f"has {entry.filename} compressed or encrypted, as Keras does not write it")
        if entry.file_size > LIMITS[entry.filename]:
            raise InputError(f"has a {entry.filename} of {entry.file_size:,} bytes, more than it may have")
    if sum(entry.file_size for entry in entries) > size:
        raise InputError("has members that claim more bytes than the archive has")


def _check_layout(stream: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Refuse bytes that are no member's: each begins where the one before it ends, and nothing is said beside it."""
    place = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        stream.seek(entry.header_offset)
        name, extra = HEADER.unpack(stream.read(HEADER.size))
        if entry.header_offset != place or extra or entry.extra or entry.comment:
            raise InputError(f"has bytes beside {entry.filename} that no member holds, as Keras does not write them")
        place += HEADER.size + name + entry.file_size
    if place != archive.start_dir:
        raise InputError("has bytes after its members that no member holds, as Keras does not write them")
