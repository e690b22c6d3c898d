"""A model file's weights: plain arrays whose bytes are all there, exactly those of the config."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tasks.model_files.inspection import inspect_archive
from tasks.stage.errors import InputError
from tests.fixtures.model_archives import WEIGHTS, refusal, with_weights, write_members

HUGE = 10**12

Members = dict[str, bytes]


def kernel_replaced(**options: object) -> Callable[[h5py.File], None]:
    """Put another dataset in the place of the last layer's kernel."""

    def change(file: h5py.File) -> None:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars"].create_dataset("0", **options)

    return change


def linked(link: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars"]["0"] = link

    return change


def with_attribute(file: h5py.File) -> None:
    file["layers/dense/vars/0"].attrs["dtype"] = "bfloat16"


def hard_linked(file: h5py.File) -> None:
    file["layers/dense/vars/2"] = file["layers/dense/vars/1"]


def in_a_circle(file: h5py.File) -> None:
    file["layers/dense/vars/again"] = file["layers"]


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", (4, 3))
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_virtual_dataset("0", layout)


def named_type(file: h5py.File) -> None:
    file["layers/dense/vars/2"] = np.dtype("f8")


def one_more(file: h5py.File) -> None:
    file["layers/dense/vars/2"] = np.zeros(3, np.float32)


def one_less(file: h5py.File) -> None:
    del file["layers/dense/vars/1"]


WEIGHT_FILES: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "a terabyte that is nowhere": (kernel_replaced(shape=(HUGE,), dtype="f4"), "bytes which are not in their file"),
    "a terabyte in compressed pieces": (
        kernel_replaced(shape=(HUGE,), dtype="f4", chunks=(1 << 20,), compression="gzip", fillvalue=1),
        "compressed, in pieces or in another file",
    ),
    "bytes of another file": (
        kernel_replaced(shape=(12,), dtype="f4", external=[("/etc/passwd", 0, 48)]),
        "compressed, in pieces or in another file",
    ),
    "a virtual array": (virtual, "compressed, in pieces or in another file"),
    "objects": (kernel_replaced(shape=(12,), dtype=h5py.string_dtype()), "neither float32 nor float64"),
    "integers": (kernel_replaced(data=np.zeros((4, 3), np.int64)), "neither float32 nor float64"),
    "a single number": (kernel_replaced(data=np.float32(1)), "not arrays"),
    "a link to a file": (linked(h5py.ExternalLink("/etc/passwd", "/x")), "a link to another place or file"),
    "a link to a place": (linked(h5py.SoftLink("/layers/dense/vars/1")), "a link to another place or file"),
    "a second name": (hard_linked, "two names for one object"),
    "a circle": (in_a_circle, "two names for one object"),
    "a named type": (named_type, "a named type"),
    "an attribute": (with_attribute, "attributes, which Keras does not write"),
    "an array more": (one_more, "5 arrays of weights that are not the 4 of its config.json"),
    "an array less": (one_less, "3 arrays of weights that are not the 4 of its config.json"),
    "another shape": (kernel_replaced(data=np.zeros((3, 4), np.float32)), "4 arrays of weights that are not the 4"),
}


@pytest.mark.parametrize("case", WEIGHT_FILES)
def test_weights_that_are_more_than_plain_arrays_are_refused(case: str, members: Members, tmp_path: Path) -> None:
    change, sentence = WEIGHT_FILES[case]
    path = write_members(tmp_path / "model.keras", with_weights(members, change))
    with pytest.raises(InputError, match=sentence):
        inspect_archive(path)


@pytest.mark.parametrize("body", [b"", b"weights", b"\x89HDF\r\n\x1a\n" + bytes(1000)])
def test_weights_that_are_no_weights_are_refused(body: bytes, members: Members, tmp_path: Path) -> None:
    path = write_members(tmp_path / "model.keras", {**members, WEIGHTS: body})
    with pytest.raises(InputError, match="weights that cannot be read"):
        inspect_archive(path)


def test_arrays_that_share_their_bytes_are_refused(members: Members, tmp_path: Path) -> None:
    """Three arrays whose headers name the bytes of one: a small file that Keras would read as a large one."""
    size = 40_000

    def grow(file: h5py.File) -> None:
        file["layers/dense/vars/2"] = np.zeros(size // 4, np.float32)
        for name in ("3", "4", "5"):
            file["layers/dense/vars"].create_dataset(name, (size // 4,), "f4")  # as yet without an address

    grown = with_weights(members, grow)
    body = grown[WEIGHTS]
    with h5py.File(io.BytesIO(body), "r") as file:
        address = file["layers/dense/vars/2"].id.get_offset()
    absent = b"\xff" * 8 + struct.pack("<Q", size)
    assert body.count(absent) == 3
    grown[WEIGHTS] = body.replace(absent, struct.pack("<QQ", address, size))
    with pytest.raises(InputError, match="claim more bytes than their file has"):
        inspect_archive(write_members(tmp_path / "model.keras", grown))


def test_an_array_that_reaches_beyond_its_file_is_refused(members: Members, tmp_path: Path) -> None:
    """A dataset whose header says a terabyte at an address that exists."""

    def grow(file: h5py.File) -> None:
        file["layers/dense/vars/2"] = np.zeros(1234567, np.float32)

    grown = with_weights(members, grow)
    for before, after in ((1234567, HUGE), (4 * 1234567, 4 * HUGE)):
        assert struct.pack("<Q", before) in grown[WEIGHTS]
        grown[WEIGHTS] = grown[WEIGHTS].replace(struct.pack("<Q", before), struct.pack("<Q", after))
    assert refusal(write_members(tmp_path / "model.keras", grown)).startswith("has weights that ")


def test_a_terabyte_that_is_nowhere_is_refused_before_it_is_allocated(members: Members, tmp_path: Path) -> None:
    change, sentence = WEIGHT_FILES["a terabyte that is nowhere"]
    assert sentence in refusal(write_members(tmp_path / "model.keras", with_weights(members, change)))
