"""What a pickle of PyTorch says of tensors, without unpickling: a stack machine that can make nothing else.

A pickle is a program; Python's own machine imports and calls whatever it names. This one knows the operations that
torch.save writes for a state_dict (pickle protocol 2), compares names and never looks one up. What comes of it are
dicts, lists, tuples, numbers, texts, and descriptions of tensors that lie within their storages.
"""

import io
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tasks.models.stored_tensors import STORAGES, Storage, Tensor, checked_tensor, is_count, shown
from tasks.stage.errors import InputError

PICKLE_LIMIT = 16 << 20  # bytes; EfficientNet-Lite0 needs 42 KB for its 296 tensors
OPERATIONS_LIMIT = 300_000  # each keeps a few hundred bytes at most; EfficientNet-Lite0 needs 10,696
TEXT_LIMIT = 1 << 16  # letters; long texts that are equal take long to compare, and a memo can repeat them for nothing
PROTOCOL = 2
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Pickled:
    """What a pickle holds.

    Attributes:
        value: Its object, of dicts (with texts as keys), lists, tuples, numbers, texts, None and Tensor.
        storages: What it names, by key.
        end: Where it ends in the bytes that it was read from.
    """

    value: Any
    storages: dict[str, Storage]
    end: int


@dataclass(frozen=True)
class _Named:
    """A global that is known by its name, as pickletools writes it: module, a space, the name."""

    name: str


def read_pickle(data: bytes, start: int = 0) -> Pickled:
    """Return what the pickle that begins at `start` holds.

    Raises:
        InputError: It is damaged, larger than PICKLE_LIMIT or has anything that no state_dict needs; the text goes on
            after the file's name.
    """
    window = io.BytesIO(memoryview(data)[start : start + PICKLE_LIMIT])
    machine = _StackMachine()
    for operation, argument in _operations(window):
        machine.step(operation, argument)
    return Pickled(machine.result(), machine.storages, start + window.tell())


def _operations(window: io.BytesIO) -> Iterator[tuple[str, Any]]:
    operations = pickletools.genops(window)
    for _ in range(OPERATIONS_LIMIT):
        try:
            operation, argument, _ = next(operations)
        except StopIteration:
            return
        except ValueError as error:  # also of text that is no UTF-8
            raise InputError("has a pickle that is damaged, cut short or far too long") from error
        yield operation.name, argument
    raise InputError(f"has a pickle of more than {OPERATIONS_LIMIT:,} operations")


def _damaged() -> InputError:
    return InputError("has a damaged pickle: its operations do not fit together")


