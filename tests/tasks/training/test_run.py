import hashlib
from pathlib import Path

import pytest

from tasks.data.arrays import SplitRecord
from tasks.models.pretrained import FILE_NAME, RECORD_NAME
from tasks.params.params import TrainParams
from tasks.params.recipe import Recipe
from tasks.stage.errors import InputError
from tasks.stage.files import write_json
from tasks.training.run import Makings, for_so_many, makings_of
from tests.tasks.training.test_trainer import RECIPE


@pytest.mark.parametrize(
    ("images", "epochs", "head_epochs"),
    [
        (100, 25.0, 6.25),  # 10 steps an epoch
        (101, 23.0, 250 / 44),  # 11 steps
        (3, 250.0, 62.5),
        (650, 4.0, 1.0),
    ],
)
def test_few_images_are_seen_more_often(images: int, epochs: float, head_epochs: float) -> None:
    recipe = Recipe.model_validate(
        {**RECIPE, "epochs": 4, "batch_size": 10, "head_epochs": 1, "min_steps": 250, "drop_last": False}
    )
    adapted = for_so_many(recipe, images)
    assert adapted.epochs == epochs
    assert adapted.head_epochs == pytest.approx(head_epochs)
    assert adapted.epochs * -(-images // 10) >= 250


def test_a_recipe_that_asks_for_no_steps_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe.model_validate(RECIPE)
    assert for_so_many(recipe, 3) is recipe
    assert capsys.readouterr().out == ""


def makings(folder: Path, **changes: str) -> Makings:
    model = {"base": "efficientnet_lite0", "head": "linear", "weights": "imagenet", "scaling": "imagenet", **changes}
    recipe = Recipe.model_validate({**RECIPE, "model": model})
    record = SplitRecord("folders", ("a", "b"), (32, 32, 3), "stable", 0, {}, {}, {"train": "0" * 64}, {})
    return makings_of(TrainParams(recipe="finetune"), recipe, record, folder)


def test_a_run_is_of_its_pretrained_weights(tmp_path: Path) -> None:
    fingerprints = []
    for body in (b"one", b"another"):
        (tmp_path / FILE_NAME).write_bytes(body)
        write_json(tmp_path / RECORD_NAME, {"base": "efficientnet_lite0", "sha256": hashlib.sha256(body).hexdigest()})
        fingerprints.append(makings(tmp_path).fingerprint)
    assert fingerprints[0] != fingerprints[1]


def test_pretrained_weights_that_were_changed_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights\.json does not exist; run the stage weights first"):
        makings(tmp_path)
    (tmp_path / RECORD_NAME).write_text("{")
    (tmp_path / FILE_NAME).write_bytes(b"planted")
    with pytest.raises(InputError, match=r"weights\.json is not JSON"):
        makings(tmp_path)
    write_json(tmp_path / RECORD_NAME, {"base": "efficientnet_lite0", "sha256": "0" * 64})
    with pytest.raises(InputError, match=r"weights\.pth is not the file that weights\.json beside it names"):
        makings(tmp_path)


def test_a_network_of_keras_begins_from_what_the_stage_has_made_and_from_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist; run the stage weights first"):
        makings(tmp_path, base="vgg16")
    write_json(tmp_path / RECORD_NAME, {"base": "vgg16", "sha256": None})
    with pytest.raises(InputError, match=r"keras\.weights\.h5 does not exist; run the stage weights first"):
        makings(tmp_path, base="vgg16")
    assert makings(tmp_path, base="vgg16", weights="none").facts["weights"] is None


def test_a_run_is_of_the_file_that_its_recipe_names(tmp_path: Path) -> None:
    own = tmp_path / "own.weights.h5"
    with pytest.raises(InputError, match=r"own\.weights\.h5': not none, imagenet or an existing \.weights\.h5 file"):
        makings(tmp_path, base="vgg16", weights=str(own))
    fingerprints = set()
    for body in (b"one", b"another"):
        own.write_bytes(body)
        run = makings(tmp_path, base="vgg16", weights=str(own))
        assert run.facts["weights"]["sha256"] == hashlib.sha256(body).hexdigest()
        fingerprints.add(run.fingerprint)
    assert len(fingerprints) == 2
