"""Read and write model.keras: canonical, so that equal weights are equal bytes, and only ever in safe mode."""

import hashlib
import io
import json
import math
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras

import tasks.models.backbones
import tasks.models.layers  # noqa: F401  registers the layers that a saved model names
from tasks.model_files.inspection import inspect_archive
from tasks.stage.errors import InputError
from tasks.stage.files import CHUNK, replaced_file

ARCHIVE_DATE = (1980, 1, 1, 0, 0, 0)
FEATURE_MAP_LIMIT = 1 << 27  # numbers; VGG16 makes 2^26 of an image of 1024×1024, the largest that params.yaml allows


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


def load_model(path: Path, sha256: str | None = None) -> keras.Model:
    """Read a `.keras` file in safe mode, once its bytes and what the archive holds are known to be right.

    Args:
        path: The file.
        sha256: What was recorded for its bytes; not compared if not given.

    Raises:
        InputError: The file is missing, damaged, has another sha256, is not a Keras 3 model, or has something that no
            model of ours has (tasks/model_files/inspection.py).
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no model here")
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        private = (
            Path(folder) / "model.keras"
        )  # what is checked is what is loaded, whatever becomes of `path` meanwhile
        if _copy(path, private) != sha256 and sha256 is not None:
            raise InputError(f"{path} was altered: its sha256 is not the one that was recorded for it")
        try:
            inspect_archive(private)
            network = keras.saving.load_model(private, compile=False, safe_mode=True)
            _check_feature_maps(network)
            return network
        except InputError as error:
            raise InputError(f"{path} {error}") from error
        except Exception as error:  # Keras raises many types on a config that does not fit together
            raise InputError(f"{path} is not a Keras model that can be read: {_first_line(error)}") from error


def _copy(source: Path, target: Path) -> str:
    """Copy a file and return the sha256 of the bytes that were copied."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()


def _check_feature_maps(network: keras.Model) -> None:
    """Refuse a model of few weights whose answer to one image would take gigabytes."""
    if any(None in tensor.shape[1:] for tensor in network.inputs):
        raise InputError("takes images of any size, so that nothing bounds what one may cost")
    shapes = [tensor.shape[1:] for tensor in network.inputs]
    for layer in network.layers:
        shapes.append(layer.output.shape[1:])
        if isinstance(layer, keras.layers.SeparableConv2D):  # within it each channel is filtered by itself first
            shapes.append((*layer.output.shape[1:-1], layer.input.shape[-1], layer.depth_multiplier))
    values = max(math.prod(side or 1 for side in shape) for shape in shapes)
    if values > FEATURE_MAP_LIMIT:
        raise InputError(f"makes {values:,} numbers of one image, more than {FEATURE_MAP_LIMIT:,}")


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
