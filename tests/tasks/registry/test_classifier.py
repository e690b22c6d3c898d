"""From which models a classifier is made, and which are refused, as `python -m tasks.predict` has it."""

import csv
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tasks.data.arrays import Fit, fit_entry, load_arrays
from tasks.model_files.files import load_model
from tasks.params.data import SplitParams
from tasks.predict import read_image
from tasks.registry.classifier import load_local, load_release
from tasks.registry.releases import verify_folder
from tasks.registry.signatures import read_signing_key
from tasks.registry.signing import generate_key
from tasks.split import split
from tasks.stage.files import read_json, sha256_of, write_json
from tests.fixtures.archives import make_raw, wide_images, write_files, write_tar
from tests.fixtures.predictions import ROOT, read_table, recorded
from tests.fixtures.published import Workspace
from tests.fixtures.stages import CLASSES, SIZE


@pytest.fixture
def prefix(published_classifier: Workspace) -> str:
    return published_classifier.prefix


def test_an_altered_copy_in_the_cache_is_fetched_again(
    predict: Any, classifier_workspace: Path, pictures: Path
) -> None:
    predict(pictures / "000.png")
    (cached,) = Path(".cache/releases").iterdir()
    (cached / "model.keras").write_bytes(b"altered")
    status, output, _ = predict(pictures)
    assert status == 0
    np.testing.assert_allclose(read_table(output)[1], recorded(classifier_workspace), atol=1e-5)


