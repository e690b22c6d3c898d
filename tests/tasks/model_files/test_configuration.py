"""A model file's config: only our classes and settings, and the weights that Keras would make of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.model_files.configuration import weight_shapes
from tasks.model_files.inspection import inspect_archive
from tasks.models.build import build_model
from tasks.models.whitening import PixelStatistics
from tasks.params.params import load_params
from tasks.params.recipe import ModelParams
from tasks.stage.errors import InputError
from tests.fixtures.model_archives import CONFIG, Config, layer_named, refusal, with_config, write_members

HUGE = 10**12

Members = dict[str, bytes]


def replaced(name: str, **changes: object) -> Callable[[Config], None]:
    """Change a layer."""
    return lambda config: layer_named(config, name).update(changes)


def setting(name: str, **changes: object) -> Callable[[Config], None]:
    """Change a layer's settings."""
    return lambda config: layer_named(config, name)["config"].update(changes)


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


LAMBDA = {"class_name": "__lambda__", "config": {"value": "4wEAAA=="}}
SHADOW = {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"}
CONFIGS: dict[str, tuple[Callable[[Config], object], str]] = {
    "Lambda": (replaced("pooling", class_name="Lambda"), "the layer keras.layers.Lambda, which is not one of"),
    "Lambda by its file": (
        replaced("pooling", class_name="Lambda", module="keras.src.layers.core.lambda_layer"),
        "the layer keras.src.layers.core.lambda_layer.Lambda",
    ),
    "TFSMLayer": (replaced("pooling", class_name="TFSMLayer"), "the layer keras.layers.TFSMLayer"),
    "a model inside a model": (
        replaced("pooling", class_name="Functional", module="keras.src.models.functional"),
        "the layer keras.src.models.functional.Functional",
    ),
    "a registered class of others": (replaced("pooling", registered_name="other>Evil"), "the layer other>Evil"),
    "ours under another's name": (replaced("pooling", registered_name="retrain>PixelScaling"), "retrain>PixelScaling"),
    "no module, as in old files": (lambda config: layer_named(config, "pooling").pop("module") and None, "without"),
    "a lambda as an activation": (setting("logits", activation=LAMBDA), "an object without"),
    "a function as an activation": (setting("logits", activation=SHADOW), "builtins.function"),
    "a lambda in an initializer": (
        lambda config: layer_named(config, "logits")["config"]["kernel_initializer"]["config"].update(seed=LAMBDA),
        "an object as its seed",
    ),
    "an unknown activation": (setting("logits", activation="exec"), "activation = 'exec'"),
    "an unknown setting": (setting("logits", lora_rank=4), "a Dense with 'lora_rank'"),
    "a quantization": (setting("logits", quantization_config="int8"), "quantization_config = 'int8'"),
    "a quantized dtype": (setting("logits", dtype="int8_from_float32"), "dtype = 'int8_from_float32'"),
    "a regularizer": (setting("logits", kernel_regularizer="l2"), "kernel_regularizer = 'l2'"),
    "channels first": (setting("convolution", data_format="channels_first"), "data_format = 'channels_first'"),
    "a compiled model": (lambda config: config.update(compile_config={"optimizer": "adam"}), "a compile_config"),
    "a layer called twice": (
        lambda config: layer_named(config, "pooling").update(inbound_nodes=[{"args": [], "kwargs": {}}] * 2),
        "called more than once",
    ),
    "a layer called on a constant": (
        lambda config: layer_named(config, "pooling")["inbound_nodes"][0].update(
            args=[{"class_name": "__numpy__", "config": {"value": [0], "dtype": "float32"}}]
        ),
        "called on something else than other layers",
    ),
    "a layer called with an object": (
        lambda config: layer_named(config, "pooling")["inbound_nodes"][0].update(kwargs={"mask": LAMBDA}),
        "an unusual argument",
    ),
    "a layer larger than its weights": (setting("logits", units=10**7), "arrays of weights that are not"),
    "a layer without end": (setting("logits", units=HUGE), f"units = {HUGE}"),
    "a layer built for more": (
        replaced("logits", build_config={"input_shape": [None, 10**7]}),
        "arrays of weights that are not",
    ),
    "a layer built for nothing": (replaced("logits", build_config=None), "does not say what it was built for"),
    "a layer built in another way": (replaced("logits", build_config={"shapes_dict": {}}), "other than an input_shape"),
    "another kind of model": (lambda config: config.update(class_name="Dense", module="keras.layers"), "is expected"),
    "too deep": (setting("logits", units=nested(40)), "lists and objects in one another"),
    "too many layers": (
        lambda config: config["config"].update(layers=[layer_named(config, "pooling")] * 2001),
        "at most 2,000 layers",
    ),
    "a list": (lambda config: [config], "without class_name"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_of_anything_else_is_refused(case: str, members: Members, tmp_path: Path) -> None:
    change, sentence = CONFIGS[case]
    path = write_members(tmp_path / "model.keras", with_config(members, change))
    with pytest.raises(InputError, match=sentence):
        inspect_archive(path)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b'{"class_name": NaN}', "the value NaN"),
        (b"null", "without class_name"),
    ],
)
def test_a_config_that_is_no_config_is_refused(body: bytes, sentence: str, members: Members, tmp_path: Path) -> None:
    path = write_members(tmp_path / "model.keras", {**members, CONFIG: body})
    with pytest.raises(InputError, match=sentence):
        inspect_archive(path)


def test_a_layer_larger_than_its_weights_is_refused_before_it_is_allocated(members: Members, tmp_path: Path) -> None:
    change, sentence = CONFIGS["a layer larger than its weights"]
    assert sentence in refusal(write_members(tmp_path / "model.keras", with_config(members, change)))


RECIPES = load_params(Path(__file__).parents[3] / "params.yaml").recipes
NETWORKS = {name: recipe.model for name, recipe in RECIPES.items()} | {
    "resnet50": ModelParams(base="resnet50", head="residual_separable", scaling="imagenet"),
    "silu": ModelParams(base="airbench", head="residual_separable", widths=(8, 8, 8), activation="silu"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_ours_may_be_named_and_has_the_weights_that_keras_makes(name: str) -> None:
    statistics = PixelStatistics((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    network = build_model(NETWORKS[name], (32, 32, 3), 10, statistics)
    assert sorted(weight_shapes(network.to_json().encode())) == sorted(
        tuple(weight.shape) for weight in network.weights
    )
