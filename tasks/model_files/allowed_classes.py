"""The classes that a model file may name: what tasks/models builds networks of, with Keras 3.15's own settings.

A new layer in a base or a head needs its line here, and its weights' shapes if it has weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DIMENSION_LIMIT = 2**24

Shape = tuple[int, ...]
Config = dict[str, Any]
Identity = tuple[str | None, str | None, str | None]  # module, class_name, registered_name

FUNCTION: Identity = ("builtins", "function", "function")
OWN_ACTIVATION = "retrain>gelu"
ACTIVATIONS = frozenset({"linear", "relu", "gelu", "silu", "softmax", "sigmoid", "hard_sigmoid", "hard_silu"})
DTYPES = frozenset({"float32", "float64", "bfloat16", "mixed_bfloat16", "float16", "mixed_float16", "uint8"})

# Settings through which Keras builds more than the layer; nothing here uses them.
UNUSED = frozenset(
    {"quantization_config", "activity_regularizer"}
    | {
        f"{part}_{kind}"
        for part in ("kernel", "bias", "depthwise", "pointwise", "gamma", "beta")
        for kind in ("regularizer", "constraint")
    }
)


class UnknownError(Exception):
    """A config has something that no model of ours has; the text says what."""


@dataclass(frozen=True)
class Kind:
    """A class that a config may name.

    Attributes:
        settings: What its own config may hold.
        weights: From that config and the shape of its input to the shapes of its weights; None where it has none.
    """

    settings: frozenset[str]
    weights: Callable[[Config, Shape], list[Shape]] | None = None


def is_count(value: Any) -> bool:
    """Return whether a value can be a number of channels or a side of an array."""
    return type(value) is int and 0 < value <= DIMENSION_LIMIT


def shown(value: Any) -> str:
    """Return a value for a sentence, cut short."""
    return start_of(repr(value))


def start_of(text: str) -> str:
    """Return the start of a stranger's text, without what would move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in text[:80])


def _convolution(config: Config, inputs: Shape) -> list[Shape]:
    channels, filters, groups = inputs[-1], _count(config, "filters"), _count(config, "groups")
    if channels % groups:
        raise UnknownError(f"a convolution of {channels} channels in {groups} groups")
    return [(*_pair(config, "kernel_size"), channels // groups, filters), *_bias(config, filters)]


def _separable_convolution(config: Config, inputs: Shape) -> list[Shape]:
    filters, multiplier = _count(config, "filters"), _count(config, "depth_multiplier")
    depthwise = (*_pair(config, "kernel_size"), inputs[-1], multiplier)
    return [depthwise, (1, 1, multiplier * inputs[-1], filters), *_bias(config, filters)]


def _depthwise_convolution(config: Config, inputs: Shape) -> list[Shape]:
    multiplier = _count(config, "depth_multiplier")
    return [(*_pair(config, "kernel_size"), inputs[-1], multiplier), *_bias(config, inputs[-1] * multiplier)]


def _normalized_convolution(config: Config, inputs: Shape) -> list[Shape]:
    channels, side = inputs[-1], _count(config, "kernel_size")
    filters = None if config.get("filters") is None else _count(config, "filters")
    return [(side, side, channels, filters or 1), *[(filters or channels,)] * 4]


def _whitening_convolution(config: Config, inputs: Shape) -> list[Shape]:
    filters = _count(config, "filters")
    return [(2, 2, inputs[-1], filters), (filters,)]


def _batch_normalization(config: Config, inputs: Shape) -> list[Shape]:
    return [(inputs[-1],)] * (4 if _flag(config, "scale") else 3)


def _layer_normalization(config: Config, inputs: Shape) -> list[Shape]:
    if config.get("axis") not in (-1, [-1]) or _flag(config, "rms_scaling"):
        raise UnknownError("a layer norm of more than the last axis")
    return [(inputs[-1],)] * (_flag(config, "scale") + _flag(config, "center"))


def _layer_scale(config: Config, inputs: Shape) -> list[Shape]:
    return [(inputs[-1],)]


def _dense(config: Config, inputs: Shape) -> list[Shape]:
    units = _count(config, "units")
    return [(inputs[-1], units), *_bias(config, units)]


def _bias(config: Config, size: int) -> list[Shape]:
    return [(size,)] if _flag(config, "use_bias") else []


def _count(config: Config, key: str) -> int:
    value = config.get(key)
    if not is_count(value):
        raise UnknownError(f"{key} = {shown(value)}")
    return int(value)  # type: ignore[arg-type]


def _pair(config: Config, key: str) -> tuple[int, int]:
    value = config.get(key)
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_count, value)):
        raise UnknownError(f"{key} = {shown(value)}")
    return value[0], value[1]


def _flag(config: Config, key: str) -> bool:
    value = config.get(key)
    if not isinstance(value, bool):
        raise UnknownError(f"{key} = {shown(value)}")
    return value


