"""Rows of a memory-mapped array, read without keeping its pages."""

import mmap
import os

import numpy as np
from numpy.typing import NDArray


def read_rows(array: NDArray[np.uint8], indices: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return array[indices], (len(indices), …) uint8.

    A memory-mapped array is read with `pread`: pages touched through the mapping would count as this process's memory,
    sixteen of them for each one touched.

    Raises:
        OSError: The file ended or could not be read.
    """
    source: object = array.base  # a view's is the whole array, at another offset in the file
    whole = isinstance(source, mmap.mmap) and array.flags["C_CONTIGUOUS"]
    if not whole or not isinstance(array, np.memmap) or array.filename is None:
        return array[indices]
    rows = np.empty((len(indices), *array.shape[1:]), array.dtype)
    flat, size = rows.reshape(-1).data, rows[:1].nbytes
    descriptor = os.open(array.filename, os.O_RDONLY)
    try:
        for position, index in enumerate(indices.tolist()):
            part = flat[position * size : (position + 1) * size]
            if os.preadv(descriptor, [part], array.offset + index * size) != size:
                raise OSError(f"{array.filename} ends before its row {index}")
    finally:
        os.close(descriptor)
    return rows
