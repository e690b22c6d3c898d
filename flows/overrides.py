"""Set values in params.yaml, as `dvc exp run --set-param` does: in place, comments kept, validated before written.

A deployment's run sets them for itself alone: `overridden` notes first what stood there, and puts it back at the run's
end. A run that was killed leaves the note, by which the next one puts it back (`put_back`). Where params.yaml is then
no longer what the run wrote, somebody edited it, and it stays. dvc.lock keeps what the run recorded: a later run with
other values restores its stages from DVC's run cache.
"""

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.params.params import PARAMS_FILE, Params, parse_params, read_yaml
from tasks.stage.errors import InputError, OutageError, without_credentials
from tasks.stage.files import read_json, write_json, write_text

Overrides = Mapping[str, Any]
JOURNAL = Path(".dvc/tmp/overrides.json")  # beside the workspace's lock: git ignores it, and a checkout leaves it


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Read `train.recipe=seed`-like words; each value is YAML, so `2` is a number and `[a, b]` a list.

    Raises:
        InputError: A word has no `=`, or its value is not YAML.
    """
    values = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            shown = without_credentials(repr(assignment))
            raise InputError(f"{shown} is not of the form KEY=VALUE, as in train.recipe=seed")
        values[key] = read_yaml(text, f"the value of {without_credentials(key)}")
    return values


def preview(overrides: Overrides, path: Path = PARAMS_FILE) -> Params:
    """Return the parameters as they would be; raises InputError like apply_overrides."""
    return parse_params(read_yaml(_overridden(overrides, path), str(path)), str(path))


def sets(overrides: Overrides, key: str) -> bool:
    """Return whether overrides set a dotted key, or one below it."""
    return any(name == key or name.startswith(f"{key}.") for name in overrides)


def value_of(params: Params, key: str) -> Any:
    """Return what stands under a key `section.name`, as params.yaml has it."""
    section, _, name = key.partition(".")
    return params.model_dump(mode="json")[section][name]


def would_change(overrides: Overrides, path: Path = PARAMS_FILE) -> bool:
    """Return whether setting these values would change params.yaml; raises InputError like apply_overrides."""
    preview(overrides, path)
    return _overridden(overrides, path) != _read(path)


def apply_overrides(overrides: Overrides, path: Path = PARAMS_FILE) -> bool:
    """Set dotted keys in params.yaml; return whether the file changed.

    Raises:
        InputError: params.yaml as it is or as it would be is not valid; the file is then untouched.
    """
    preview(overrides, path)
    text = _overridden(overrides, path)
    changed = text != _read(path)
    if changed:
        write_text(path, text)
    return changed


@contextlib.contextmanager
def overridden(overrides: Overrides, folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Set dotted keys in params.yaml for as long as the block runs; whoever calls holds the workspace.

    Args:
        overrides: The values.
        folder: Of params.yaml; an earlier run's values were put back there (`put_back`).
        say: Gets a line where params.yaml cannot be put back or was edited meanwhile.

    Raises:
        InputError: params.yaml as it is or as it would be is not valid; the file is then untouched.
    """
    path = folder / PARAMS_FILE
    preview(overrides, path)
    text = _overridden(overrides, path)
    if text != _read(path):
        before = path.read_bytes().decode()  # its line ends too
        write_json(folder / JOURNAL, {"before": before, "written": _digest(text)})
        write_text(path, text)
    try:
        yield
    finally:
        try:
            put_back(folder, say)
        except OSError as error:
            say(f"{path} still has this run's overrides, which the next run takes back: {error.strerror or error}")


@contextlib.contextmanager
def kept_unless_refused(
    overrides: Overrides, found: Sequence[str], folder: Path, say: Callable[[str], None]
) -> Iterator[None]:
    """Let what a person sets in params.yaml stay, unless it turns out to be bad input: then it is as it was.

    Args:
        overrides: What is set in the block.
        found: Keys that the run itself sets there.
        folder: Of params.yaml.
        say: Gets a line where it was put back.
    """
    path = folder / PARAMS_FILE
    before = _read(path)
    try:
        yield
    except OutageError:
        raise
    except InputError:
        present = _read(path)
        if present != before and present == _with({**overrides, **_values(present, found, path)}, before, path):
            write_text(path, before)
            say(f"{PARAMS_FILE} is again as it was before this run")
        raise


def _values(text: str, keys: Sequence[str], path: Path) -> Overrides:
    """Return what a text of params.yaml has under dotted keys, as far as it has them."""
    document = _parsed(text, path)
    parts = {key: key.split(".") for key in keys}
    return {key: document[section][name] for key, (section, name) in parts.items() if name in document.get(section, {})}


def put_back(folder: Path, say: Callable[[str], None]) -> None:
    """Give params.yaml the text that it had before a run's overrides, unless it is not what that run wrote any more."""
    path, journal = folder / PARAMS_FILE, folder / JOURNAL
    if not journal.exists():
        return
    try:
        note = read_json(journal)
        before, written = str(note["before"]), str(note["written"])
    except (ValueError, KeyError, TypeError):
        say(f"{journal} is not what a run writes there: {path} stays as it is")
        journal.unlink()
        return
    present = path.read_bytes().decode(errors="replace") if path.exists() else ""
    if _digest(present) == written:
        write_text(path, before)
    elif present != before:
        say(f"{path} was edited since a run set its overrides there: it stays as it is")
    journal.unlink()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _overridden(overrides: Overrides, path: Path) -> str:
    """Return the text of params.yaml with the values set; the text as it is where each has its value already."""
    return _with(overrides, _read(path), path)


def _with(overrides: Overrides, before: str, path: Path) -> str:
    if not overrides:
        return before
    yaml = _round_trip()
    document = _parsed(before, path)
    changed = [_assign(document, key, value) for key, value in overrides.items()]
    if not any(changed):
        return before
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _parsed(text: str, path: Path) -> Any:
    try:
        return _round_trip().load(text)
    except YAMLError as error:
        raise InputError(f"{path} is not YAML: {without_credentials(' '.join(str(error).split()))}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run from the repository's root") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8") from error


def _round_trip() -> YAML:
    """Return a parser that keeps comments, quotes and the layout of params.yaml."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _assign(document: Any, key: str, value: Any) -> bool:
    """Set one dotted key; return whether that changed its value. Unknown last parts are left to the validation."""
    *parents, last = key.split(".")
    section = document
    for number, part in enumerate(parents, start=1):
        section = section.get(part) if isinstance(section, MutableMapping) else None
        if not isinstance(section, MutableMapping):
            raise InputError(f"{key}: params.yaml has no section {'.'.join(parents[:number])}")
    if not isinstance(section, MutableMapping):
        raise InputError("params.yaml holds no sections")
    if last in section and section[last] == value and isinstance(section[last], bool) == isinstance(value, bool):
        return False  # in Python 1 == True
    section[last] = value
    return True
