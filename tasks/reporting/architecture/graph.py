"""A Keras model as a list of boxes that name their parents. Nested models are flattened."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Shape = tuple[int | None, ...]
Reference = tuple[str, int, int]  # layer, call of that layer, output of that call, as in Keras's `keras_history`
TENSOR = "__keras_tensor__"


@dataclass(frozen=True)
class Box:
    """One call of one layer.

    Attributes:
        name: Of the layer, with the names of the models that it is nested in before it.
        kind: The layer's class.
        detail: What its configuration adds, as in `3×3 stride 2 relu`.
        shape: Of its output, without the batch.
        parameters: Of the layer; 0 for a second call of a shared layer.
        parents: Positions in the list of boxes, without repetition.
    """

    name: str
    kind: str
    detail: str
    shape: Shape
    parameters: int
    parents: tuple[int, ...]


def read_graph(model: Any) -> list[Box]:
    """Return the boxes of a functional or sequential model, every parent before its children.

    Raises:
        ValueError: The model is a subclass whose graph Keras does not know.
    """
    boxes: list[Box] = []
    _add_model(model, None, "", boxes)
    return boxes


def _add_model(model: Any, sources: list[int] | None, prefix: str, boxes: list[Box]) -> list[int]:
    """Append a model's boxes; `sources` are its inputs where it is nested. Return the boxes of its outputs."""
    config = model.get_config()
    if "input_layers" in config:
        return _add_functional(model, config, sources, prefix, boxes)
    if "layers" in config and model.built:
        return _add_sequential(model, sources, prefix, boxes)
    raise ValueError(f"{model.name} is neither a functional nor a built sequential model")


def _add_sequential(model: Any, sources: list[int] | None, prefix: str, boxes: list[Box]) -> list[int]:
    shape = tuple(model.input_shape)
    if sources is None:
        boxes.append(Box(f"{prefix}input", "InputLayer", "", shape[1:], 0, ()))
        sources = [len(boxes) - 1]
    for layer in model.layers:
        shape = tuple(layer.compute_output_shape(shape))
        sources = _add_call(layer, shape, sources, prefix, boxes, first=True)
    return sources


def _add_functional(
    model: Any, config: dict[str, Any], sources: list[int] | None, prefix: str, boxes: list[Box]
) -> list[int]:
    operations = {operation.name: operation for operation in model.operations}
    inputs, outputs = list(_references(config["input_layers"])), list(_references(config["output_layers"]))
    shapes = {output[:2]: tuple(tensor.shape) for output, tensor in zip(outputs, model.outputs, strict=True)}
    shapes |= {(name, 0): tuple(tensor.shape) for (name, _, _), tensor in zip(inputs, model.inputs, strict=True)}
    calls = [
        (layer["name"], index, list(_tensors(node)))
        for layer in config["layers"]
        for index, node in enumerate(layer["inbound_nodes"])
    ]
    shapes |= {reference[:2]: shape for _, _, tensors in calls for reference, shape in tensors}

    made: dict[tuple[str, int], list[int]] = {}
    for position, (name, _, _) in enumerate(inputs):
        if sources is None:
            made[name, 0] = _add_call(operations[name], shapes[name, 0], [], prefix, boxes, first=True)
        else:
            made[name, 0] = [sources[position]]
    while calls:  # a shared layer's second call may stand before the layer that feeds it
        ready = [call for call in calls if all(reference[:2] in made for reference, _ in call[2])]
        for name, index, tensors in ready:
            parents = [_output(made, reference) for reference, _ in tensors]
            made[name, index] = _add_call(
                operations[name], shapes[name, index], parents, prefix, boxes, first=index == 0
            )
        calls = [call for call in calls if call not in ready]
    return [_output(made, output) for output in outputs]


def _add_call(layer: Any, shape: Shape, parents: list[int], prefix: str, boxes: list[Box], *, first: bool) -> list[int]:
    if getattr(layer, "layers", None):
        return _add_model(layer, parents, f"{prefix}{layer.name}/", boxes)
    parameters = layer.count_params() if first and getattr(layer, "built", False) and hasattr(layer, "weights") else 0
    kind = type(layer).__name__
    boxes.append(Box(prefix + layer.name, kind, _detail(layer), shape[1:], parameters, tuple(dict.fromkeys(parents))))
    return [len(boxes) - 1]


def _output(made: dict[tuple[str, int], list[int]], reference: Reference) -> int:
    boxes = made[reference[:2]]
    return boxes[min(reference[2], len(boxes) - 1)]


def _references(value: Any) -> Iterator[Reference]:
    """Yield every `[layer, call, output]` in any nesting of lists and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if len(value) == 3 and isinstance(value[0], str):
        yield (value[0], value[1], value[2])
    else:
        for part in value:
            yield from _references(part)


def _tensors(value: Any) -> Iterator[tuple[Reference, Shape]]:
    """Yield every Keras tensor among a call's arguments with its shape, batch included."""
    if isinstance(value, dict) and value.get("class_name") == TENSOR:
        name, call, output = value["config"]["keras_history"]
        yield (name, call, output), tuple(value["config"]["shape"])
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _detail(layer: Any) -> str:
    config = layer.get_config()
    window = config.get("kernel_size") or config.get("pool_size")
    strides = config.get("strides")
    parts = ["×".join(map(str, window))] if isinstance(window, tuple | list) else []
    if isinstance(strides, tuple | list) and set(strides) != {1} and strides != config.get("pool_size"):
        parts.append(f"stride {strides[0]}")
    if "rate" in config:
        parts.append(f"{config['rate']:g}")
    activation = config.get("activation")
    if isinstance(activation, dict):
        activation = activation.get("config")
    if isinstance(activation, str) and activation != "linear":
        parts.append(activation.rpartition(">")[2])  # without the package that a function of our own is registered in
    return " ".join(parts)
