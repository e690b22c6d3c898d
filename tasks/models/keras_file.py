"""Weights in Keras's older format (HDF5, .h5), as keras.applications publishes them: read without Keras, and strictly.

A group for each layer, in it plain arrays. Which groups and arrays there are, and in which order, attributes say: lists
of names. (keras/src/legacy/saving/legacy_h5_format.py of Keras 3.15: load_weights_from_hdf5_group.) All else that the
file may hold is left unread; what a whole model has beside its weights, its config for one, is not looked for.

Names may be of any length, and are then kept in heaps, where a hundred thousand may share one name of a gigabyte: so
heaps are looked for first, and one that is larger than names need is refused.
"""

import itertools
import math
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tasks.models.weights_file import checked_shapes, opened
from tasks.stage.errors import InputError

NAMES_LIMIT = 10_000  # of layers and arrays; VGG16 has 45, ResNet50 some 500
NAMES_BYTES_LIMIT = 1 << 20  # of one list
HEAP_LIMIT = 16 << 10  # bytes; HDF5 makes them of 4 KiB, or as large as one thing in them
HEAP_MARK = b"GCOL"  # a global heap's first bytes; its own size follows at 8 (HDF5 file format 3.0, III.E)
LAYERS, ARRAYS = "layer_names", "weight_names"

Layer = list[NDArray[np.floating[Any]]]


def read_layers(path: Path) -> list[Layer] | None:
    """Return the arrays of each layer that has any, in the file's order; None for an HDF5 file of another format.

    Args:
        path: The file.

    Raises:
        InputError: It is damaged, or holds anything that stored_shapes refuses, or names without end; the text goes on
            after the file's name.
    """
    size = path.stat().st_size
    with path.open("rb") as stream, opened(stream) as file:
        if not _has_names(file, LAYERS):
            return None
        checked_shapes(file.id, size)
        _check_heaps(path)
        return _Reader(file, size).layers()


class _Reader:
    """Reads a file whose links and arrays are known to be plain."""

    def __init__(self, file: h5py.File, size: int) -> None:
        self._file, self._names_left, self._bytes_left = file, NAMES_LIMIT, size

    def layers(self) -> list[Layer]:
        found = []
        for name in self._names(self._file, LAYERS):
            group = self._file.get(name)
            if not isinstance(group, h5py.Group):
                raise InputError(f"names a layer {name[:80]!r} that it does not hold")
            if layer := [self._array(group, array) for array in self._names(group, ARRAYS)]:
                found.append(layer)
        return found

    def _array(self, group: h5py.Group, name: str) -> NDArray[np.floating[Any]]:
        array = group.get(name)
        if not isinstance(array, h5py.Dataset):
            raise InputError(f"names an array {name[:80]!r} that it does not hold")
        self._bytes_left -= math.prod(array.shape) * array.dtype.itemsize
        if self._bytes_left < 0:
            raise InputError("names arrays again and again, together more than it has bytes")
        values: NDArray[np.floating[Any]] = array[()]
        return values

    def _names(self, group: h5py.Group, kind: str) -> list[str]:
        """Return a list of names, which Keras cuts into numbered ones where it is long."""
        numbered = (f"{kind}{number}" for number in itertools.count())
        keys: Iterable[str] = itertools.takewhile(group.attrs.__contains__, numbered)
        if kind in group.attrs:
            keys = [kind]
        return [name for key in keys for name in self._some_names(group, key)]

    def _some_names(self, group: h5py.Group, key: str) -> list[str]:
        attribute = group.attrs.get_id(key)
        count = math.prod(attribute.shape)
        if count == 0:
            return []  # which h5py writes as numbers
        self._names_left -= count
        kind = attribute.get_type()
        plain = isinstance(kind, h5py.h5t.TypeStringID) and len(attribute.shape) == 1
        if not plain or self._names_left < 0 or count * kind.get_size() > NAMES_BYTES_LIMIT:
            raise InputError(f"has {key} that are no list of at most {NAMES_LIMIT:,} names")
        return [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[key]]


def _has_names(file: h5py.File, kind: str) -> bool:
    return kind in file.attrs or f"{kind}0" in file.attrs


def _check_heaps(path: Path) -> None:
    """Refuse a heap that is larger than names need, wherever in the file one may begin."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(HEAP_MARK)
        while place >= 0:
            claimed = int.from_bytes(data[place + 8 : place + 16], "little")
            if HEAP_LIMIT < claimed <= len(data) - place:  # by a larger one HDF5 itself is not led astray
                raise InputError(f"has a heap of {claimed:,} bytes, more than names of layers need")
            place = data.find(HEAP_MARK, place + 1)
