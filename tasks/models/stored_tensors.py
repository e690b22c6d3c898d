"""Tensors as PyTorch stores them: views of storages by offset, shape and strides, checked before any array is made."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.stage.errors import InputError

DIMENSIONS_LIMIT = 8
EMPTY_LIMIT = 1 << 40  # product of an empty tensor's other sides, far below what NumPy can count
NAME_LIMIT = 80  # letters of a name that are shown

# Of each kind of storage how its numbers are stored, as NumPy calls it; bfloat16 is the upper half of a float32.
BFLOAT16, BOOL = "torch BFloat16Storage", "torch BoolStorage"
STORAGES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    BFLOAT16: "<u2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ByteStorage": "|u1",
    BOOL: "|u1",
}


@dataclass(frozen=True)
class Storage:
    """A run of numbers that tensors lie in.

    Attributes:
        kind: Its class, a key of STORAGES.
        key: Its name in the file.
        elements: How many numbers it claims to have.
    """

    kind: str
    key: str
    elements: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.elements * np.dtype(STORAGES[self.kind]).itemsize


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's numbers lie: each at a place of its own, all within what the storage claims to have.

    Attributes:
        storage: What they lie in.
        offset: Where the first lies, in elements.
        shape: Its sides.
        strides: The way from one to the next along each side, in elements.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """The bytes of its numbers, as they are stored."""
        return math.prod(self.shape) * np.dtype(STORAGES[self.storage.kind]).itemsize


def checked_tensor(storage: Storage, offset: Any, shape: Any, strides: Any) -> Tensor:
    """Return a tensor, once what a file says of it is known to make sense.

    Raises:
        InputError: It does not; the text goes on after the file's name.
    """
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)):
        raise InputError("has a tensor without a stride for each of its sides")
    if len(shape) > DIMENSIONS_LIMIT:
        raise InputError(f"has a tensor of more than {DIMENSIONS_LIMIT} sides")
    if not all(map(is_count, (offset, *shape, *strides))):
        raise InputError("has a tensor with a side, stride or offset that is no count")
    tensor = Tensor(storage, offset, shape, strides)
    _check_place(tensor)
    return tensor


def _check_place(tensor: Tensor) -> None:
    """Refuse a tensor that reaches beyond its storage, or reads a number of it twice and so could be of any size."""
    if 0 in tensor.shape:
        if math.prod(side for side in tensor.shape if side) > EMPTY_LIMIT:
            raise InputError("has an empty tensor with sides of impossible length")
        return
    last = 0  # the greatest distance from the first number, along the sides looked at so far
    for stride, side in sorted(zip(tensor.strides, tensor.shape, strict=True)):
        if side > 1:
            if stride <= last:
                raise InputError("has a tensor whose strides overlap")
            last += (side - 1) * stride
    if tensor.offset + last >= tensor.storage.elements:
        raise InputError(f"has a tensor that reaches beyond its storage {shown(tensor.storage.key)}")


def to_array(numbers: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's numbers.

    Args:
        numbers: (N,), all of its storage, of the type that STORAGES names.
        tensor: One that checked_tensor has seen.

    Returns:
        A C-contiguous array with memory of its own, of that type; of bfloat16 float32, of bools bool.
    """
    if 0 in tensor.shape:
        array = np.empty(tensor.shape, numbers.dtype)
    else:
        strides = tuple(stride * numbers.itemsize for stride in tensor.strides)
        view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)
        array = np.array(view, order="C")
    if tensor.storage.kind == BFLOAT16:
        bits = array.astype(np.uint32)
        bits <<= 16  # in place: an array without sides stays one
        return bits.view(np.float32)
    return array.astype(np.bool_) if tensor.storage.kind == BOOL else array


def is_count(value: Any) -> bool:
    """Return whether a value is an int of 0 or more, and no bool."""
    return type(value) is int and value >= 0


def shown(name: str) -> str:
    """Return a stranger's name in quotes, not endlessly long."""
    return repr(name if len(name) <= NAME_LIMIT else name[:NAME_LIMIT] + "…")
