"""Backbones of keras.applications: they are Keras's networks, with its weights, its scaling, and features to match."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.applications.imagenet_utils import preprocess_input
from keras.src.applications import convnext, efficientnet_v2, mobilenet_v3, resnet, vgg16
from keras.src.legacy.saving import legacy_h5_format

from tasks.model_files.files import load_model, save_model
from tasks.models.applications import keras_network
from tasks.models.build import build_model, load_pretrained
from tasks.models.pretrained import PRETRAINED, RECORD_NAME, Stored
from tasks.models.whitening import PixelStatistics
from tasks.params.recipe import STAGES, ModelParams
from tasks.params.weights import WeightsParams
from tasks.stage.errors import InputError
from tasks.stage.files import read_json
from tasks.weights import weights

# Those with top that keras.io/api/applications lists, less their classifiers (of ConvNeXt its norm is here).
PARAMETERS = {
    "vgg16": 14_714_688,
    "resnet50": 23_587_712,
    "efficientnet_v2_b0": 5_919_312,
    "mobilenet_v3_large": 2_996_352,
    "convnext_tiny": 27_820_128,
}
# What Keras's source pins; VGG16's stands in the middle of it.
PINNED = {
    "resnet50": (resnet.BASE_WEIGHTS_PATH, resnet.WEIGHTS_HASHES["resnet50"][1]),
    "efficientnet_v2_b0": (efficientnet_v2.BASE_WEIGHTS_PATH, efficientnet_v2.WEIGHTS_HASHES["b0"][1]),
    "mobilenet_v3_large": (mobilenet_v3.BASE_WEIGHT_PATH, mobilenet_v3.WEIGHTS_HASHES["large_224_1.0_float"][1]),
    "convnext_tiny": (convnext.BASE_WEIGHTS_PATH, convnext.WEIGHTS_HASHES["convnext_tiny"][1]),
}
# How Keras scales pixels for each; "torch" and "tf" stand for what a network has inside.
MODES = {
    "vgg16": "caffe",
    "resnet50": "caffe",
    "efficientnet_v2_b0": "torch",
    "mobilenet_v3_large": "tf",
    "convnext_tiny": "torch",
}
WITH_SCALING: dict[str, Callable[..., keras.Model]] = {
    "efficientnet_v2_b0": keras.applications.EfficientNetV2B0,
    "mobilenet_v3_large": keras.applications.MobileNetV3Large,
    "convnext_tiny": keras.applications.ConvNeXtTiny,
}
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
STATISTICS = PixelStatistics((9.0,) * 3, (9.0,) * 3)


@dataclass(frozen=True)
class Published:
    """A network of Keras's by chance, its weights in the older format, and ours that began with the newer one."""

    base: str
    network: keras.Model
    older: Path
    ours: keras.Model


def params_of(base: str, **changes: Any) -> ModelParams:
    values = {"base": base, "head": "linear", "weights": "imagenet", "scaling": "imagenet", **changes}
    return ModelParams.model_validate(values)


def shaken(network: keras.Model) -> keras.Model:
    """Move all weights from where they begin, and let batch norm have statistics by which what it gives stays alive."""
    for weight in network.weights:
        values, small = weight.numpy(), weight.path.endswith(("beta", "bias", "moving_mean"))
        noise = GENERATOR.uniform(-0.1, 0.1, values.shape) if small else GENERATOR.uniform(0.8, 1.2, values.shape)
        weight.assign(values * noise if values.ndim > 1 else noise)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(preprocess_input(IMAGES.astype(np.float32), mode="torch"), training=True)
    return network


def write_older(network: keras.Model, path: Path) -> None:
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)


def begun_with(path: Path, params: ModelParams, folder: Path) -> keras.Model:
    """Let the stage `weights` take a file of one's own, and a model begin with it."""
    own = WeightsParams(url=(path.as_uri(),), sha256=sha256(path.read_bytes()).hexdigest())
    weights(own, params, folder / "weights", folder / "cache")
    assert read_json(folder / "weights" / RECORD_NAME)["sha256"] == own.sha256
    model = build_model(params, (64, 64, 3), 3, STATISTICS)
    load_pretrained(model, params, folder / "weights")
    return model


def features(model: keras.Model) -> np.ndarray:
    answers: np.ndarray = keras.Model(model.input, model.get_layer("pooling").input)(IMAGES).numpy()
    return answers


LONG = pytest.mark.long
BASES = [pytest.param(base, marks=[LONG] * (base == "resnet50")) for base in PARAMETERS]


@contextlib.contextmanager
def precision_for(base: str) -> Iterator[None]:
    """Let the deepest network of weights by chance, which makes much of rounding, be compared in float64."""
    keras.config.set_dtype_policy("float64" if base == "efficientnet_v2_b0" else "float32")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module", params=BASES)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Published:
    base, folder = request.param, tmp_path_factory.mktemp(request.param)
    newer, older = folder / "own.weights.h5", folder / "own.h5"
    with precision_for(base):
        network = shaken(keras_network(base, 3))
        network.save_weights(newer)
        write_older(network, older)
        return Published(base, network, older, begun_with(newer, params_of(base), folder))


