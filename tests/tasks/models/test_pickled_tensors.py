"""Pickles in files of weights: what describes no tensor within its storage is one sentence, and nothing is run."""

import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.models.pickled_tensors import OPERATIONS_LIMIT, PICKLE_LIMIT, TEXT_LIMIT
from tasks.models.torch_file import read_state_dict
from tasks.stage.errors import InputError
from tests.fixtures.torch_files import (
    FLOATS,
    NUMBERS,
    Call,
    Persistent,
    around,
    around_program,
    legacy_bytes,
    legacy_of,
    read,
    rebuilt,
    refusal,
    storage,
    stored,
    view_of,
    zip_bytes,
)

MEBIBYTE = 1 << 20
HUGE = 1 << 40


def called(function: str, *arguments: Any) -> Call:
    return Call(function, arguments)


WHOLE = rebuilt(storage(), 0, (6,), (1,))
REFUSED: dict[str, tuple[Any, str]] = {
    "a list": ([WHOLE], "holds no state_dict but something of type list"),
    "a tensor alone": (WHOLE, "holds no state_dict but something of type Tensor"),
    "a number": ({"w": WHOLE, "n": 1}, "holds 'n', which is no tensor but of type int"),
    "a dict of dicts": ({"w": WHOLE, "n": {}}, "holds 'n', which is no tensor but of type dict"),
    "a storage": ({"w": storage()}, "holds 'w', which is no tensor but of type Storage"),
    "a name to obey": ({"\x1b[2J": WHOLE}, r"has a tensor whose name cannot be printed: '\x1b[2J'"),
    "half a letter": ({"\ud800": WHOLE}, r"has a tensor whose name cannot be printed: '\ud800'"),
    "a key that is a number": ({1: WHOLE}, "has a dict with a key that is not text"),
    "numbers of a kind that is not known": (
        {"w": rebuilt(storage(6, "0", "torch ShortStorage"), 0, (6,), (1,))},
        "asks for 'torch.ShortStorage', none of the tensors and numbers that are read",
    ),
    "another way to make a tensor": (
        {"w": called("torch._utils _rebuild_sparse_tensor", 1)},
        "asks for 'torch._utils._rebuild_sparse_tensor', none of the tensors and numbers that are read",
    ),
    "a storage that is called": ({"w": called(FLOATS, 6)}, "has a damaged pickle"),
    "arguments that are none": ({"w": Call("collections OrderedDict", 1)}, "has a damaged pickle"),
    "an OrderedDict of Python 2": (called("collections OrderedDict", []), "an OrderedDict of another form"),
    "a parameter of nothing": ({"w": called("torch._utils _rebuild_parameter", 1, True, {})}, "more than a tensor"),
    "no storage": ({"w": rebuilt(None, 0, (6,), (1,))}, "more than a view of a storage"),
    "numbers to be negated": (
        {"w": rebuilt(storage(), 0, (6,), (1,), {"neg": True})},
        "has a tensor that is more than a view of a storage",
    ),
    "no strides": ({"w": rebuilt(storage(), 0, (6,), ())}, "without a stride for each of its sides"),
    "sides that are no tuple": ({"w": rebuilt(storage(), 0, [6], [1])}, "without a stride for each of its sides"),
    "nine sides": ({"w": rebuilt(storage(), 0, (1,) * 9, (1,) * 9)}, "more than 8 sides"),
    "a negative side": ({"w": rebuilt(storage(), 0, (-6,), (1,))}, "a side, stride or offset that is no count"),
    "a negative stride": ({"w": rebuilt(storage(), 5, (6,), (-1,))}, "a side, stride or offset that is no count"),
    "a negative offset": ({"w": rebuilt(storage(), -1, (6,), (1,))}, "a side, stride or offset that is no count"),
    "a side of 1.0": ({"w": rebuilt(storage(), 0, (6.0,), (1,))}, "a side, stride or offset that is no count"),
    "a side of True": ({"w": rebuilt(storage(), 0, (True,), (1,))}, "a side, stride or offset that is no count"),
    "one side too long": ({"w": rebuilt(storage(), 0, (7,), (1,))}, "reaches beyond its storage '0'"),
    "an offset too far": ({"w": rebuilt(storage(), 1, (6,), (1,))}, "reaches beyond its storage '0'"),
    "a stride too far": ({"w": rebuilt(storage(), 0, (2, 3), (4, 1))}, "reaches beyond its storage '0'"),
    "an offset beyond counting": ({"w": rebuilt(storage(), 1 << 2000, (), ())}, "reaches beyond its storage '0'"),
    "sides beyond counting": (
        {"w": rebuilt(storage(), 0, (1 << 250,) * 8, tuple(1 << 250 * power for power in range(8)))},
        "reaches beyond its storage '0'",
    ),
    "a number that is a terabyte": ({"w": rebuilt(storage(), 0, (HUGE,), (0,))}, "whose strides overlap"),
    "rows over each other": ({"w": rebuilt(storage(), 0, (2, 3), (2, 1))}, "whose strides overlap"),
    "an empty tensor of no length": ({"w": rebuilt(storage(), 0, (0, HUGE, HUGE), (1, 1, 1))}, "impossible length"),
    "a terabyte that is nowhere": ({"w": rebuilt(storage(HUGE), 0, (HUGE,), (1,))}, "more or fewer numbers than"),
    "a storage beyond counting": ({"w": rebuilt(storage(1 << 2000), 0, (1,), (1,))}, "more or fewer numbers than"),
    "a storage of fewer numbers": ({"w": rebuilt(storage(5), 0, (5,), (1,))}, "more or fewer numbers than are in"),
    "a storage of larger numbers": (
        {"w": rebuilt(storage(6, "0", "torch DoubleStorage"), 0, (6,), (1,))},
        "more or fewer numbers than are in the file",
    ),
    "a storage of -1 numbers": ({"w": rebuilt(storage(-1), 0, (0,), (1,))}, "something else than a whole storage"),
    "a storage with two claims": (
        {"a": WHOLE, "b": rebuilt(storage(6, "0", "torch IntStorage"), 0, (6,), (1,))},
        "has storage '0' twice, with different claims",
    ),
    "a storage that is not in the file": ({"w": WHOLE, "v": rebuilt(storage(6, "1"), 0, (6,), (1,))}, "storages"),
    "a storage that nothing refers to": ({}, "storages"),
    "a storage without a name": ({"w": rebuilt(storage(6, 0), 0, (6,), (1,))}, "name or device is not text"),
    "a part of a storage": (
        {"w": rebuilt(storage(6, "0", FLOATS, ("0", 0, 6)), 0, (6,), (1,))},
        "has a pickle with a reference to something else than a whole storage",
    ),
    "a reference to a file": ({"w": Persistent("/etc/passwd")}, "something else than a whole storage"),
    "a reference to a module": ({"w": Persistent(("module", 1, 2, 3, 4))}, "something else than a whole storage"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_sound_state_dict_is_refused(case: str, tmp_path: Path) -> None:
    value, sentence = REFUSED[case]
    for data in around(value):
        assert sentence in refusal(data, tmp_path)


def test_the_frame_of_the_refused_is_sound(tmp_path: Path) -> None:
    for data in around({"w": WHOLE}):
        np.testing.assert_array_equal(read(data, tmp_path)["w"], NUMBERS, strict=True)


class Touch:
    """An object whose pickle makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


def test_a_pickle_that_would_run_code_is_refused_and_nothing_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    program = pickle.dumps({"w": Touch(trace)}, 2)
    for data in around_program(program):
        assert "asks for '__builtin__.eval', none of the tensors" in refusal(data, tmp_path)
        assert not trace.exists()
    pickle.loads(program)  # noqa: S301
    assert trace.exists(), "the attack is none"


CALL_SYSTEM = b"(X\x04\x00\x00\x00true"
PROGRAMS: dict[str, tuple[bytes, str]] = {
    "os.system": (b"\x80\x02cposix\nsystem\n" + CALL_SYSTEM + b"tR.", "asks for 'posix.system', none of the tensors"),
    "os.system of protocol 0": (b"(X\x04\x00\x00\x00trueiposix\nsystem\n.", "with the operation INST"),
    "os.system as an object": (b"\x80\x02(cposix\nsystem\n)o.", "asks for 'posix.system'"),
    "os.system from the stack": (
        b"\x80\x02X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93.",
        "operation STACK_GLOBAL",
    ),
    "something new": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "with the operation NEWOBJ"),
    "an extension": (b"\x80\x02\x82\x01.", "with the operation EXT1"),
    "a name without end": (b"\x80\x02c" + b"x" * 5000 + b"\nx\n.", "asks for 'xxxx"),
    "protocol 4": (pickle.dumps({}, 4), "has a pickle of protocol 4; torch.save writes protocol 2"),
    "a frame of a terabyte": (b"\x80\x02\x95" + struct.pack("<Q", HUGE) + b"}.", "with the operation FRAME"),
    "a text of 4 GB": (b"\x80\x02X\xff\xff\xff\xff.", "damaged, cut short or far too long"),
    "bytes of a terabyte": (b"\x80\x02\x8e" + struct.pack("<Q", HUGE) + b".", "damaged, cut short or far too long"),
    "a number of a million digits": (b"\x80\x02L" + b"9" * MEBIBYTE + b"L\n.", "damaged, cut short or far too long"),
    "text that is no text": (b"\x80\x02X\x01\x00\x00\x00\xff.", "damaged, cut short or far too long"),
    "no operation": (b"\x80\x02\xff.", "damaged, cut short or far too long"),
    "no end": (b"\x80\x02}", "has a "),
    "an empty stack": (b"\x80\x02.", "do not fit together"),
    "two values": (b"\x80\x02}}.", "do not fit together"),
    "a mark that stays": (b"\x80\x02(}.", "do not fit together"),
    "a tuple without a mark": (b"\x80\x02}t.", "do not fit together"),
    "a tuple of nothing": (b"\x80\x02\x85.", "do not fit together"),
    "a memo of nothing": (b"\x80\x02q\x00}.", "do not fit together"),
    "what no memo has": (b"\x80\x02h\x07.", "do not fit together"),
    "four billion places in the memo": (
        b"\x80\x02]r\xff\xff\xff\xff.",
        "holds no state_dict but something of type list",
    ),
    "a text of a page too much": (
        b"\x80\x02X" + struct.pack("<I", 65537) + bytes(65537) + b".",
        "has a text of more than 65,536 letters",
    ),
    "an item of a list": (b"\x80\x02]K\x00K\x00s.", "do not fit together"),
    "half an item": (b"\x80\x02}(X\x01\x00\x00\x00au.", "do not fit together"),
    "an entry of a dict": (b"\x80\x02}K\x00a.", "do not fit together"),
    "entries of nothing": (b"\x80\x02(e.", "do not fit together"),
    "a name twice": (b"\x80\x02}(X\x01\x00\x00\x00aNX\x01\x00\x00\x00aNu.", "has a dict with the key 'a' twice"),
    "attributes": (b"\x80\x02}}X\x01\x00\x00\x00aNsb.", "sets attributes which no state_dict has"),
    "attributes of a list": (b"\x80\x02]}b.", "sets attributes which no state_dict has"),
    "a dict in itself": (
        b"\x80\x02}q\x00(X\x0a\x00\x00\x00state_dicth\x00u.",
        "holds 'state_dict', which is no tensor but of type dict",
    ),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "holds no state_dict but something of type list"),
    "a key that takes forever": (b"\x80\x02}))" + b"q\x002h\x00\x86" * 64 + b"s.", "with the operation DUP"),
    "a tuple of 2^64": (b"\x80\x02})" + b"q\x00h\x00\x86" * 64 + b"Ns.", "has a dict with a key that is not text"),
    "tuples a hundred thousand deep": (b"\x80\x02)" + b"\x85" * 100_000 + b".", "but something of type tuple"),
    "lists fifty thousand deep": (b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".", "something of type list"),
    "operations without end": (
        b"\x80\x02" + b"}" * OPERATIONS_LIMIT + b".",
        "has a pickle of more than 300,000 operations",
    ),
}
ONE_TEXT = b"\x80\x02X" + struct.pack("<I", PICKLE_LIMIT) + bytes(PICKLE_LIMIT) + b"."
TEXTS = b"\x80\x02" + (b"X" + struct.pack("<I", TEXT_LIMIT) + bytes(TEXT_LIMIT)) * (PICKLE_LIMIT // TEXT_LIMIT) + b"."


@pytest.mark.parametrize("case", PROGRAMS)
def test_programs_that_no_state_dict_needs_are_refused(case: str, tmp_path: Path) -> None:
    program, sentence = PROGRAMS[case]
    for data in around_program(program):
        assert sentence in refusal(data, tmp_path)


@pytest.mark.parametrize("program", [ONE_TEXT, TEXTS], ids=["one text", "texts"])
def test_a_pickle_of_more_bytes_than_any_state_dict_needs_is_refused(program: bytes, tmp_path: Path) -> None:
    legacy, zipped = around_program(program)
    assert refusal(legacy, tmp_path) == "has a pickle that is damaged, cut short or far too long"
    assert refusal(zipped, tmp_path).endswith("has no data.pkl of at most 16,777,216 bytes")


def peak_memory(data: bytes, folder: Path, sentence: str) -> int:
    """Return how many bytes a reading took at most; it must end with the sentence, or without one if that is empty."""
    path = folder / "weights.pth"
    path.write_bytes(data)
    said = ""
    tracemalloc.start()
    try:
        read_state_dict(path)
    except InputError as error:
        said = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert said.endswith(sentence)
    assert bool(said) == bool(sentence)
    return peak


@pytest.mark.parametrize("write", [legacy_bytes, zip_bytes])
def test_a_thousand_names_of_one_storage_take_its_memory_once(write: Callable[[Any], bytes], tmp_path: Path) -> None:
    large = np.arange(MEBIBYTE, dtype=np.float32)
    tied = write({f"name{number}": stored("0", large) for number in range(1000)})
    parts = write({f"name{number}": view_of("0", large, large[number:]) for number in range(1000)})
    assert peak_memory(tied, tmp_path, "") < 3 * len(tied) + MEBIBYTE
    sentence = "has tensors that together claim far more bytes than the file has"
    assert peak_memory(parts, tmp_path, sentence) < 3 * len(parts) + MEBIBYTE


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        PROGRAMS["operations without end"],
        PROGRAMS["four billion places in the memo"],
        (ONE_TEXT, "has a pickle that is damaged, cut short or far too long"),
        (TEXTS, "has a pickle that is damaged, cut short or far too long"),
    ],
    ids=["operations", "memo", "one text", "texts"],
)
def test_a_pickle_without_end_takes_little_memory(program: bytes, sentence: str, tmp_path: Path) -> None:
    data = legacy_of(program, {})
    assert peak_memory(data, tmp_path, sentence) < 3 * len(data) + 64 * MEBIBYTE
