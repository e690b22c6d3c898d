"""A file of weights in Keras's older format."""

import io

import h5py
import numpy as np

from tasks.models.keras_file import read_layers
from tasks.stage.errors import InputError
from tests.fuzz.scratch import file_of


def check(data: bytes) -> bool:
    """Read bytes as a file of weights; they give arrays that are no larger than the file, or an InputError."""
    try:
        layers = read_layers(file_of(data))
    except InputError:
        return False
    assert sum(array.nbytes for layer in layers or [] for array in layer) <= len(data)
    return layers is not None


def seeds() -> dict[str, bytes]:
    """Return files with names of any length, as h5py writes them today, and of one length, as it did once."""
    return {
        "today": _file([b"pool", b"dense"], [b"dense/kernel:0", b"dense/bias:0"]),
        "once": _file(np.array([b"pool", b"dense"]), np.array([b"dense/kernel:0", b"dense/bias:0"])),
    }


def _file(layers: object, weights: object) -> bytes:
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        file.attrs["layer_names"], file.attrs["backend"] = layers, b"tensorflow"
        file.create_group("pool").attrs["weight_names"] = []
        dense = file.create_group("dense")
        dense.attrs["weight_names"] = weights
        dense["dense/kernel:0"], dense["dense/bias:0"] = np.ones((4, 3), np.float32), np.ones(3)
    return body.getvalue()