class _StackMachine:
    """Python's pickle machine (pickletools.py explains its operations), without whatever could run or grow."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each mark
        self._memo: dict[int, Any] = {}
        self._handlers: dict[str, Callable[[Any], None]] = {
            "PROTO": self._protocol,
            "GLOBAL": self._global,
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
            "MARK": self._mark,
            "TUPLE": self._tuple,
            "APPEND": lambda _: self._extend(self._taken(1)),
            "APPENDS": lambda _: self._extend(self._since_mark()),
            "SETITEM": lambda _: self._set(self._taken(2)),
            "SETITEMS": lambda _: self._set(self._since_mark()),
            "BINPERSID": self._storage,
            "REDUCE": self._call,
            "BUILD": self._set_state,
            "STOP": lambda _: None,
        }

    def step(self, operation: str, argument: Any) -> None:
        """Carry out one operation, by its name in pickletools."""
        if operation in LITERALS:
            if isinstance(argument, str) and len(argument) > TEXT_LIMIT:
                raise InputError(f"has a text of more than {TEXT_LIMIT:,} letters")
            self._stack.append(argument)
        elif operation in CONSTANTS:
            self._stack.append(CONSTANTS[operation])
        elif operation in EMPTY:
            self._stack.append(EMPTY[operation]())
        elif operation in SHORT_TUPLES:
            self._stack.append(tuple(self._taken(SHORT_TUPLES[operation])))
        elif operation in self._handlers:
            self._handlers[operation](argument)
        else:
            raise InputError(f"has a pickle with the operation {operation}, which PyTorch writes for no state_dict")

    def result(self) -> Any:
        """Return the one value that is left at the end."""
        if len(self._stack) != 1 or self._below:
            raise _damaged()
        return self._stack[0]

    def _top(self) -> Any:
        if not self._stack:
            raise _damaged()
        return self._stack[-1]

    def _taken(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise _damaged()
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _protocol(self, version: int) -> None:
        if version != PROTOCOL:
            raise InputError(f"has a pickle of protocol {version}; torch.save writes protocol {PROTOCOL}")

    def _global(self, name: str) -> None:
        if name not in CALLS and name not in STORAGES:
            raise InputError(f"asks for {shown(name.replace(' ', '.'))}, none of the tensors and numbers that are read")
        self._stack.append(_Named(name))

    def _remember(self, index: int) -> None:
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise _damaged()
        self._stack.append(self._memo[index])

    def _mark(self, _: None) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        if not self._below:
            raise _damaged()
        values, self._stack = self._stack, self._below.pop()
        return values

    def _tuple(self, _: None) -> None:
        values = tuple(self._since_mark())
        self._stack.append(values)

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise _damaged()
        target.extend(values)

    def _set(self, pairs: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(pairs) % 2:
            raise _damaged()
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):  # nothing else is hashed: a nest of tuples can take forever
                raise InputError("has a dict with a key that is not text")
            if key in target:
                raise InputError(f"has a dict with the key {shown(key)} twice")
            target[key] = value

    def _storage(self, _: None) -> None:
        """Put a storage for its persistent id: ("storage", class, key, device, elements), in the old format and None.

        The last is None wherever a storage is whole; before PyTorch 0.4 it could be a part of another.
        """
        (identity,) = self._taken(1)
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[5:] not in ((), (None,)):
            raise InputError("has a pickle with a reference to something else than a whole storage")
        word, kind, key, device, elements = identity[:5]
        if word != "storage" or not isinstance(kind, _Named) or kind.name not in STORAGES or not is_count(elements):
            raise InputError("has a pickle with a reference to something else than a whole storage")
        if not isinstance(key, str) or not isinstance(device, str):
            raise InputError("has a storage whose name or device is not text")
        storage = Storage(kind.name, key, elements)
        if self.storages.setdefault(key, storage) != storage:
            raise InputError(f"has storage {shown(key)} twice, with different claims")
        self._stack.append(storage)

    def _call(self, _: None) -> None:
        function, arguments = self._taken(2)
        if not isinstance(function, _Named) or function.name not in CALLS or not isinstance(arguments, tuple):
            raise _damaged()
        self._stack.append(CALLS[function.name](arguments))

    def _set_state(self, _: None) -> None:
        """Leave out the attribute that a state_dict has: the versions of the layers that wrote it."""
        (state,) = self._taken(1)
        if not isinstance(self._top(), dict) or not isinstance(state, dict) or state.keys() - {"_metadata"}:
            raise InputError("has a pickle that sets attributes which no state_dict has")


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    if arguments:
        raise InputError("has an OrderedDict of another form than Python 3 writes")
    return {}


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """Return what torch._utils._rebuild_tensor_v2 is given; whether it needs a gradient, and hooks, are left out."""
    if len(arguments) != 6 or not isinstance(arguments[0], Storage):  # a seventh says that numbers are to be negated
        raise InputError("has a tensor that is more than a view of a storage")
    storage, offset, shape, strides = arguments[:4]
    return checked_tensor(storage, offset, shape, strides)


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    """Return the tensor that torch._utils._rebuild_parameter is given."""
    if len(arguments) != 3 or not isinstance(arguments[0], Tensor):
        raise InputError("has a parameter that is more than a tensor")
    return arguments[0]


CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}
