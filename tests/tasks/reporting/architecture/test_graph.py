"""A model's boxes: names, shapes, parameters and parents, for every way in which Keras nests and shares."""

import keras
import pytest

from tasks.reporting.architecture.graph import Box, read_graph
from tests.tasks.reporting.small_run import build_small_model

layers = keras.layers


def by_name(boxes: list[Box]) -> dict[str, Box]:
    return {box.name: box for box in boxes}


def parents(boxes: list[Box], name: str) -> list[str]:
    return [boxes[parent].name for parent in by_name(boxes)[name].parents]


def test_a_residual_branch() -> None:
    boxes = read_graph(build_small_model())
    assert parents(boxes, "add") == ["convolution", "shortcut"]
    assert parents(boxes, "shortcut") == ["scaling"]
    box = by_name(boxes)["convolution"]
    assert (box.kind, box.detail, box.shape, box.parameters) == ("Conv2D", "3×3 relu", (12, 10, 8), 3 * 3 * 3 * 8 + 8)
    assert by_name(boxes)["images"].shape == (12, 10, 3)


def test_parents_come_before_children() -> None:
    boxes = read_graph(keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3)))
    assert len(boxes) == 175
    assert all(parent < position for position, box in enumerate(boxes) for parent in box.parents)
    assert sum(box.parameters for box in boxes) == 23_587_712


def test_nested_models_are_flattened() -> None:
    inner_input = keras.Input((8, 8, 4))
    left, right = layers.Conv2D(4, 1, name="left")(inner_input), layers.ReLU(name="right")(inner_input)
    inner = keras.Model(inner_input, [right, left], name="inner")
    chain = keras.Sequential([layers.Conv2D(4, 1, name="first"), layers.ReLU(name="second")], name="chain")
    inputs = keras.Input((8, 8, 3), name="images")
    one, two = inner(chain(inputs))
    boxes = read_graph(keras.Model(inputs, layers.Concatenate(name="join")([one, two])))
    assert parents(boxes, "chain/first") == ["images"]
    assert parents(boxes, "inner/left") == parents(boxes, "inner/right") == ["chain/second"]
    assert parents(boxes, "join") == ["inner/right", "inner/left"]
    assert by_name(boxes)["join"].shape == (8, 8, 8)


def test_a_shared_layer_counts_once() -> None:
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    boxes = read_graph(keras.Model(inputs, shared(layers.ReLU(name="between")(shared(inputs)))))
    assert [(box.name, box.parameters) for box in boxes[1:]] == [("shared", 20), ("between", 0), ("shared", 0)]
    assert boxes[3].parents == (2,)


def test_a_sequential_model_has_an_input() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.MaxPooling2D(2, name="pool"), layers.Flatten(name="flat")])
    boxes = read_graph(model)
    assert [(box.name, box.shape, box.parents) for box in boxes] == [
        ("input", (8, 8, 3), ()), ("pool", (4, 4, 3), (0,)), ("flat", (48,), (1,)),
    ]  # fmt: skip


def test_operations_without_layers_are_boxes() -> None:
    inputs = keras.Input((4,), name="images")
    boxes = read_graph(keras.Model(inputs, inputs * 2.0 + inputs))
    assert [box.kind for box in boxes] == ["InputLayer", "Multiply", "Add"]
    assert boxes[2].parents == (1, 0)


def test_a_subclass_is_refused() -> None:
    class Opaque(keras.Model):
        def call(self, inputs: object) -> object:
            return inputs

    with pytest.raises(ValueError, match="neither a functional nor a built sequential"):
        read_graph(Opaque())
