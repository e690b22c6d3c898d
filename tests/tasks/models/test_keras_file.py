"""Files of weights in Keras's older format: lists of names and plain arrays, and nothing that only looks like them."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tasks.models.keras_file import read_layers
from tasks.stage.errors import InputError

KERNEL, BIAS = np.arange(1200, dtype=np.float32).reshape(40, 30), np.ones(30, np.float32)


def write(path: Path, change: Callable[[h5py.File], None] | None = None) -> Path:
    """Write a file as Keras does, of a layer with weights and one without; `change` makes something else of it."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"pool", b"block/dense"]
        file.attrs["backend"] = b"tensorflow"
        file.create_group("pool").attrs["weight_names"] = []
        layer = file.create_group("block/dense")
        layer.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        layer["dense/kernel:0"], layer["dense/bias:0"] = KERNEL, BIAS
        if change:
            change(file)
    return path


def names(place: str, key: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[place].attrs[key]
        file[place].attrs[key] = value

    return change


def replaced(**options: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["block/dense/dense/kernel:0"]
        file["block/dense/dense"].create_dataset("kernel:0", **options)

    return change


def linked(file: h5py.File) -> None:
    del file["block/dense/dense/kernel:0"]
    file["block/dense/dense/kernel:0"] = h5py.ExternalLink("/etc/passwd", "/x")


def layer_is_an_array(file: h5py.File) -> None:
    del file["pool"]
    file["pool"] = BIAS


def test_arrays_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    layers = read_layers(write(tmp_path / "own.h5"))
    assert layers is not None
    assert [[array.tolist() for array in layer] for layer in layers] == [[KERNEL.tolist(), BIAS.tolist()]]


def test_names_of_one_length_and_in_several_lists_are_read(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = np.array([b"pool"]), np.array([b"block/dense"])

    assert read_layers(write(tmp_path / "own.h5", change)) is not None
    layers = read_layers(tmp_path / "own.h5")
    assert layers is not None
    assert len(layers) == 1


def test_another_format_is_left_to_others(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "own.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = KERNEL
    assert read_layers(tmp_path / "own.weights.h5") is None


REFUSED: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "a layer that is nowhere": (names("/", "layer_names", [b"nowhere"]), "names a layer 'nowhere' that it does not"),
    "an array in a layer's place": (layer_is_an_array, "names a layer 'pool' that it does not hold"),
    "an array that is nowhere": (
        names("block/dense", "weight_names", [b"nowhere"]),
        "names an array 'nowhere' that it does not hold",
    ),
    "a group in an array's place": (
        names("block/dense", "weight_names", [b"dense"]),
        "names an array 'dense' that it does not hold",
    ),
    "one array again and again": (
        names("block/dense", "weight_names", [b"dense/kernel:0"] * 500),
        "names arrays again and again",
    ),
    "numbers for names": (names("/", "layer_names", np.arange(3)), "has layer_names that are no list"),
    "a single name": (names("/", "layer_names", "pool"), "has layer_names that are no list"),
    "too many names": (names("/", "layer_names", np.zeros((11, 1000), "S1")), "has layer_names that are no list"),
    "names of any length without end": (names("/", "layer_names", [b"a" * 20_000]), "has a heap of"),
    "an array of objects": (replaced(shape=(3,), dtype=h5py.string_dtype()), "neither float32 nor float64"),
    "a terabyte in pieces": (replaced(shape=(10**12,), dtype="f4", chunks=(1 << 20,)), "compressed, in pieces"),
    "a terabyte that is nowhere": (replaced(shape=(10**12,), dtype="f4"), "bytes which are not in their file"),
    "a link to a file": (linked, "a link to another place or file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_of_anything_else_is_refused(case: str, tmp_path: Path) -> None:
    change, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence):
        read_layers(write(tmp_path / "own.h5", change))


@pytest.mark.parametrize("body", [b"", b"weights", b"\x89HDF\r\n\x1a\n" + bytes(1000)])
def test_a_file_of_another_kind_is_refused(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.h5").write_bytes(body)
    with pytest.raises(InputError, match="has weights that cannot be read"):
        read_layers(tmp_path / "own.h5")


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    body = write(tmp_path / "own.h5").read_bytes()
    (tmp_path / "own.h5").write_bytes(body[: len(body) * 2 // 3])
    with pytest.raises(InputError, match="has weights that cannot be read"):
        read_layers(tmp_path / "own.h5")