def test_it_has_the_published_parameters(published: Published) -> None:
    head = 3 * published.ours.get_layer("pooling").output.shape[-1]
    assert published.network.count_params() == PARAMETERS[published.base]
    assert published.ours.count_params() == PARAMETERS[published.base] + head


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    largest = float(np.abs(expected).max())
    assert found.shape == expected.shape
    assert np.isfinite(largest)
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * largest  # or nothing of the images would be left to compare
    np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=2e-5)


def test_it_has_the_features_that_keras_has(published: Published) -> None:
    pixels = preprocess_input(IMAGES.astype(np.float64), mode=MODES[published.base])
    assert_close(features(published.ours), published.network(pixels).numpy())


@LONG
def test_it_scales_as_the_layers_do_that_keras_has_inside(published: Published) -> None:
    if published.base not in WITH_SCALING:
        assert MODES[published.base] == "caffe"
        return
    with precision_for(published.base):
        network = WITH_SCALING[published.base](include_top=False, weights=None, input_shape=(64, 64, 3))
        network.set_weights(published.network.get_weights())
        expected = network(IMAGES.astype(np.float64)).numpy()
    assert_close(features(published.ours), expected)


def test_the_older_format_gives_the_same_network(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With names as they were once: in Keras's own files some layers have other names than today."""
    with h5py.File(published.older, "r+") as file:
        names = [name.replace("conv", "Conv") for name in file.attrs["layer_names"]]
        for before, after in zip(file.attrs["layer_names"], names, strict=True):
            if before != after:
                file.move(before, after)
        del file.attrs["layer_names"]
        for number, part in enumerate(np.array_split(np.asarray(names, dtype="S"), 2)):  # as h5py wrote them once
            file.attrs[f"layer_names{number}"] = part
    model, network = published.ours, published.network
    before, theirs = model.get_weights(), network.get_weights()
    for layer in [*model.layers, *network.layers]:
        if layer.name != "unscaled_logits":
            layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
    monkeypatch.setattr("tasks.models.keras_weights.keras_network", lambda base, channels: network)
    (tmp_path / "weights").mkdir()
    published.older.rename(tmp_path / "weights" / Stored.file_name)
    load_pretrained(model, params_of(published.base), tmp_path / "weights")
    for found, expected in zip([*model.get_weights(), *network.get_weights()], [*before, *theirs], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_it_comes_back_from_its_file(published: Published, tmp_path: Path) -> None:
    save_model(published.ours, tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(IMAGES), published.ours(IMAGES))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    params, path = params_of("vgg16"), tmp_path / Stored.file_name
    model = build_model(params, (32, 32, 3), 3, STATISTICS)
    before = model.get_weights()

    def refused(sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            load_pretrained(model, params, tmp_path)
        path.unlink()

    small = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(64, 3, name="block1_conv1")])
    small.save_weights(path)
    refused("does not fit the network: its 2 arrays are not the 26 of the network")
    write_older(small, path)
    refused("does not fit the network: it has 1 layers of weights instead of 13")
    network = keras_network("vgg16", 3)
    write_older(network, path)
    with h5py.File(path, "r+") as file:
        group = file["block1_conv1"]
        group.attrs["weight_names"] = [*group.attrs["weight_names"][::-1]]
    refused("the weights of block1_conv1 have other shapes")
    network.save_weights(path)
    with h5py.File(path, "r+") as file:
        file.move("layers/conv2d_3", "layers/another")
    refused("(does not fit vgg16: |lacks weights of the network)")
    network.get_layer("block5_conv3").bias.assign(np.full(512, np.nan))
    network.save_weights(path)
    refused("lacks weights of the network .* or has such as are no numbers")
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_missing_weights_are_a_sentence(tmp_path: Path) -> None:
    params = params_of("vgg16")
    with pytest.raises(InputError, match=r"keras\.weights\.h5: there is no file of weights here"):
        load_pretrained(build_model(params, (32, 32, 3), 3, STATISTICS), params, tmp_path)


@pytest.mark.parametrize("base", BASES)
def test_all_stages_may_be_frozen(base: str) -> None:
    every = build_model(params_of(base, frozen_stages=STAGES[base]), (32, 32, 3), 3, STATISTICS)
    trained = {layer.name for layer in every.layers if layer.trainable_weights}
    assert trained - {"output_norm", "top_conv", "conv_1"} == {"unscaled_logits"}


def test_batch_norm_that_came_with_weights_stays_as_it_is() -> None:
    model = build_model(params_of("resnet50"), (32, 32, 3), 3, STATISTICS)
    assert not any("_bn/" in weight.path for weight in model.trainable_weights)
    before = model.get_weights()
    in_training = np.asarray(model(IMAGES[:, :32, :32], training=True))
    np.testing.assert_array_equal(in_training, model(IMAGES[:, :32, :32], training=False))
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_it_asks_for_the_files_that_keras_asks_for() -> None:
    for base, (store, digest) in PINNED.items():
        known = PRETRAINED[base]
        assert isinstance(known, Stored)
        assert known.digest == digest
        assert known.address.startswith(store)
    known = PRETRAINED["vgg16"]
    assert isinstance(known, Stored)
    assert known.address == vgg16.WEIGHTS_PATH_NO_TOP
    assert known.digest in inspect.getsource(keras.applications.VGG16)
    assert {known.algorithm for known in PRETRAINED.values() if isinstance(known, Stored)} == {"md5", "sha256"}
