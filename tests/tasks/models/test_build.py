import hashlib
import itertools
import json
import math
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.model_files.files import load_model, save_model
from tasks.models.build import build_model, load_pretrained, logits_of, whiten, with_temperature
from tasks.models.layers import WhiteningConvolution
from tasks.models.whitening import pixel_statistics
from tasks.params.params import load_params
from tasks.params.recipe import ModelParams
from tasks.stage.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
STATISTICS = pixel_statistics(IMAGES)
TINY = ModelParams(base="airbench", head="linear", scaling="standard", widths=(8, 8, 8), pooling="max")


def tiny_model(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return build_model(TINY, (32, 32, 3), 10, STATISTICS)


def test_seed_model_has_the_authors_parameters() -> None:
    model = build_model(load_params().recipes["seed"].model, (32, 32, 3), 10, STATISTICS)
    assert model.count_params() == 14_732_426
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == 14_732_362


def test_vgg16_may_normalize_after_every_convolution() -> None:
    params = load_params().recipes["vgg16"].model
    model = build_model(params, (32, 32, 3), 10, STATISTICS)
    bare = build_model(params.model_copy(update={"batch_norm": False}), (32, 32, 3), 10, STATISTICS)
    convolutions = [layer for layer in model.layers if layer.name.startswith("block") and layer.name[-6:-1] == "_conv"]
    assert len(convolutions) == 13
    for layer in convolutions:
        assert bare.get_layer(layer.name).kernel.shape == layer.kernel.shape
        assert model.get_layer(f"{layer.name}_norm").momentum == 0.9
        assert layer.bias is None


def test_airbench96_adds_a_residual_branch_to_every_group() -> None:
    params = load_params().recipes["best"].model
    model = build_model(params, (32, 32, 3), 10, STATISTICS)
    kernels = [
        weight for weight in model.trainable_weights if weight.path.endswith("/kernel") and len(weight.shape) == 4
    ]
    channels = [24, 128, 128, 128, 384, 384, 384, 512, 512, 512]
    assert [tuple(kernel.shape) for kernel in kernels] == [(3, 3, *pair) for pair in itertools.pairwise(channels)]
    # The third convolution's batch norm, silenced, leaves what came out of the first.
    for group in (1, 2, 3):
        silent = model.get_layer(f"group{group}_convolution3_norm")
        silent.moving_variance.assign(np.full(silent.moving_variance.shape, 1e12))
    layers = [model.get_layer(f"group1_{name}").output for name in ("convolution1_activation", "residual")]
    first, added = keras.Model(model.input, layers)(IMAGES[:2])
    np.testing.assert_allclose(first, added, atol=1e-4)


@pytest.mark.parametrize("base", ["vgg16", "resnet50", "airbench"])
@pytest.mark.parametrize("head", ["residual_separable", "linear"])
def test_every_base_takes_every_head(base: str, head: str) -> None:
    small = {"widths": (8, 8, 8)} if base == "airbench" else {}
    params = ModelParams.model_validate({"base": base, "head": head, **small})
    model = build_model(params, (32, 32, 3), 7, STATISTICS)
    probabilities = np.asarray(model(IMAGES[:3]))
    assert model.input.dtype == "uint8"
    assert probabilities.shape == (3, 7)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_resnet50_keeps_the_weights_of_keras_applications(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    original = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3))
    original.save_weights(tmp_path / "resnet50.weights.h5")
    params = ModelParams(base="resnet50", head="linear", weights=str(tmp_path / "resnet50.weights.h5"))
    model = build_model(params, (32, 32, 3), 10, STATISTICS)
    load_pretrained(model, params, tmp_path)
    ours = keras.Model(model.input, model.get_layer("conv5_block3_out").output)
    expected = original(IMAGES[:2].astype(np.float32) / 255)
    np.testing.assert_allclose(ours(IMAGES[:2]), expected, rtol=1e-3, atol=1e-4)


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    params = ModelParams(base="vgg16", head="linear", weights="nowhere.weights.h5")
    with pytest.raises(InputError, match=r"nowhere\.weights\.h5"):
        load_pretrained(build_model(params, (32, 32, 3), 10, STATISTICS), params, tmp_path)


def test_logits_give_the_probabilities() -> None:
    model = tiny_model()
    whiten(model, TINY, IMAGES, STATISTICS)
    logits = logits_of(model)(IMAGES[:5])
    np.testing.assert_allclose(keras.ops.softmax(logits), model(IMAGES[:5]), rtol=1e-5)


def test_a_temperature_divides_the_logits_and_is_no_weight(tmp_path: Path) -> None:
    model = tiny_model()
    whiten(model, TINY, IMAGES, STATISTICS)
    cooler = with_temperature(model, 0.25)
    logits = logits_of(model)(IMAGES)
    np.testing.assert_array_equal(logits_of(cooler)(IMAGES), logits)
    np.testing.assert_allclose(cooler(IMAGES), keras.ops.softmax(4 * logits), rtol=1e-5)
    np.testing.assert_array_equal(np.argmax(cooler(IMAGES), axis=1), np.argmax(model(IMAGES), axis=1))
    assert not np.allclose(cooler(IMAGES), model(IMAGES), atol=1e-3)
    assert [weight.shape for weight in cooler.weights] == [weight.shape for weight in model.weights]
    save_model(cooler, tmp_path / "model.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(IMAGES), cooler(IMAGES))


def test_temperature_1_is_the_network_as_it_was_built(tmp_path: Path) -> None:
    model = tiny_model()
    for name, network in (
        ("built", model),
        ("again", with_temperature(model, 1.0)),
        ("other", with_temperature(model, 2.0)),
    ):
        save_model(network, tmp_path / name)
    built, again, other = ((tmp_path / name).read_bytes() for name in ("built", "again", "other"))
    assert built == again != other


def test_whitening_looks_at_a_sample_of_all_images_and_not_at_the_first() -> None:
    black = np.zeros((300, *IMAGES.shape[1:]), np.uint8)
    by_class = np.concatenate([black, np.repeat(IMAGES, 40, axis=0)])
    few = TINY.model_copy(update={"whitening": TINY.whitening.model_copy(update={"images": 64})})

    def kernel(images: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
        model = tiny_model()
        whiten(model, few, images, STATISTICS, seed)
        (layer,) = (each for each in model.layers if isinstance(each, WhiteningConvolution))
        return np.asarray(layer.kernel)

    assert not np.allclose(kernel(by_class, 1), kernel(black, 1))
    np.testing.assert_array_equal(kernel(by_class, 1), kernel(by_class, 1))
    assert not np.array_equal(kernel(by_class, 1), kernel(by_class, 2))


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save_model(tiny_model(), tmp_path / name)
    save_model(tiny_model(seed=1), tmp_path / "other")
    digests = [hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in ("first", "second", "other")]
    assert digests[0] == digests[1] != digests[2]
    with zipfile.ZipFile(tmp_path / "first") as archive:
        assert "date_saved" not in json.loads(archive.read("metadata.json"))


def test_saved_model_answers_the_same(tmp_path: Path) -> None:
    model = tiny_model()
    whiten(model, TINY, IMAGES, STATISTICS)
    save_model(model, tmp_path / "model.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(IMAGES), model(IMAGES))


def test_model_altered_by_one_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    save_model(tiny_model(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"model\.keras"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x05\x06" + bytes(18)])
def test_what_is_not_a_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.keras"):
        load_model(path)


def test_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.keras"
    save_model(tiny_model(), path)
    before = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(tiny_model(seed=1), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
