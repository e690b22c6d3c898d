"""The card: valid metadata, honest numbers, and code that works as written."""

import re
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tasks.data.arrays import Fit, fit_entry
from tasks.data.images import decode_image
from tasks.model_files.files import save_model
from tasks.params.params import load_params
from tasks.registry.model_card import model_card
from tests.tasks.reporting.small_run import CLASSES, SHAPE, build_small_model, small_training

ROOT = Path(__file__).parents[3]
METRICS = {
    "top1": 0.9023, "top1_low": 0.8963, "top1_high": 0.908, "top1_augmented": 0.91, "binary_accuracy": 0.98,
    "log_loss": 0.5, "expected_calibration_error": 0.1, "macro_f1": 0.9, "images": 10000, "dataset": "cifar10",
    "balanced_accuracy": 0.89, "test_sha256": "f" * 64, "parameters": 283, "model_bytes": 12345,
}  # fmt: skip
SPLIT = {
    "classes": list(CLASSES),
    "image_shape": list(SHAPE),
    "method": "stratified",
    "seed": 0,
    "counts": {"train": {"total": 45000}, "validation": {"total": 5000}, "test": {"total": 10000}},
}


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return load_params(ROOT / "params.yaml").model_dump(mode="json")


def test_metadata_is_yaml_and_says_the_same_number(params: dict[str, Any]) -> None:
    card = model_card(METRICS, small_training(), SPLIT, params)
    metadata = YAML(typ="safe").load(card.split("---\n")[1])
    assert metadata["pipeline_tag"] == "image-classification"
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "name": "top-1", "value": 0.9023}]
    assert "**90.23 % top-1** on all 10,000 test images of CIFAR-10 (95 % interval 89.63 % to 90.80 %" in card


def test_metadata_survives_a_recipe_with_a_difficult_name(params: dict[str, Any]) -> None:
    name = 'mine: "x" # y'
    recipes = {name: params["recipes"]["fast"]}
    card = model_card(METRICS, {**small_training(), "recipe": name}, SPLIT, {**params, "recipes": recipes})
    assert YAML(typ="safe").load(card.split("---\n")[1])["model-index"][0]["name"] == name


def test_digits_are_called_digits(params: dict[str, Any]) -> None:
    card = model_card({**METRICS, "dataset": "digits"}, small_training(), SPLIT, params)
    assert "not CIFAR-10" in card
    assert "not CIFAR-10" not in model_card(METRICS, small_training(), SPLIT, params)


def test_it_names_the_weights_that_it_began_with(params: dict[str, Any]) -> None:
    began = {"base": "x", "sha256": "a" * 64, "source": "some-model 1.0", "licence": "MIT", "trained_on": "<ImageNet>"}
    card = model_card(METRICS, {**small_training(), "pretrained": began}, SPLIT, params)
    assert f"It began with weights of some-model 1.0 (trained on &#60;ImageNet&#62;; MIT), sha256 `{'a' * 64}`." in card
    own = {**began, "source": None, "licence": None, "trained_on": None}
    assert f"It began with weights, sha256 `{'a' * 64}`." in model_card(
        METRICS, {**small_training(), "pretrained": own}, SPLIT, params
    )
    assert "It began" not in model_card(METRICS, {**small_training(), "pretrained": None}, SPLIT, params)
    assert "It began" not in model_card(METRICS, small_training(), SPLIT, params), "of a model from before"


def test_it_names_the_release_that_it_began_from_and_what_that_has_seen(params: dict[str, Any]) -> None:
    start = {"release": "0123456789abcdef", "shrink_perturb": None, "test_images_seen": 0}
    card = model_card(METRICS, {**small_training(), "start": start}, SPLIT, params)
    assert "It began with the weights of release `0123456789abcdef`, and has seen what that has.\n" in card
    assert "are among that" not in card
    mixed = {**start, "shrink_perturb": {"shrink": 0.4, "perturb": 0.1}, "test_images_seen": 1200}
    card = model_card(METRICS, {**small_training(), "start": mixed}, SPLIT, params)
    assert "`0123456789abcdef`, each trained one times 0.4 plus 0.1 times the seed's own (Ash and Adams 2020" in card
    assert "Of the test images 1,200 are among that" in card


