"""Weights as torch.save writes them (.pth, .pt), read without PyTorch; nothing in the file is run.

Two formats. Before PyTorch 1.6: five pickles (a magic number, a protocol version, what wrote it, the object, the keys
of the storages), then for each key a count and that many numbers. Since: a zip of uncompressed members, of which
`<name>/data.pkl` is the object and `<name>/data/<key>` a storage's numbers. Both are little-endian here.
(torch/serialization.py of PyTorch 2.13: _legacy_load, _load; caffe2/serialize/inline_container.h.)
"""

import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.models.pickled_tensors import PICKLE_LIMIT, Pickled, read_pickle
from tasks.models.stored_tensors import STORAGES, Storage, Tensor, shown, to_array
from tasks.stage.errors import InputError

FILE_LIMIT = 2 << 30  # bytes; EfficientNet-Lite0 has 19 MB
VIEWS_LIMIT = 2  # times the file's bytes: a tensor and its transpose, say, are two views of one storage
MEMBERS_LIMIT = 100_000
DIRECTORY_LIMIT = 16 << 20  # bytes of the zip's list of members

ZIP_MARK = b"PK\x03\x04"
LEGACY_MARK = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # 0x1950a86a20f9469cfc6c, pickled
LEGACY_VERSION = 1001

END = struct.Struct("<4s4H2LH")  # a zip's last record (APPNOTE.TXT 4.3.16)
END64 = struct.Struct("<4sQ2H2L4Q4sLQL")  # what PyTorch writes before it (4.3.14, 4.3.15)
END_MARK, END64_MARK, LOCATOR_MARK = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
ENCRYPTED = 1  # a member's flag


@dataclass(frozen=True)
class _Saved:
    """An object that torch.save wrote, and how the bytes of one of its storages are had."""

    pickled: Pickled
    read: Callable[[Storage], bytes | memoryview]


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a state_dict by name, in the file's order.

    An object with a dict called `state_dict`, as training scripts save it, stands for that dict. What else such an
    object holds, which layers wrote a tensor and whether it is to be trained are left out.

    Args:
        path: A file of torch.save, of at most FILE_LIMIT bytes.

    Returns:
        Arrays of float32, float64, float16, int64, int32, uint8 or bool; bfloat16 becomes float32, which is exact. Each
        is C-contiguous and owns its numbers; names that share one tensor in the file share one array. All together
        have at most VIEWS_LIMIT times the file's bytes, or twice that where they are bfloat16.

    Raises:
        InputError: There is no such file, or it is anything else than a sound state_dict of such tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no file of weights here")
    try:
        return _state_dict(path)
    except InputError as error:
        raise InputError(f"{path} {error}") from error


def _state_dict(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > FILE_LIMIT:
            raise InputError(f"has more than {FILE_LIMIT:,} bytes, the most that a file of weights may have")
        data = stream.read(size)
    if data.startswith(ZIP_MARK):
        saved = _read_zip(data)
    elif data.startswith(LEGACY_MARK):
        saved = _read_legacy(data)
    else:
        raise InputError("is no file of weights that torch.save wrote")
    tensors = _tensors(saved.pickled.value)
    distinct = dict.fromkeys(tensors.values())
    if sum(tensor.size for tensor in distinct) > VIEWS_LIMIT * len(data):
        raise InputError("has tensors that together claim far more bytes than the file has")
    arrays = _arrays(distinct, saved.read)
    return {name: arrays[tensor] for name, tensor in tensors.items()}


def _tensors(value: Any) -> dict[str, Tensor]:
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict):
        raise InputError(f"holds no state_dict but something of type {type(value).__name__}")
    for name, tensor in value.items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"holds {shown(name)}, which is no tensor but of type {type(tensor).__name__}")
        if not name.isprintable():
            raise InputError(f"has a tensor whose name cannot be printed: {shown(name)}")
    return value


def _read_legacy(data: bytes) -> _Saved:
    version = read_pickle(data, len(LEGACY_MARK))
    if version.value != LEGACY_VERSION:
        raise InputError(f"is of another version of PyTorch's old format than {LEGACY_VERSION}")
    system = read_pickle(data, version.end)
    if not isinstance(system.value, dict) or system.value.get("little_endian") is not True:
        raise InputError("was not written by a little-endian machine")
    pickled = read_pickle(data, system.end)
    keys = read_pickle(data, pickled.end)
    if not isinstance(keys.value, list) or not all(isinstance(key, str) for key in keys.value):
        raise InputError("has no list of its storages")
    if len(keys.value) != len(pickled.storages) or set(keys.value) != pickled.storages.keys():
        raise InputError("has a list of storages that are not those of its tensors")
    places, end = {}, keys.end
    for key in keys.value:
        storage, start = pickled.storages[key], end + 8
        end = start + storage.size
        if end > len(data) or int.from_bytes(data[start - 8 : start], "little") != storage.elements:
            raise InputError(f"has a storage {shown(key)} that claims more or fewer numbers than are in the file")
        places[key] = memoryview(data)[start:end]
    if end != len(data):
        raise InputError("goes on after its last storage")
    return _Saved(pickled, lambda storage: places[storage.key])