@pytest.mark.parametrize("model", ["model", "model/model.keras"])
def test_a_local_model_needs_no_store(
    predict: Any, classifier_workspace: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    status, output, errors = predict(pictures, "--model", model)
    assert status == 0, errors
    np.testing.assert_allclose(read_table(output)[1], recorded(classifier_workspace), atol=1e-5)


def test_a_pulled_release_in_another_process(
    classifier_workspace: Path, prefix: str, pictures: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shutil.rmtree(classifier_workspace / "data")  # its labels are inside it
    pull = ["tasks.registry", "pull", "champion", str(tmp_path / "pulled"), "--bucket", "retrain", "--prefix", prefix]
    subprocess.run([sys.executable, "-m", *pull], env=environment, check=True, capture_output=True)
    answer = ["tasks.predict", str(pictures), "--model", str(tmp_path / "pulled")]
    done = subprocess.run([sys.executable, "-m", *answer], env=environment, check=True, capture_output=True, text=True)
    np.testing.assert_allclose(read_table(done.stdout)[1], recorded(classifier_workspace), atol=1e-5)
    assert done.stderr == ""  # TensorFlow keeps quiet


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("place", ["model", "release"])
def test_a_model_altered_by_one_bit_is_refused(
    predict: Any, classifier_workspace: Path, pictures: Path, place: str
) -> None:
    folder = Path("model")
    if place == "release":
        predict(pictures / "000.png")
        (folder,) = Path(".cache/releases").iterdir()
    _flip(folder / "model.keras")
    for model in (folder, folder / "model.keras"):
        status, output, errors = predict(pictures / "000.png", "--model", model)
        assert (status, output) == (2, "")
        assert f"{folder / 'model.keras'} was altered" in errors


def test_a_release_answers_by_its_id_its_channel_and_its_address(
    predict: Any, classifier_workspace: Path, pictures: Path
) -> None:
    _, champion, _ = predict(pictures)
    (folder,) = Path(".cache/releases").iterdir()
    for model in ("champion", folder.name, folder.name[:6]):
        status, output, errors = predict(pictures, "--model", model)
        assert (status, errors, output) == (0, "", champion)
    status, _, errors = predict(pictures, "--model", "candidate")
    assert (status, "there is no candidate in " in errors) == (2, True)


def test_a_model_that_nothing_vouches_for_needs_a_sha256(
    predict: Any, classifier_workspace: Path, pictures: Path
) -> None:
    Path("alone").mkdir()
    shutil.copy("model/model.keras", "alone/alone.keras")
    status, output, errors = predict(pictures, "--model", "alone/alone.keras")
    assert (status, output) == (2, "")
    digest = sha256_of(Path("alone/alone.keras"))
    assert errors.endswith(f"says what its bytes are; if you trust these, add --sha256 {digest}\n")
    status, output, errors = predict(pictures, "--model", "alone/alone.keras", "--sha256", digest)
    assert status == 0, errors
    np.testing.assert_allclose(read_table(output)[1], recorded(classifier_workspace), atol=1e-5)
    for model in ("alone/alone.keras", "model"):
        status, output, errors = predict(pictures, "--model", model, "--sha256", "0" * 64)
        assert (status, output) == (2, "")
        assert "was altered: its sha256 is not the one that was recorded for it" in errors


@pytest.mark.parametrize("record", ["{}", '{"model_sha256": null}', "[]", "{", "[" * 100_000])
def test_a_record_that_says_nothing_vouches_for_nothing(
    predict: Any, classifier_workspace: Path, pictures: Path, record: str
) -> None:
    Path("model/training.json").write_text(record)
    status, output, errors = predict(pictures, "--model", "model")
    assert (status, output) == (2, "")
    assert "model/training.json" in errors
    assert len(errors.splitlines()) == 1


def test_a_model_of_an_old_format_is_refused(predict: Any, classifier_workspace: Path, pictures: Path) -> None:
    with zipfile.ZipFile("model/model.keras") as archive:
        Path("old.h5").write_bytes(archive.read("model.weights.h5"))
    status, output, errors = predict(pictures, "--model", "old.h5", "--sha256", sha256_of(Path("old.h5")))
    assert (status, output) == (2, "")
    assert errors == "predict: old.h5 is an HDF5 file, a format that can carry code; only .keras archives are read\n"


@pytest.mark.parametrize("labels", ["{}", "[1, 2, 3]", "[]", "[", '"ant"'])
def test_labels_that_are_none_are_refused(
    predict: Any, classifier_workspace: Path, pictures: Path, labels: str
) -> None:
    Path("model/labels.json").write_text(labels)
    status, output, errors = predict(pictures / "000.png", "--model", "model")
    assert (status, output) == (2, "")
    assert errors.startswith("predict: model/labels.json is not ")


@pytest.fixture
def release(predict: Any, classifier_workspace: Path, pictures: Path) -> Path:
    """The champion as it was pulled; it is not signed."""
    predict(pictures / "000.png")
    (folder,) = Path(".cache/releases").iterdir()
    return folder.rename("pulled")


def test_a_file_beside_the_model_is_no_model(predict: Any, release: Path, pictures: Path) -> None:
    for name in ("manifest.json", "README.md"):
        status, output, errors = predict(pictures / "000.png", "--model", release / name)
        assert (status, output) == (2, "")
        assert errors.startswith(f"predict: pulled/{name} is not ")


def test_a_signature_can_be_required(predict: Any, release: Path, pictures: Path, prefix: str, tmp_path: Path) -> None:
    generate_key(tmp_path / "release.key")
    key, public = read_signing_key(tmp_path / "release.key"), tmp_path / "release.key.pub"
    image = pictures / "000.png"
    for model in ((), ("--model", release)):  # the champion, and a folder
        status, output, errors = predict(image, *model, "--trusted-key", public)
        assert (status, output) == (2, "")
        assert "is not signed, and only what a trusted key signed is accepted" in errors
    manifest = verify_folder(release)
    for place, accepted in ((f"s3://retrain/{prefix}", True), ("s3://retrain/elsewhere", False)):
        signed = manifest.model_copy(update={"signature": key.sign(manifest.statement(place))})
        (release / "manifest.json").write_bytes(signed.to_bytes())
        status, _, errors = predict(image, "--model", release, "--require-signature", "--trusted-key", public)
        assert (status == 0) == accepted
        assert accepted or f"was signed for {place}, and this is s3://retrain/{prefix}" in errors
    status, _, errors = predict(image, "--model", "model", "--trusted-key", public)
    assert status == 2
    assert "model/model.keras is not part of a release, so nobody can have signed it" in errors


def test_a_model_that_is_not_there_is_said(predict: Any, pictures: Path) -> None:
    status, _, errors = predict(pictures / "000.png", "--model", "elsewhere")
    assert status == 2
    assert "elsewhere does not exist" in errors


def test_labels_that_do_not_fit_are_refused(predict: Any, classifier_workspace: Path, pictures: Path) -> None:
    Path("model/labels.json").write_text('["ant", "bee"]')
    status, _, errors = predict(pictures / "000.png", "--model", "model")
    assert status == 2
    assert "3 outputs, but 2 labels" in errors


def answers_to(predict: Any, folder: Path, *model: str | Path) -> np.ndarray[Any, Any]:
    status, output, errors = predict(folder, "--model", *model)
    assert (status, errors) == (0, "")
    return read_table(output)[1]


@pytest.mark.parametrize("fit", get_args(Fit))
def test_predict_sees_the_pixels_that_training_saw(
    predict: Any, classifier_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fit: Fit
) -> None:
    files = wide_images(10, CLASSES)
    params = SplitParams(method="stratified", validation_fraction=0.2, test_fraction=0.2, image_size=SIZE, fit=fit)
    split(params, make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "images.tar", files)), Path("data/split"))
    write_json(Path("model/training.json"), read_json(Path("model/training.json")) | fit_entry(fit))
    with Path("data/split/index.csv").open(encoding="utf-8", newline="") as stream:
        tested = [row["path"] for row in csv.DictReader(stream) if row["split"] == "test"]
    photos, images = tmp_path / "photos", load_arrays(Path("data/split"), "test").images
    write_files(photos, {f"{number:03}.png": files[path] for number, path in enumerate(tested)})
    classifier = load_local(Path("model"))
    for photo, image in zip(sorted(photos.iterdir()), images, strict=True):
        np.testing.assert_array_equal(read_image(photo, classifier.size, classifier.fit), image)
    expected = load_model(Path("model/model.keras")).predict(images, verbose=0)
    shutil.copy("model/model.keras", "alone.keras")
    alone = ("alone.keras", "--sha256", sha256_of(Path("alone.keras")))  # as data/split says, which has its labels
    capsys.readouterr()  # what split said
    for model in (("model",), ("model/model.keras",), alone):
        np.testing.assert_allclose(answers_to(predict, photos, *model), expected, atol=1e-5)
    split(params.model_copy(update={"fit": "pad" if fit == "crop" else "crop"}), tmp_path / "raw", Path("data/split"))
    capsys.readouterr()
    np.testing.assert_allclose(answers_to(predict, photos, "model"), expected, atol=1e-5)