def _kinds(module: str, **settings: str) -> dict[Identity, Kind]:
    """Return classes of a module of Keras, each with the names of its settings in one string."""
    return {(module, name, None): Kind(frozenset(words.split())) for name, words in settings.items()}


def _layer(words: str, weights: Callable[[Config, Shape], list[Shape]] | None = None) -> Kind:
    return Kind(frozenset(f"name trainable dtype {words}".split()), weights)


_FILTERED = (
    "filters kernel_size strides padding data_format dilation_rate groups activation use_bias bias_initializer "
    "bias_regularizer bias_constraint activity_regularizer "
)
_KERNEL = "kernel_initializer kernel_regularizer kernel_constraint "
_SEPARABLE = " ".join(
    f"{part}_{kind}" for part in ("depthwise", "pointwise") for kind in ("initializer", "regularizer", "constraint")
)
_DENSE = "units activation use_bias bias_initializer bias_regularizer bias_constraint quantization_config " + _KERNEL

_DEPTHWISE = (
    "kernel_size strides padding depth_multiplier data_format dilation_rate activation use_bias bias_initializer "
    "depthwise_initializer depthwise_regularizer depthwise_constraint bias_regularizer bias_constraint "
    "activity_regularizer"
)
_LAYER_NORMALIZATION = (
    "axis epsilon center scale rms_scaling beta_initializer gamma_initializer beta_regularizer gamma_regularizer "
    "beta_constraint gamma_constraint"
)

MODELS: dict[Identity, Kind] = {
    ("keras.src.models.functional", "Functional", "Functional"): _layer("layers input_layers output_layers"),
    ("keras", "Sequential", None): _layer("layers build_input_shape"),
}

LAYERS: dict[Identity, Kind] = {
    ("tasks.models.layers", "PixelScaling", "retrain>PixelScaling"): _layer("mean deviation reverse_channels"),
    ("tasks.models.layers", "BatchNormalization", "retrain>BatchNormalization"): _layer(
        "momentum epsilon scale", _batch_normalization
    ),
    ("tasks.models.layers", "LayerScale", "retrain>LayerScale"): _layer("initial", _layer_scale),
    ("tasks.models.layers", "WhiteningConvolution", "retrain>WhiteningConvolution"): _layer(
        "filters", _whitening_convolution
    ),
    ("tasks.models.normalized_convolution", "NormalizedConvolution", "retrain>NormalizedConvolution"): _layer(
        "filters kernel_size strides epsilon", _normalized_convolution
    ),
    ("tasks.models.convolution", "Convolution", "retrain>Convolution"): _layer(_FILTERED + _KERNEL, _convolution),
    ("keras.layers", "Conv2D", None): _layer(_FILTERED + _KERNEL, _convolution),
    ("keras.layers", "SeparableConv2D", None): _layer(
        _FILTERED + "depth_multiplier " + _SEPARABLE, _separable_convolution
    ),
    ("keras.layers", "DepthwiseConv2D", None): _layer(_DEPTHWISE, _depthwise_convolution),
    ("keras.layers", "LayerNormalization", None): _layer(_LAYER_NORMALIZATION, _layer_normalization),
    ("keras.layers", "Dense", None): _layer(_DENSE, _dense),
    ("keras.layers", "InputLayer", None): _layer("batch_shape sparse ragged optional"),
    ("keras.layers", "Activation", None): _layer("activation"),
    ("keras.layers", "ReLU", None): _layer("max_value negative_slope threshold"),
    ("keras.layers", "LeakyReLU", None): _layer("negative_slope"),
    ("keras.layers", "Softmax", None): _layer("axis"),
    ("keras.layers", "Rescaling", None): _layer("scale offset"),
    ("keras.layers", "Add", None): _layer(""),
    ("keras.layers", "Multiply", None): _layer(""),
    ("keras.layers", "Flatten", None): _layer("data_format"),
    ("keras.layers", "ZeroPadding2D", None): _layer("padding data_format"),
    ("keras.layers", "MaxPooling2D", None): _layer("pool_size strides padding data_format"),
    ("keras.layers", "GlobalAveragePooling2D", None): _layer("data_format keepdims"),
    ("keras.layers", "GlobalMaxPooling2D", None): _layer("data_format keepdims"),
}

POLICY: Identity = ("keras", "DTypePolicy", None)

PARTS: dict[Identity, Kind] = {
    POLICY: Kind(frozenset({"name"})),
    ("tasks.models.layers", "PartialIdentity", "retrain>PartialIdentity"): Kind(frozenset({"seed"})),
    **_kinds(
        "keras.initializers",
        Zeros="",
        Ones="",
        GlorotUniform="seed input_axes output_axes",
        HeNormal="seed input_axes output_axes",
        RandomNormal="mean stddev seed",
        VarianceScaling="scale mode distribution seed input_axes output_axes",
    ),
}
