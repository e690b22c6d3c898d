"""Weights that torch.save wrote: exactly the numbers that were saved, or one sentence; and nothing in a file is run."""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.models import torch_file
from tasks.models.torch_file import read_state_dict
from tasks.stage.errors import InputError
from tests.fixtures.torch_files import (
    NUMBERS,
    SYSTEM,
    Encoder,
    legacy_bytes,
    legacy_of,
    members_of,
    parameter,
    read,
    rebuilt,
    refusal,
    storage,
    stored,
    view_of,
    zip_bytes,
    zip_of,
)

FORMATS = {"old": legacy_bytes, "zip": zip_bytes}
WHOLE = rebuilt(storage(), 0, (6,), (1,))

Write = Callable[[Any], bytes]


@pytest.fixture(params=FORMATS)
def write(request: pytest.FixtureRequest) -> Write:
    return FORMATS[request.param]


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int64", "int32", "uint8"])
def test_numbers_of_every_kind_are_exactly_those_that_were_saved(kind: str, write: Write, tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 256, 64 * np.dtype(kind).itemsize, np.uint8)  # NaN of all kinds too
    saved = bits.view(kind).reshape(4, 16)
    (array,) = read(write({"a": stored("0", saved)}), tmp_path).values()
    assert array.dtype == saved.dtype
    assert array.shape == saved.shape
    assert array.tobytes() == saved.tobytes()


def test_bools_and_bfloat16_become_what_they_mean(write: Write, tmp_path: Path) -> None:
    bfloat16 = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], np.uint16)
    read_back = read(
        write(
            {"b": stored("0", np.array([[True], [False]])), "h": stored("1", bfloat16), "one": stored("2", bfloat16[0])}
        ),
        tmp_path,
    )
    assert read_back["b"].dtype == np.bool_
    np.testing.assert_array_equal(read_back["b"], [[True], [False]])
    assert read_back["h"].dtype == read_back["one"].dtype == np.float32
    np.testing.assert_array_equal(read_back["h"], np.array([1, -2, math.inf, 2.0**-133], np.float32))
    assert isinstance(read_back["one"], np.ndarray)
    assert read_back["one"].shape == ()
    assert read_back["one"] == 1


