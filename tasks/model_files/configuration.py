"""What a model file's config.json may say, and which weights follow from it; read without Keras, which would build it.

Keras's safe mode refuses lambdas and little else: a config may name any layer, and a layer of any size is allocated as
soon as it is read. So only what tasks/model_files/allowed_classes.py lists may be named, and the shapes of all weights
are worked out here first.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

from tasks.model_files.allowed_classes import (
    ACTIVATIONS,
    DTYPES,
    FUNCTION,
    LAYERS,
    MODELS,
    OWN_ACTIVATION,
    PARTS,
    POLICY,
    UNUSED,
    Config,
    Identity,
    Kind,
    Shape,
    UnknownError,
    is_count,
    shown,
    start_of,
)
from tasks.stage.errors import InputError

DEPTH_LIMIT = 24  # of lists and objects in one another; Keras needs half of it
LAYERS_LIMIT = 2000
ITEMS_LIMIT = 4096  # of one list inside a layer's settings
TEXT_LIMIT = 256
INTEGER_LIMIT = 2**32  # that of a seed


def weight_shapes(body: bytes) -> list[Shape]:
    """Return the shapes of all weights that Keras would make for a config.json, in no particular order.

    Args:
        body: The file's bytes. They are parsed as Keras parses them, so that both see the same.

    Raises:
        InputError: It is not the JSON of a model, or names a class, a setting or a value that no model of ours has;
            the text goes on after the file's name.
    """
    try:
        config = json.loads(body, parse_constant=_refuse_constant)
        return [shape for layer in _layers_of(config) for shape in _weights_of(layer)]
    except UnknownError as error:
        raise InputError(f"has a config.json with {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"has a config.json that is not JSON: {start_of(str(error))}") from error


def check_layers(body: bytes) -> None:
    """Refuse a network that could be trained and saved, and then not be loaded.

    Args:
        body: Its config as JSON.

    Raises:
        InputError: It has a layer or a setting that allowed_classes.py does not name.
    """
    try:
        for _ in _layers_of(json.loads(body)):
            pass
    except UnknownError as error:
        raise InputError(
            f"the network has {error}; whoever added it adds a line to tasks/model_files/allowed_classes.py, without "
            "which no saved model of it would be loaded"
        ) from error


def _refuse_constant(name: str) -> None:
    raise UnknownError(f"the value {name}")


def _layers_of(config: Any) -> Iterator[Config]:
    """Yield the layers of a model's config, checked."""
    _check_depth(config)
    model = _object(config, {"build_config", "compile_config"})
    name = _identity(model)
    if name not in MODELS:
        raise UnknownError(f"{_named(name)} where a Functional or Sequential model is expected")
    if model.get("compile_config"):
        raise UnknownError("a compile_config: the model was not saved for inference alone")
    _check_shapes(model.get("build_config"))
    inner = _settings(model, MODELS[name])
    layers = inner.get("layers")
    if not isinstance(layers, list) or len(layers) > LAYERS_LIMIT:
        raise UnknownError(f"no list of at most {LAYERS_LIMIT:,} layers")
    for key, value in inner.items():
        if key != "layers":
            _check_value(key, value)
    for layer in layers:
        yield _checked_layer(layer)


def _checked_layer(value: Any) -> Config:
    layer = _object(value, {"build_config", "inbound_nodes", "name"})
    name = _identity(layer)
    if name not in LAYERS:
        raise UnknownError(f"the layer {_named(name)}, which is not one of those that models here are made of")
    for key, setting in _settings(layer, LAYERS[name]).items():
        _check_value(key, setting)
    if "name" in layer:
        _check_value("name", layer["name"])
    _check_shapes(layer.get("build_config"))
    nodes = layer.get("inbound_nodes", [])
    if not isinstance(nodes, list) or len(nodes) > 1:
        raise UnknownError("a layer that is called more than once")
    for node in nodes:
        _check_node(node)
    return layer


def _weights_of(layer: Config) -> list[Shape]:
    """Return the shapes that a layer's weights get from its settings and from the input shape that it was built for."""
    weights = LAYERS[_identity(layer)].weights
    if weights is None:
        return []
    build = layer.get("build_config") or {}
    shape = build.get("input_shape")
    if not (isinstance(shape, list) and shape and is_count(shape[-1])):
        raise UnknownError(f"a {layer['class_name']} that does not say what it was built for")
    shapes = weights(layer["config"], tuple(0 if side is None else side for side in shape))
    for sides in shapes:
        if not all(is_count(side) for side in sides):
            raise UnknownError(f"a {layer['class_name']} of impossible size")
    return shapes


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_LIMIT):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:
        raise UnknownError(f"more than {DEPTH_LIMIT} lists and objects in one another")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _object(value: Any, more: set[str]) -> Config:
    """Return a value that is an object as Keras writes one, with no other keys than the usual ones and `more`."""
    usual = {"class_name", "config", "module", "registered_name"}
    if not isinstance(value, dict) or not usual <= value.keys():
        raise UnknownError("an object without class_name, config, module or registered_name")
    for key in sorted(value.keys() - usual - more):
        raise UnknownError(f"an object with {shown(key)}")
    return value


