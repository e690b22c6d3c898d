"""The stage train with a probe: it leaves what every recipe leaves, keeps features, and goes on where it stopped."""

import hashlib
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks.data.arrays import load_arrays
from tasks.model_files.files import load_model
from tasks.models.build import build_model
from tasks.models.pretrained import FILE_NAME, RECORD_NAME
from tasks.models.torch_weights import NORM, _names, _weights
from tasks.models.whitening import pixel_statistics
from tasks.params.recipe import ModelParams
from tasks.stage.files import read_json, write_json
from tests.fixtures.nursery import ROOT, Nursery, StageRun
from tests.fixtures.torch_files import stored, zip_bytes
from tests.fixtures.train_workspace import contents, write_workspace

MODEL = {"base": "efficientnet_lite0", "head": "linear", "weights": "imagenet", "scaling": "imagenet", "bias": True}
IMAGES = 197 + 60  # of the workspace, to train on and to choose by


def random_weights() -> bytes:
    """A file of weights as torch.save writes it, of the real network and by chance."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    noise = np.zeros((2, 32, 32, 3), np.uint8)
    model = build_model(ModelParams.model_validate(MODEL), (32, 32, 3), 2, pixel_statistics(noise))
    tensors: dict[str, Any] = {}
    for layer, convolution, norm in _names(model):
        kernel, *rest = (weight.numpy() for weight in _weights(layer))
        axes = (2, 3, 0, 1) if layer.filters is None else (3, 2, 0, 1)
        tensors[f"{convolution}.weight"] = np.ascontiguousarray(kernel.transpose(axes))
        tensors |= {f"{norm}.{part}": value for part, value in zip(NORM, rest, strict=True)}
    return zip_bytes({name: stored(str(key), value) for key, (name, value) in enumerate(tensors.items())})


@pytest.fixture(scope="module")
def weights() -> bytes:
    return random_weights()


def workspace(folder: Path, weights: bytes) -> Path:
    write_workspace(folder)
    values = YAML(typ="safe").load(folder / "params.yaml")
    values["train"]["recipe"] = "probe"
    values["recipes"] = {"probe": {"method": "probe", "model": MODEL, "penalties": [100, 10, 1]}}
    with (folder / "params.yaml").open("w") as stream:
        YAML().dump(values, stream)
    (place := folder / "data/weights").mkdir(parents=True, exist_ok=True)
    (place / FILE_NAME).write_bytes(weights)
    facts = {"base": MODEL["base"], "sha256": hashlib.sha256(weights).hexdigest()}
    write_json(place / RECORD_NAME, facts | {"source": None, "licence": None, "trained_on": None})
    return folder


def finished(nursery: Nursery, folder: Path) -> StageRun:
    run = nursery.start(folder)
    assert run.wait() == 0, run.err
    return run


def test_it_leaves_what_the_next_stages_read_and_knows_its_features_again(
    nursery: Nursery, tmp_path: Path, weights: bytes
) -> None:
    folder = workspace(tmp_path, weights)
    first = finished(nursery, folder)
    assert f"features of {IMAGES} images, 0 of them known from before" in first.out
    left = contents(folder / "model")
    training = read_json(folder / "model/training.json")
    history = read_json(folder / "model/history.json")["columns"]
    assert history["penalty"] == [100, 10, 1]
    rows = (folder / "model/dvclive/plots/metrics/validation_loss.tsv").read_text().splitlines()[1:]
    assert [float(row.split("\t")[-1]) for row in rows] == pytest.approx(history["validation_loss"])
    assert [row.split("\t")[0] for row in rows] == ["1", "2", "3"]
    assert training["recipe_parameters"]["penalties"] == [100, 10, 1]
    assert training["pretrained"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert training["validation"]["loss"] == min(history["validation_loss"])
    validation = load_arrays(folder / "data/split", "validation")
    model = load_model(folder / "model/model.keras", training["model_sha256"])
    answers = model(np.array(validation.images), training=False).numpy().argmax(axis=1)
    assert np.mean(answers == validation.labels) == training["validation"]["top1"] > 0.8
    again = finished(nursery, folder)
    assert f"{IMAGES} of them known from before" in again.out
    assert contents(folder / "model") == left


def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(nursery: Nursery, tmp_path: Path, weights: bytes) -> None:
    folder = workspace(tmp_path / "stopped", weights)
    run = nursery.start(folder)
    assert run.wait_until(lambda: "features" in run.out), run.err
    run.send_signal(signal.SIGTERM)
    assert run.wait() == 75
    assert "images, which are kept; run it again to go on" in run.err
    assert not (folder / "model").exists()
    again = finished(nursery, folder)
    assert ", 0 of them known" not in again.out
    undisturbed = workspace(tmp_path / "undisturbed", weights)
    finished(nursery, undisturbed)
    assert contents(folder / "model") == contents(undisturbed / "model")


def test_the_recipe_of_params_yaml_is_a_probe() -> None:
    recipe = YAML(typ="safe").load(ROOT / "params.yaml")["recipes"]["probe"]
    assert recipe["method"] == "probe"
    assert recipe["penalties"] == sorted(recipe["penalties"], reverse=True)