BASE = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
VIEWS = {
    "turned": BASE.transpose(3, 1, 0, 2),
    "channels last": BASE.transpose(0, 2, 3, 1),
    "part": BASE[1:, :2, 1:3, 4],
    "steps": BASE[:, ::2, ::3, 1::2],
    "one number": BASE[1, 2, 3, 4],
    "sides of one": BASE[:1, :, :1, :1],
    "empty": BASE[:, :0],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_a_storage_are_the_numbers_that_they_show(name: str, write: Write, tmp_path: Path) -> None:
    view = BASE[1, 2, 3, 4:].reshape(()) if name == "one number" else VIEWS[name]
    read_back = read(write({"base": stored("7", BASE), "view": view_of("7", BASE, view)}), tmp_path)
    np.testing.assert_array_equal(read_back["view"], view, strict=True)
    np.testing.assert_array_equal(read_back["base"], BASE, strict=True)
    assert read_back["view"].flags.c_contiguous
    read_back["view"][...] = -1  # its own numbers, and nobody else's
    np.testing.assert_array_equal(read_back["base"], BASE, strict=True)


def test_a_state_dict_has_names_in_order_and_what_layers_left_in_it_is_left_out(write: Write, tmp_path: Path) -> None:
    tensors = {f"layer{number}.weight": stored(str(number), np.full(2, number)) for number in range(300, 0, -1)}
    read_back = read(write(OrderedDict(tensors)), tmp_path)
    assert list(read_back) == list(tensors)
    assert all(
        array.tolist() == [number] * 2 for array, number in zip(read_back.values(), range(300, 0, -1), strict=True)
    )


def test_parameters_and_tied_weights(write: Write, tmp_path: Path) -> None:
    saved = stored("0", NUMBERS.reshape(2, 3))
    read_back = read(write({"in": saved, "out": saved, "parameter": parameter(stored("1", NUMBERS))}), tmp_path)
    assert read_back["in"] is read_back["out"]
    np.testing.assert_array_equal(read_back["in"], NUMBERS.reshape(2, 3), strict=True)
    np.testing.assert_array_equal(read_back["parameter"], NUMBERS, strict=True)


def test_what_a_training_script_saved_around_a_state_dict(write: Write, tmp_path: Path) -> None:
    around_it = {
        "epoch": 3,
        "loss": 0.25,
        "arch": "x",
        "best": None,
        "seen": [1, (2, 70000, -1)],
        "ema": stored("1", BASE),
    }
    read_back = read(write({**around_it, "state_dict": OrderedDict(w=stored("0", NUMBERS))}), tmp_path)
    assert list(read_back) == ["w"]
    np.testing.assert_array_equal(read_back["w"], NUMBERS, strict=True)


def test_a_tensor_called_state_dict_is_a_tensor(write: Write, tmp_path: Path) -> None:
    assert list(read(write({"state_dict": stored("0", NUMBERS), "b": stored("1", NUMBERS)}), tmp_path)) == [
        "state_dict",
        "b",
    ]


def test_an_empty_state_dict(write: Write, tmp_path: Path) -> None:
    assert read(write(OrderedDict()), tmp_path) == {}


def test_a_file_that_was_cut_short_anywhere_is_refused(write: Write, tmp_path: Path) -> None:
    whole = write({"a": stored("0", NUMBERS), "b": stored("1", np.array(7))})
    assert len(read(whole, tmp_path)) == 2
    for size in range(len(whole)):
        assert refusal(whole[:size], tmp_path)


def test_a_file_that_goes_on_after_its_end_is_refused(tmp_path: Path) -> None:
    value = {"a": stored("0", NUMBERS)}
    assert refusal(legacy_bytes(value) + b"\0", tmp_path) == "goes on after its last storage"
    assert refusal(zip_bytes(value) + b"\0", tmp_path) == "is a zip that was cut short, or goes on after its end"


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    assert refusal(b"", tmp_path) == "is no file of weights that torch.save wrote"
    assert refusal(pickle.dumps({}), tmp_path) == "is no file of weights that torch.save wrote"
    assert refusal(b"\x89HDF\r\n\x1a\n", tmp_path) == "is no file of weights that torch.save wrote"
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(InputError, match="there is no file of weights here"):
            read_state_dict(path)


def test_a_file_of_three_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with path.open("wb") as stream:
        stream.truncate(3 << 30)
    with pytest.raises(InputError, match="has more than 2,147,483,648 bytes"):
        read_state_dict(path)


PLAIN = {"w": stored("0", NUMBERS)}
LEGACY: dict[str, tuple[bytes, str]] = {
    "a big-endian machine": (
        legacy_of(b"\x80\x02}.", {}, {**SYSTEM, "little_endian": False}),
        "a little-endian machine",
    ),
    "no machine": (legacy_of(b"\x80\x02}.", {}, None), "was not written by a little-endian machine"),
    "another version": (legacy_bytes(PLAIN).replace(b"M\xe9\x03.", b"M\xea\x03.", 1), "another version of PyTorch's"),
    "no list of storages": (legacy_of(b"\x80\x02}.", {})[:-4] + b"}.", "has no list of its storages"),
    "storages without names": (
        legacy_of(b"\x80\x02}.", {}).replace(b"]q\x00.", b"]K\x00a."),
        "no list of its storages",
    ),
    "a storage twice in the list": (
        legacy_bytes(PLAIN).replace(b"]q\x00X\x01\x00\x00\x000q\x01a.", b"](X\x01\x00\x00\x000X\x01\x00\x00\x000e."),
        "has a list of storages that are not those of its tensors",
    ),
    "a count of -6": (
        legacy_bytes(PLAIN).replace(struct.pack("<q", 6), struct.pack("<q", -6)),
        "more or fewer numbers",
    ),
}


@pytest.mark.parametrize("case", LEGACY)
def test_the_old_formats_parts_are_checked(case: str, tmp_path: Path) -> None:
    data, sentence = LEGACY[case]
    assert sentence in refusal(data, tmp_path)


MEMBERS = members_of(Encoder(is_legacy=False).pickled({"w": WHOLE}), {"0": NUMBERS.tobytes()})
ZIP = zip_of(MEMBERS)
DIRECTORY = b"PK\x01\x02"


def directory_changed(name: str, offset: int, layout: str, *values: int) -> bytes:
    """Return the zip with fields of one member's entry in the directory replaced."""
    data = bytearray(ZIP)
    start = data.rindex(DIRECTORY, 0, data.rindex(name.encode()))
    struct.pack_into(layout, data, start + offset, *values)
    return bytes(data)


def plain_zip(members: dict[str, bytes], comment: bytes = b"") -> bytes:
    """Return a zip as Python writes it: without the records of zip64."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(name), body)
        archive.comment = comment
    return stream.getvalue()


ZIPS: dict[str, tuple[bytes, str]] = {
    "compressed": (zip_of(MEMBERS, zipfile.ZIP_DEFLATED), "has 'archive/data.pkl' compressed or encrypted"),
    "encrypted": (directory_changed("archive/data/0", 8, "<H", 9), "has 'archive/data/0' compressed or encrypted"),
    "two of one name": (
        ZIP.replace(b"archive/version", b"archive/data/0\0"),
        "is a zip with no member, or with two of one name",
    ),
    "no member": (zip_of({})[-98:], "is no file of weights"),
    "no data.pkl": (zip_of({name: body for name, body in MEMBERS.items() if "pkl" not in name}), "has no data.pkl"),
    "data.pkl elsewhere": (zip_of({"x/y": b"", **MEMBERS}), "has no data.pkl"),
    "a big-endian machine": (zip_of({**MEMBERS, "archive/byteorder": b"big"}), "a little-endian machine"),
    "a byte order of its own": (zip_of({**MEMBERS, "archive/byteorder": b"middle"}), "a little-endian machine"),
    "a longer data.pkl": (
        zip_of({**MEMBERS, "archive/data.pkl": MEMBERS["archive/data.pkl"] + b"\0"}),
        "has a data.pkl that goes on after its end",
    ),
    "a storage that nothing refers to": (zip_of({**MEMBERS, "archive/data/1": b""}), "not those of its tensors"),
    "a shorter storage": (
        zip_of({**MEMBERS, "archive/data/0": bytes(23)}),
        "more or fewer numbers than are in the file",
    ),
    "another byte": (
        ZIP.replace(NUMBERS.tobytes(), bytes(24)),
        "has 'archive/data/0' damaged",
    ),
    "a comment": (plain_zip(MEMBERS, b"x"), "is a zip that was cut short, or goes on after its end"),
    "a comment that ends as a zip": (plain_zip(MEMBERS, ZIP[-22:]), "is a zip whose end is not as PyTorch writes it"),
    "something before it": (b"PK\x03\x04" + ZIP, "is a zip whose end is not as PyTorch writes it"),
    "a long end of another mark": (ZIP.replace(b"PK\x06\x06", b"PK\x06\x05"), "whose end is not as PyTorch writes it"),
    "a long end that says otherwise": (
        ZIP.replace(struct.pack("<QQ", 4, 4), struct.pack("<QQ", 4, 5)),
        "is a zip whose end is not as PyTorch writes it",
    ),
    "a million members": (
        ZIP[:-14] + struct.pack("<HHLLH", 65535, 65535, 0, 0, 0),
        "whose end is not as PyTorch writes",
    ),
    "a directory that is too long": (
        ZIP[:-10] + struct.pack("<LLH", 1 << 25, 0, 0),
        "whose end is not as PyTorch writes",
    ),
    "a member in itself": (
        directory_changed("archive/data/0", 42, "<L", ZIP.rindex(DIRECTORY)),
        "is a damaged zip: 'archive/data/0' is not where it should be",
    ),
    "two members in one place": (directory_changed("archive/data/0", 42, "<L", 0), "has 'archive/data/0' damaged"),
    "a member of 2 GB": (
        directory_changed("archive/data/0", 20, "<LL", 1 << 31, 1 << 31),
        "claim more bytes than the file",
    ),
    "a member that grows": (directory_changed("archive/data/0", 20, "<LL", 24, 1 << 31), "is not where it should be"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_the_zips_parts_are_checked(case: str, tmp_path: Path) -> None:
    data, sentence = ZIPS[case]
    assert sentence in refusal(data, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        plain_zip(MEMBERS),
        zip_of({name: body for name, body in MEMBERS.items() if "byteorder" not in name}),
        zip_of({**MEMBERS, "archive/.format_version": b"1", "archive/.data/serialization_id": b"0" * 40}),
        zip_of({**MEMBERS, "archive/nested.zip": ZIP}),
    ],
    ids=["no zip64", "PyTorch 1.6", "PyTorch 2.13", "a zip in it"],
)
def test_zips_of_other_versions_are_read(data: bytes, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(data, tmp_path)["w"], NUMBERS, strict=True)


def test_more_members_than_a_state_dict_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "MEMBERS_LIMIT", 3)
    assert refusal(ZIP, tmp_path) == "is a zip whose end is not as PyTorch writes it"


def test_the_hand_made_files_are_laid_out_as_pytorchs(tmp_path: Path) -> None:
    """Data descriptors after each member, and the records of zip64 before the end, as in a file of PyTorch 2.13."""
    with zipfile.ZipFile(io.BytesIO(ZIP)) as archive:
        assert all(entry.flag_bits & 8 for entry in archive.infolist())
    assert (ZIP[-98:-94], ZIP[-42:-38], ZIP[-22:-18]) == (b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06")
