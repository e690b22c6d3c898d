"""A model file, before Keras sees it: the archive, its config, its weights, by the first byte."""

import io
import math
import zipfile

import h5py
import numpy as np

from tasks.model_files.configuration import weight_shapes
from tasks.model_files.inspection import inspect_archive
from tasks.models.weights_file import stored_shapes
from tasks.stage.errors import InputError
from tests.fuzz.scratch import file_of

ARCHIVE, CONFIG, WEIGHTS = b"A", b"C", b"W"

# A sound config with a layer of every form: called on one and on several, with and without weights.
LAYERS = """{"class_name": "Functional", "module": "keras.src.models.functional", "registered_name": "Functional",
"build_config": {"input_shape": null}, "compile_config": {}, "config": {"name": "m", "trainable": true,
"input_layers": ["i", 0, 0], "output_layers": ["d", 0, 0], "layers": [
{"class_name": "InputLayer", "module": "keras.layers", "registered_name": null, "name": "i", "inbound_nodes": [],
"config": {"batch_shape": [null, 8, 8, 3], "dtype": "uint8", "name": "i", "sparse": false}},
{"class_name": "Convolution", "module": "tasks.models.convolution", "registered_name": "retrain>Convolution",
"name": "c", "build_config": {"input_shape": [null, 8, 8, 3]}, "inbound_nodes": [{"args": [{"class_name":
"__keras_tensor__", "config": {"shape": [null, 8, 8, 3], "dtype": "float32", "keras_history": ["i", 0, 0]}}],
"kwargs": {"training": false}}], "config": {"name": "c", "filters": 4, "kernel_size": [3, 3], "groups": 1,
"use_bias": true, "activation": {"class_name": "function", "config": "retrain>gelu", "module": "builtins",
"registered_name": "function", "shared_object_id": 1}, "kernel_initializer": {"class_name": "HeNormal",
"module": "keras.initializers", "registered_name": null, "config": {"seed": null}}}},
{"class_name": "BatchNormalization", "module": "tasks.models.layers",
"registered_name": "retrain>BatchNormalization", "name": "b", "build_config": {"input_shape": [null, 8, 8, 4]},
"inbound_nodes": [], "config": {"name": "b", "scale": true, "epsilon": 0.001, "momentum": 0.6}},
{"class_name": "Dense", "module": "keras.layers", "registered_name": null, "name": "d",
"build_config": {"input_shape": [null, 4]}, "inbound_nodes": [], "config": {"name": "d", "units": 2,
"use_bias": false, "quantization_config": null, "dtype": {"class_name": "DTypePolicy", "module": "keras",
"registered_name": null, "config": {"name": "float32"}, "shared_object_id": 0}}}]}}"""
SHAPES = [(3, 3, 3, 4), (4,), (4,), (4,), (4,), (4,), (4, 2)]


def check(data: bytes) -> bool:
    """Inspect bytes; they are accepted or an InputError, and accepted weights are no larger than their file."""
    part, body = data[:1], data[1:]
    try:
        if part == CONFIG:
            weight_shapes(body)
        elif part == WEIGHTS:
            shapes = stored_shapes(io.BytesIO(body), len(body))
            assert 4 * sum(math.prod(shape) for shape in shapes) <= len(body)
        else:
            inspect_archive(file_of(body))
    except InputError:
        return False
    return True


def seeds() -> dict[str, bytes]:
    """Return a sound archive, its config and its weights."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for number, shape in enumerate(SHAPES):
            file[f"layers/layer_{number}/vars/0"] = np.zeros(shape, np.float32)
            file[f"layers/layer_{number}/vars"].attrs["name"] = f"layer {number}"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr(zipfile.ZipInfo("config.json"), LAYERS)
        members.writestr(zipfile.ZipInfo("metadata.json"), "{}")
        members.writestr(zipfile.ZipInfo("model.weights.h5"), weights.getvalue())
    parts = {"archive": ARCHIVE + archive.getvalue(), "config": CONFIG + LAYERS.encode()}
    return parts | {"weights": WEIGHTS + weights.getvalue()}
