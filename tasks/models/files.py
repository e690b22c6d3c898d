"""Read and write model.keras: canonical, so that equal weights are equal bytes, and only ever in safe mode."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import keras

import tasks.models.bases
import tasks.models.layers  # noqa: F401  registers the layers that a saved model names
from tasks.errors import InputError
from tasks.files import replaced_file

ARCHIVE_DATE = (1980, 1, 1, 0, 0, 0)


def save_model(model: keras.Model, path: Path) -> None:
    """Write a model as a canonical `.keras` file: members in order, no dates; complete or not at all."""
    with replaced_file(path) as temporary:
        buffer = io.BytesIO()
        plain = temporary.with_suffix(".keras")
        try:
            model.save(plain)
            with zipfile.ZipFile(plain) as source, zipfile.ZipFile(buffer, "w") as target:
                for name in sorted(source.namelist()):
                    target.writestr(zipfile.ZipInfo(name, ARCHIVE_DATE), _canonical(name, source.read(name)))
        finally:
            plain.unlink(missing_ok=True)
        temporary.write_bytes(buffer.getvalue())


def load_model(path: Path) -> keras.Model:
    """Read a `.keras` file in safe mode.

    Raises:
        InputError: The file is missing, damaged, or not a Keras 3 model.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no model here")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise InputError(f"{path} is damaged: {damaged} does not match its checksum")
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (zipfile.BadZipFile, ValueError, TypeError, KeyError, OSError, EOFError, NotImplementedError) as error:
        raise InputError(f"{path} is not a Keras model that can be read: {_first_line(error)}") from error


def _canonical(name: str, data: bytes) -> bytes:
    """Take out of a JSON member what depends on the clock or on where Python put an object in memory."""
    if not name.endswith(".json"):
        return data
    value = json.loads(data)
    value.pop("date_saved", None)
    _number_shared_objects(value, {})
    return json.dumps(value, sort_keys=True).encode()


def _number_shared_objects(value: Any, numbers: dict[int, int]) -> None:
    """Replace every `shared_object_id`, which Keras takes from memory addresses, by its order of appearance."""
    if isinstance(value, dict):
        if "shared_object_id" in value:
            value["shared_object_id"] = numbers.setdefault(value["shared_object_id"], len(numbers))
        for key in sorted(value):
            _number_shared_objects(value[key], numbers)
    elif isinstance(value, list):
        for entry in value:
            _number_shared_objects(entry, numbers)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