def test_a_release_takes_photos_as_its_training_did(new_workspace: Workspace) -> None:
    place = ("retrain", new_workspace.prefix, None)
    assert load_release(new_workspace.publish()["id"], *place).fit == "squash", "of a release without the entry"
    new_workspace.retrain(fit="crop")
    release = new_workspace.publish()["id"]
    assert load_release(release, *place).fit == "crop"
    (folder,) = (path for path in Path(".cache/releases").iterdir() if path.name.startswith(release))
    assert load_local(folder / "model.keras").fit == "crop"
    assert "box=(left, top" in (folder / "README.md").read_text()


def test_where_nothing_says_how_photos_are_fitted_that_is_said(
    predict: Any, classifier_workspace: Path, pictures: Path
) -> None:
    Path("alone").mkdir()
    shutil.copy("model/model.keras", "alone")
    write_json(Path("alone/labels.json"), list(CLASSES))
    status, _, errors = predict(pictures, "--model", "alone", "--sha256", sha256_of(Path("alone/model.keras")))
    assert status == 0
    assert errors == "nothing beside alone/model.keras says split.fit of its training: squash is taken\n"
    write_json(Path("model/training.json"), read_json(Path("model/training.json")) | {"fit": "zoom"})
    status, _, errors = predict(pictures, "--model", "model")
    assert (status, errors) == (
        2, "predict: model/training.json says fit = 'zoom': known are crop, pad, squash\n"
    )  # fmt: skip


def test_an_unreachable_store_is_one_sentence(predict: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    status, output, errors = predict(pictures / "000.png")
    assert (status, output) == (69, "")
    assert errors.startswith(
        "predict: the object store at http://127.0.0.1:1 cannot be reached; is it running? (make up"
    )