def test_what_two_classes_have_stands_only_there(params: dict[str, Any]) -> None:
    card = model_card(METRICS, small_training(), SPLIT, params)
    assert "| balanced accuracy | 89.00 % |" in card
    assert "ROC" not in card
    two = {**METRICS, "roc_auc": 0.91234, "average_precision": 0.8, "positive_class": "a|b"}
    card = model_card(two, small_training(), SPLIT, params)
    assert "| area under the ROC curve, class a&#124;b | 0.9123 |" in card
    assert "| average precision, class a&#124;b | 0.8000 |" in card


def test_costs_stand_where_they_were_given(params: dict[str, Any]) -> None:
    assert "cost" not in model_card(METRICS, small_training(), SPLIT, params)
    costly = {**METRICS, "costs": {"red": 10.0, "a|b > c": 2.5}, "mean_cost": 0.41291, "mean_cost_plain": 0.9073}
    card = model_card(costly, small_training(), SPLIT, params)
    assert "| mean cost of an image, by the answer of least expected cost | 0.4129 |" in card
    assert "| mean cost of an image, by the most probable class | 0.9073 |" in card
    assert "A mistake costs: red 10, a&#124;b &#62; c 2.5; any other 1." in card


@pytest.mark.parametrize(
    ("asked", "measured", "told"),
    [
        ("auto", {"test_time_augmentation": "mirror_and_shift"}, "mirror and shift, chosen on validation images"),
        ("mirror", {"test_time_augmentation": "mirror"}, "mirror"),
        ("mirror_and_shift", {}, "mirror and shift"),  # metrics from before name none
    ],
)
def test_it_names_the_views_that_were_averaged(
    params: dict[str, Any], asked: str, measured: dict[str, str], told: str
) -> None:
    changed = {**params, "evaluate": {**params["evaluate"], "test_time_augmentation": asked}}
    card = model_card({**METRICS, **measured}, small_training(), SPLIT, changed)
    assert f"| top-1 with test-time augmentation ({told}) | 91.00 % |" in card


def test_the_temperature_is_told_or_why_there_is_none(params: dict[str, Any]) -> None:
    fitted = {"temperature": 0.36233, "images": 1530, "before": {}, "after": {}}
    card = model_card(METRICS, {**small_training(), "calibration": fitted}, SPLIT, params)
    assert "divided by a temperature of 0.362, fitted on 1,530 validation images" in card
    none = {"temperature": 1.0, "images": 3, "reason": "3 validation images are too few, 20 are needed"}
    card = model_card(METRICS, {**small_training(), "calibration": none}, SPLIT, params)
    assert "The probabilities are not calibrated: 3 validation images are too few, 20 are needed.\n" in card
    assert "calibrated:" not in model_card(METRICS, small_training(), SPLIT, params), "of a model from before"


def test_the_code_in_the_card_works(params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = build_small_model(), np.zeros((2, *SHAPE), np.uint8)
    save_model(model, tmp_path / "model.keras")
    signature = [keras.InputSpec(shape=(None, *SHAPE), dtype="uint8", name="images")]
    model.export(tmp_path / "saved_model/1", input_signature=signature, verbose=False)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", model_card(METRICS, small_training(), SPLIT, params), re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        names: dict[str, Any] = {"images": images}
        exec(snippet, names)  # noqa: S102
        np.testing.assert_allclose(np.asarray(names["probabilities"]), model(images).numpy(), atol=1e-6)


def test_of_a_probe_it_tells_penalties_and_no_epochs(params: dict[str, Any]) -> None:
    card = model_card(METRICS, {**small_training(), "recipe": "probe", "epochs_run": 8}, SPLIT, params)
    assert "a linear head on frozen features, the best of 8 penalties by validation loss." in " ".join(card.split())
    assert "The weights of epoch" not in card
    assert "The weights of epoch" in model_card(METRICS, {**small_training(), "recipe": "fast"}, SPLIT, params)


@pytest.mark.parametrize("fit", get_args(Fit))
def test_the_card_of_photographs_says_how_they_are_prepared(
    params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: Fit
) -> None:
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    noise = np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photo.jpg", exif=exif)
    split = {**SPLIT, "image_shape": [32, 32, 3], **fit_entry(fit)}
    card = model_card({**METRICS, "dataset": "folders"}, small_training(), split, params)
    *_, snippet = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102
    expected = decode_image(Path("photo.jpg").read_bytes(), "photo.jpg", 32, fit)
    np.testing.assert_array_equal(names["images"], expected[None])