def _read_zip(data: bytes) -> _Saved:
    _check_end(data)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError, OverflowError) as error:
        raise InputError(f"is a damaged zip: {error}") from error
    members = _checked_members(archive, len(data))
    root = archive.infolist()[0].filename.partition("/")[0]
    byte_order, program = members.get(f"{root}/byteorder"), members.get(f"{root}/data.pkl")
    if program is None or program.file_size > PICKLE_LIMIT:
        raise InputError(f"is no zip of torch.save: it has no data.pkl of at most {PICKLE_LIMIT:,} bytes")
    if byte_order is not None and (byte_order.file_size != 6 or _member(archive, byte_order) != b"little"):
        raise InputError("was not written by a little-endian machine")
    body = _member(archive, program)
    pickled = read_pickle(body)
    if pickled.end != len(body):
        raise InputError("has a data.pkl that goes on after its end")
    prefix = f"{root}/data/"
    _check_storages(
        pickled.storages,
        {name.removeprefix(prefix): entry.file_size for name, entry in members.items() if name.startswith(prefix)},
    )
    return _Saved(pickled, lambda storage: _member(archive, members[prefix + storage.key]))


def _check_end(data: bytes) -> None:
    """Check a zip's last records before zipfile believes them: nothing follows, and the list of members is bounded."""
    start = len(data) - END.size
    if start < 0 or data[start : start + 4] != END_MARK:
        raise InputError("is a zip that was cut short, or goes on after its end")
    _, _, _, _, count, size, place, comment = END.unpack_from(data, start)
    gap = start - place - size
    if comment or count > MEMBERS_LIMIT or size > DIRECTORY_LIMIT or gap not in (0, END64.size):
        raise InputError("is a zip whose end is not as PyTorch writes it")
    if gap:
        mark, _, _, _, _, _, *claims, locator, _, record, _ = END64.unpack_from(data, start - gap)
        expected = [END64_MARK, count, count, size, place, LOCATOR_MARK, start - gap]
        if [mark, *claims, locator, record] != expected:
            raise InputError("is a zip whose end is not as PyTorch writes it")


def _checked_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    entries = archive.infolist()
    members = {entry.filename: entry for entry in entries}
    if not entries or len(members) != len(entries):
        raise InputError("is a zip with no member, or with two of one name")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
            raise InputError(f"has {shown(entry.filename)} compressed or encrypted, as PyTorch does not write it")
        if entry.compress_size != entry.file_size or not 0 <= entry.header_offset < archive.start_dir:
            raise InputError(f"is a damaged zip: {shown(entry.filename)} is not where it should be")
    if sum(entry.file_size for entry in entries) > size:
        raise InputError("has members that claim more bytes than the file has")
    return members


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(entry)  # all of its bytes: zipfile compares their number and their CRC
    except (zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"has {shown(entry.filename)} damaged") from error


def _check_storages(storages: Mapping[str, Storage], stored: Mapping[str, int]) -> None:
    if storages.keys() != stored.keys():
        raise InputError("has storages that are not those of its tensors")
    for key, storage in storages.items():
        if storage.size != stored[key]:
            raise InputError(f"has a storage {shown(key)} that claims more or fewer numbers than are in the file")


def _arrays(tensors: Iterable[Tensor], read: Callable[[Storage], bytes | memoryview]) -> dict[Tensor, NDArray[Any]]:
    """Return an array for each tensor; each storage is read once, and one is in memory at a time."""
    by_storage: dict[Storage, list[Tensor]] = {}
    for tensor in tensors:
        by_storage.setdefault(tensor.storage, []).append(tensor)
    arrays: dict[Tensor, NDArray[Any]] = {}
    for storage, lying in by_storage.items():
        numbers = np.frombuffer(read(storage), STORAGES[storage.kind], storage.elements)  # fewer would raise
        arrays |= {tensor: to_array(numbers, tensor) for tensor in lying}
    return arrays
