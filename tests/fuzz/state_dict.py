"""A file of weights as PyTorch saves it, in the old format and in the new one."""

import numpy as np

from tasks.models.torch_file import read_state_dict
from tasks.stage.errors import InputError
from tests.fixtures.torch_files import legacy_bytes, parameter, stored, view_of, zip_bytes
from tests.fuzz.scratch import file_of


def check(data: bytes) -> bool:
    """Read bytes as a file of weights; they give arrays that are little larger than the file, or an InputError."""
    try:
        arrays = read_state_dict(file_of(data))
    except InputError:
        return False
    distinct = {id(array): array for array in arrays.values()}
    assert sum(array.nbytes for array in distinct.values()) <= 4 * len(data)
    assert all(array.flags.c_contiguous and array.dtype.kind in "fiub" for array in arrays.values())
    return True


def seeds() -> dict[str, bytes]:
    """Return files of both formats with whole tensors, views and every kind of number."""
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    value = {
        "whole": stored("0", base),
        "turned": view_of("1", base, base.transpose(2, 0, 1)),
        "part": view_of("1", base, base[1, 1:, ::2]),
        "number": stored("2", np.array(7)),
        "parameter": parameter(stored("3", np.ones(3))),
        "flags": stored("4", np.array([True, False])),
        "bfloat16": stored("5", np.arange(3, dtype=np.uint16)),
    }
    wrapped = {"epoch": 3, "loss": 0.5, "state_dict": {"half": stored("0", np.ones((2, 1), np.float16))}}
    return {
        "views.old": legacy_bytes(value),
        "views.zip": zip_bytes(value),
        "wrapped.old": legacy_bytes(wrapped),
        "wrapped.zip": zip_bytes(wrapped),
    }
