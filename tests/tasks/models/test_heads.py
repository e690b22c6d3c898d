import pytest

from tasks.models.build import build_model
from tasks.models.heads import HEADS, backbone_weights
from tasks.models.whitening import PixelStatistics
from tasks.params.recipe import ModelParams


@pytest.mark.parametrize("head", HEADS)
def test_what_is_no_heads_is_the_backbones(head: str) -> None:
    params = ModelParams.model_validate({"base": "vgg16", "head": head})
    model = build_model(params, (32, 32, 3), 10, PixelStatistics((128.0,) * 3, (64.0,) * 3))
    paths = backbone_weights(model)
    assert len(paths) == 26  # VGG16's thirteen kernels and biases
    assert all(path.startswith("block") for path in paths)
    assert len(model.trainable_weights) > 26