def _identity(value: Config) -> Identity:
    names = (value["module"], value["class_name"], value["registered_name"])
    if not all(name is None or isinstance(name, str) for name in names):
        raise UnknownError("an object whose class has no name")
    return names


def _settings(value: Config, kind: Kind) -> Config:
    settings = value["config"]
    if not isinstance(settings, dict):
        raise UnknownError(f"a {value['class_name']} without settings")
    for key in sorted(settings.keys() - kind.settings):
        raise UnknownError(f"a {value['class_name']} with {shown(key)}")
    return settings


def _check_value(key: str, value: Any) -> None:
    """Raise UnknownError for a setting of a model, a layer or a part that is not of a form that Keras writes."""
    if key in UNUSED and value is not None:
        raise UnknownError(f"{key} = {shown(value)}")
    if isinstance(value, dict):
        _check_part(value)
    elif isinstance(value, list):
        if len(value) > ITEMS_LIMIT:
            raise UnknownError(f"{key} = a list of {len(value):,}")
        for inner in value:
            _check_value("", inner)
    else:
        _check_scalar(key, value)


def _check_scalar(key: str, value: Any) -> None:
    allowed = {"dtype": DTYPES, "activation": ACTIVATIONS, "data_format": frozenset({"channels_last"})}.get(key)
    if isinstance(value, str):
        passed = len(value) <= TEXT_LIMIT and (allowed is None or value in allowed)
    elif isinstance(value, int):
        passed = allowed is None and abs(value) <= INTEGER_LIMIT
    else:
        passed = value is None or math.isfinite(value)
    if not passed:
        raise UnknownError(f"{key} = {shown(value)}")


def _check_part(value: Config) -> None:
    """Check what stands inside a layer's settings: a dtype policy, an initializer, or our activation."""
    part = _object(value, {"shared_object_id"})
    shared = part.get("shared_object_id", 0)
    if type(shared) is not int:
        raise UnknownError(f"shared_object_id = {shown(shared)}")
    name = _identity(part)
    if name == FUNCTION and part["config"] == OWN_ACTIVATION:
        return
    if name not in PARTS:
        raise UnknownError(f"{_named(name)}, which is not one of the parts that layers here are made of")
    for key, setting in _settings(part, PARTS[name]).items():
        if isinstance(setting, dict):
            raise UnknownError(f"a {part['class_name']} with an object as its {key}")
        _check_value("dtype" if name == POLICY else key, setting)


def _check_node(node: Any) -> None:
    """Check how a layer is called: on tensors of other layers, and with plain arguments."""
    if not isinstance(node, dict) or node.keys() != {"args", "kwargs"} or not isinstance(node["kwargs"], dict):
        raise UnknownError("a layer that is called on something else than other layers")
    if not all(value is None or isinstance(value, bool) for value in node["kwargs"].values()):
        raise UnknownError("a layer that is called with an unusual argument")
    for tensor in _flat(node["args"]):
        inner = tensor.get("config") if isinstance(tensor, dict) and tensor.keys() == {"class_name", "config"} else None
        plain = isinstance(inner, dict) and inner.keys() == {"shape", "dtype", "keras_history"}
        if inner is None or not plain or tensor["class_name"] != "__keras_tensor__":
            raise UnknownError("a layer that is called on something else than other layers")
        _check_shapes({"input_shape": inner["shape"]})
        _check_value("dtype", inner["dtype"])
        _check_value("keras_history", inner["keras_history"])


def _check_shapes(build: Any) -> None:
    if build is None:
        return
    if not isinstance(build, dict) or build.keys() != {"input_shape"}:
        raise UnknownError("a build_config other than an input_shape")
    for side in _flat(build["input_shape"]):
        if side is not None and not is_count(side):
            raise UnknownError(f"the side {shown(side)} in an input_shape")


def _flat(value: Any) -> Iterator[Any]:
    """Yield what is in lists in one another; _check_depth has bounded their depth."""
    if isinstance(value, list):
        for inner in value:
            yield from _flat(inner)
    else:
        yield value


def _named(identity: Identity) -> str:
    module, name, registered = identity
    return start_of(registered if registered and ">" in registered else f"{module}.{name}")
