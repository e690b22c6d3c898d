"""What a file of weights (HDF5, as Keras writes it) may hold: plain arrays of floats whose bytes are all there.

HDF5 can do far more: a dataset may claim a size that is nowhere stored, lie in another file, be assembled from others,
be decompressed on reading, hold objects. Only names, types and places are read here, never an array.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py

from tasks.stage.errors import InputError

OBJECTS_LIMIT = 100_000
DIMENSIONS_LIMIT = 8
ITEM_BYTES = ((h5py.h5t.IEEE_F32LE, 4), (h5py.h5t.IEEE_F64LE, 8))

Shape = tuple[int, ...]


def stored_shapes(stream: BinaryIO, size: int) -> list[Shape]:
    """Return the shapes of all arrays of an HDF5 file, in no particular order.

    Args:
        stream: The file, which can be read from any position.
        size: Its bytes.

    Raises:
        InputError: It is damaged, or has something else than groups and plain arrays, or arrays whose bytes are not in
            the file; the text goes on after the file's name.
    """
    with opened(stream) as file:
        return checked_shapes(file.id, size)


@contextlib.contextmanager
def opened(stream: BinaryIO) -> Iterator[h5py.File]:
    """Open an HDF5 file to look into it; what h5py raises meanwhile becomes an InputError."""
    try:
        with h5py.File(stream, "r") as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # h5py raises many types on damaged files
        raise InputError(f"has weights that cannot be read: {type(error).__name__}") from error


def checked_shapes(root: Any, size: int) -> list[Shape]:
    """Return what stored_shapes does, of an open file's h5py FileID; raises InputError likewise."""
    shapes = []
    left = size
    for dataset in _datasets(root):
        shape, stored = _checked_dataset(dataset, size)
        left -= stored
        if left < 0:
            raise InputError("has weights that claim more bytes than their file has")
        shapes.append(shape)
    return shapes


def _datasets(root: Any) -> Iterator[Any]:
    """Yield every dataset, each object once: only hard links are followed, and none twice."""
    waiting, seen = [h5py.h5g.open(root, b"/")], set()
    while waiting:
        group = waiting.pop()
        for name in group:
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise InputError("has weights with a link to another place or file")
            item = h5py.h5o.open(group, name)
            address = h5py.h5o.get_info(item).addr
            if address in seen:
                raise InputError("has weights with two names for one object")
            seen.add(address)
            if len(seen) > OBJECTS_LIMIT:
                raise InputError(f"has weights in more than {OBJECTS_LIMIT:,} objects")
            if isinstance(item, h5py.h5g.GroupID):
                waiting.append(item)
            elif isinstance(item, h5py.h5d.DatasetID):
                yield item
            else:
                raise InputError("has weights with a named type, which Keras does not write")


def _checked_dataset(dataset: Any, size: int) -> tuple[Shape, int]:
    """Return a dataset's shape and bytes, once it is known to lie in the file as a plain array."""
    plan = dataset.get_create_plist()
    if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_external_count() or plan.get_nfilters():
        raise InputError("has weights that are compressed, in pieces or in another file")
    if h5py.h5a.get_num_attrs(dataset):
        raise InputError("has weights with attributes, which Keras does not write for float32 and float64")
    kind = dataset.get_type()
    bytes_of_one = next((count for known, count in ITEM_BYTES if kind.equal(known)), None)
    if bytes_of_one is None:
        raise InputError("has weights that are neither float32 nor float64")
    space = dataset.get_space()
    if space.get_simple_extent_type() != h5py.h5s.SIMPLE or space.get_simple_extent_ndims() > DIMENSIONS_LIMIT:
        raise InputError("has weights that are not arrays")
    shape = tuple(int(side) for side in space.get_simple_extent_dims())
    claimed = math.prod(shape) * bytes_of_one
    start = dataset.get_offset()
    if claimed and (start is None or dataset.get_storage_size() != claimed or start + claimed > size):
        raise InputError(f"has weights that claim {claimed:,} bytes which are not in their file")
    return shape, claimed
