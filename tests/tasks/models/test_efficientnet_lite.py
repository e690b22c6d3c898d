import keras
import numpy as np
import pytest

from tasks.model_files.files import load_model, save_model
from tasks.models.build import build_model
from tasks.models.efficientnet_lite import SIZES, efficientnet_lite
from tasks.models.whitening import PixelStatistics
from tasks.params.recipe import ModelParams

# Without the 1,281,000 of ImageNet's classifier, as the packages' state_dicts have them.
PARAMETERS = {"efficientnet_lite0": 3_413_024, "efficientnet_lite1": 4_189_344, "efficientnet_lite2": 4_869_168}


def backbone(name: str, frozen_stages: int = 0) -> keras.Model:
    images = keras.Input((64, 96, 3))
    return keras.Model(images, efficientnet_lite(images, SIZES[name], frozen_stages))


@pytest.mark.parametrize("name", SIZES)
def test_sizes_have_the_published_parameters(name: str) -> None:
    network = backbone(name)
    assert network.count_params() == PARAMETERS[name]
    assert network.output_shape == (None, 2, 3, 1280)


def test_frozen_stages_keep_their_weights() -> None:
    trained = {weight.path.partition("/")[0] for weight in backbone("efficientnet_lite0", 2).trainable_weights}
    assert not any(name.startswith(("stem", "stage1_", "stage2_")) for name in trained)
    assert {name.partition("_")[0] for name in trained} == {"stage3", "stage4", "stage5", "stage6", "stage7", "top"}
    everything = backbone("efficientnet_lite0")
    assert len(everything.trainable_weights) == 3 * sum(
        "norm" not in x.name and bool(x.weights) for x in everything.layers
    )


def test_a_model_of_it_comes_back_from_its_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    params = ModelParams(
        base="efficientnet_lite0", head="linear", weights="imagenet", scaling="imagenet", frozen_stages=1
    )
    model = build_model(params, (64, 64, 3), 3, PixelStatistics((9.0,) * 3, (9.0,) * 3))
    save_model(model, tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    again = load_model(tmp_path / "model.keras", None)
    np.testing.assert_array_equal(model(images), again(images))
