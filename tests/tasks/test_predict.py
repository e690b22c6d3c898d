"""`python -m tasks.predict` on every kind of image, from the champion and from local models."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from infra.local.object_store import ObjectStore
from tasks import predict as module
from tasks.data.arrays import load_arrays
from tasks.files import sha256_of
from tasks.params import PublishParams, load_params
from tasks.publish import publish
from tasks.signing import generate_key
from tasks.storage.releases import verify_folder
from tasks.storage.signatures import read_signing_key
from tests.fixtures.stages import CLASSES, IMAGES, write_stages

PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"tests/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore, prefix: str) -> Path:
    """A workspace whose model is the champion under `prefix`."""
    root = tmp_path_factory.mktemp("published")
    write_stages(root)
    chosen = PublishParams(bucket="retrain", prefix=prefix)
    params = load_params(PARAMS_FILE).model_copy(update={"publish": chosen})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.environment.items():
            patch.setenv(name, value)
        publish(params, root / "data/split", root / "model", root / "evaluation", root / "release", root / "runtime")
    return root


@pytest.fixture
def workspace(published: Path, tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the published workspace, as working folder; the test may damage it."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "workspace"
    shutil.copytree(published, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def predict(workspace: Path, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process, where TensorFlow is loaded already; return status, output and errors."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        command = ["predict", *map(str, arguments), "--bucket", "retrain", "--prefix", prefix]
        monkeypatch.setattr(sys, "argv", command)
        try:
            module.main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        output, errors = capsys.readouterr()
        return status, output, errors

    return run


@pytest.fixture
def pictures(workspace: Path) -> Path:
    """The test images as PNG files, in the test set's order."""
    folder = workspace / "pictures"
    folder.mkdir()
    for number, image in enumerate(load_arrays(workspace / "data/split", "test").images):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return folder


def _table(text: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return a CSV's header and its probabilities, (N, C)."""
    header, *rows = csv.reader(io.StringIO(text))
    return header, np.array([[float(value) for value in row[3:]] for row in rows])


def _recorded(workspace: Path) -> np.ndarray[Any, Any]:
    recorded: np.ndarray[Any, Any] = np.load(workspace / "evaluation/probabilities.npy")
    return recorded


def test_the_champion_answers_as_the_evaluation_recorded(predict: Any, workspace: Path, pictures: Path) -> None:
    status, output, errors = predict(pictures)
    assert status == 0, errors
    header, probabilities = _table(output)
    assert header == ["image", "predicted", "confidence", *(f"p({name})" for name in CLASSES)]
    np.testing.assert_allclose(probabilities, _recorded(workspace), atol=1e-5)
    (cached,) = Path(".cache/releases").iterdir()
    before = (cached / "model.keras").stat().st_ino
    assert predict(pictures / "000.png")[0] == 0
    assert (cached / "model.keras").stat().st_ino == before  # fetched once


def test_an_altered_copy_in_the_cache_is_fetched_again(predict: Any, workspace: Path, pictures: Path) -> None:
    predict(pictures / "000.png")
    (cached,) = Path(".cache/releases").iterdir()
    (cached / "model.keras").write_bytes(b"altered")
    status, output, _ = predict(pictures)
    assert status == 0
    np.testing.assert_allclose(_table(output)[1], _recorded(workspace), atol=1e-5)


@pytest.mark.parametrize("model", ["model", "model/model.keras"])
def test_a_local_model_needs_no_store(
    predict: Any, workspace: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    status, output, errors = predict(pictures, "--model", model)
    assert status == 0, errors
    np.testing.assert_allclose(_table(output)[1], _recorded(workspace), atol=1e-5)


def test_a_pulled_release_in_another_process(workspace: Path, prefix: str, pictures: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PARAMS_FILE.parent)}
    shutil.rmtree(workspace / "data")  # its labels are inside it
    pull = ["tasks.registry", "pull", "champion", str(tmp_path / "pulled"), "--bucket", "retrain", "--prefix", prefix]
    subprocess.run([sys.executable, "-m", *pull], env=environment, check=True, capture_output=True)
    answer = ["tasks.predict", str(pictures), "--model", str(tmp_path / "pulled")]
    done = subprocess.run([sys.executable, "-m", *answer], env=environment, check=True, capture_output=True, text=True)
    np.testing.assert_allclose(_table(done.stdout)[1], _recorded(workspace), atol=1e-5)
    assert done.stderr == ""  # TensorFlow keeps quiet


def test_the_top_classes_are_printed(predict: Any, workspace: Path, pictures: Path) -> None:
    status, output, _ = predict(pictures / "000.png", pictures / "001.png", "--model", "model", "--top", "2")
    assert status == 0
    lines = output.splitlines()
    assert len(lines) == 6
    best = _recorded(workspace)[0].argmax()
    assert lines[0].endswith("000.png")
    assert lines[1].split() == [CLASSES[best], f"{100 * _recorded(workspace)[0, best]:.2f}", "%"]


def test_programs_get_json(predict: Any, workspace: Path, pictures: Path) -> None:
    status, output, _ = predict(pictures / "003.png", "--model", "model", "--json", "--top", "9")
    (answer,) = json.loads(output)["predictions"]
    assert status == 0
    assert answer["image"].endswith("003.png")
    shown = {entry["class"]: entry["probability"] for entry in answer["classes"]}
    assert list(shown.values()) == sorted(shown.values(), reverse=True)
    np.testing.assert_allclose([shown[name] for name in CLASSES], _recorded(workspace)[3], atol=1e-5)


def test_a_csv_is_written_complete_or_not_at_all(predict: Any, workspace: Path, pictures: Path) -> None:
    target = workspace / "answers.csv"
    assert predict(pictures, "--model", "model", "--csv", target)[0] == 0
    before = target.read_text()
    assert len(before.splitlines()) == IMAGES + 1
    (pictures / "zzz.png").write_text("not an image")
    status, _, errors = predict(pictures, "--model", "model", "--csv", target)
    assert status == 2
    assert "zzz.png is not an image" in errors
    assert target.read_text() == before


def _odd_images(folder: Path) -> dict[str, Path]:
    """Return one file of every kind that people have."""
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    deep = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160)
    paths = {}
    for name, image, suffix, options in (
        ("grey", colour.convert("L"), "png", {}),
        ("two-level", colour.convert("1"), "png", {}),
        ("rgba", colour.convert("RGBA"), "png", {}),
        ("grey-alpha", colour.convert("LA"), "png", {}),
        ("palette", colour.convert("P"), "png", {}),
        ("palette-transparent", colour.convert("P"), "png", {"transparency": 0}),
        ("16-bit", deep, "png", {}),
        ("cmyk", colour.convert("CMYK"), "jpg", {}),
        ("rotated", colour, "jpeg", {"exif": rotated}),
        ("progressive", colour, "jpg", {"progressive": True}),
        ("one pixel", Image.new("RGB", (1, 1), "red"), "png", {}),
    ):
        paths[name] = folder / f"{name}.{suffix}"
        image.save(paths[name], **options)
    return paths


def test_every_kind_of_image_is_answered(predict: Any, workspace: Path) -> None:
    paths = _odd_images(workspace)
    status, output, errors = predict(*paths.values(), "--model", "model", "--json", "--top", "3")
    assert status == 0, errors
    answers = json.loads(output)["predictions"]
    assert [answer["image"] for answer in answers] == [str(path) for path in paths.values()]
    for answer in answers:
        assert sum(entry["probability"] for entry in answer["classes"]) == pytest.approx(1, abs=1e-5)


def test_a_huge_image_ends_in_an_answer_or_a_sentence(predict: Any, workspace: Path) -> None:
    Image.new("1", (10_000, 10_000)).save("huge.png")
    status, output, errors = predict("huge.png", "--model", "model")
    assert (status, output) == (2, "")
    assert errors.startswith("predict: huge.png has 10000×10000 pixels")


@pytest.mark.parametrize("body", [b"a shopping list\n", b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_a_file_that_is_no_image_is_named(workspace: Path, body: bytes) -> None:
    Path("list.png").write_bytes(body)
    done = subprocess.run(
        [sys.executable, "-m", "tasks.predict", "list.png", "--model", "model"],
        env={**os.environ, "PYTHONPATH": str(PARAMS_FILE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("predict: list.png is not an image that can be read")


def test_a_truncated_image_is_named(predict: Any, pictures: Path) -> None:
    whole = (pictures / "000.png").read_bytes()
    (pictures / "000.png").write_bytes(whole[: len(whole) // 2])
    status, _, errors = predict(pictures / "000.png", "--model", "model")
    assert status == 2
    assert "000.png is not an image that can be read" in errors


@pytest.mark.parametrize("path", ["absent.png", "empty"])
def test_nothing_to_answer_is_said(predict: Any, workspace: Path, path: str) -> None:
    Path("empty").mkdir()
    status, output, errors = predict(path, "--model", "model")
    assert (status, output) == (2, "")
    assert path in errors


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("place", ["model", "release"])
def test_a_model_altered_by_one_bit_is_refused(predict: Any, workspace: Path, pictures: Path, place: str) -> None:
    folder = Path("model")
    if place == "release":
        predict(pictures / "000.png")
        (folder,) = Path(".cache/releases").iterdir()
    _flip(folder / "model.keras")
    for model in (folder, folder / "model.keras"):
        status, output, errors = predict(pictures / "000.png", "--model", model)
        assert (status, output) == (2, "")
        assert f"{folder / 'model.keras'} was altered" in errors


def test_a_model_that_nothing_vouches_for_needs_a_sha256(predict: Any, workspace: Path, pictures: Path) -> None:
    Path("alone").mkdir()
    shutil.copy("model/model.keras", "alone/alone.keras")
    status, output, errors = predict(pictures, "--model", "alone/alone.keras")
    assert (status, output) == (2, "")
    digest = sha256_of(Path("alone/alone.keras"))
    assert errors.endswith(f"says what its bytes are; if you trust these, add --sha256 {digest}\n")
    status, output, errors = predict(pictures, "--model", "alone/alone.keras", "--sha256", digest)
    assert status == 0, errors
    np.testing.assert_allclose(_table(output)[1], _recorded(workspace), atol=1e-5)
    for model in ("alone/alone.keras", "model"):
        status, output, errors = predict(pictures, "--model", model, "--sha256", "0" * 64)
        assert (status, output) == (2, "")
        assert "was altered: its sha256 is not the one that was recorded for it" in errors


@pytest.mark.parametrize("record", ["{}", '{"model_sha256": null}', "[]", "{", "[" * 100_000])
def test_a_record_that_says_nothing_vouches_for_nothing(
    predict: Any, workspace: Path, pictures: Path, record: str
) -> None:
    Path("model/training.json").write_text(record)
    status, output, errors = predict(pictures, "--model", "model")
    assert (status, output) == (2, "")
    assert "model/training.json" in errors
    assert len(errors.splitlines()) == 1


def test_a_model_of_an_old_format_is_refused(predict: Any, workspace: Path, pictures: Path) -> None:
    with zipfile.ZipFile("model/model.keras") as archive:
        Path("old.h5").write_bytes(archive.read("model.weights.h5"))
    status, output, errors = predict(pictures, "--model", "old.h5", "--sha256", sha256_of(Path("old.h5")))
    assert (status, output) == (2, "")
    assert errors == "predict: old.h5 is an HDF5 file, a format that can carry code; only .keras archives are read\n"


@pytest.mark.parametrize("labels", ["{}", "[1, 2, 3]", "[]", "[", '"ant"'])
def test_labels_that_are_none_are_refused(predict: Any, workspace: Path, pictures: Path, labels: str) -> None:
    Path("model/labels.json").write_text(labels)
    status, output, errors = predict(pictures / "000.png", "--model", "model")
    assert (status, output) == (2, "")
    assert errors.startswith("predict: model/labels.json is not ")


@pytest.fixture
def release(predict: Any, workspace: Path, pictures: Path) -> Path:
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


def test_labels_that_do_not_fit_are_refused(predict: Any, workspace: Path, pictures: Path) -> None:
    Path("model/labels.json").write_text('["ant", "bee"]')
    status, _, errors = predict(pictures / "000.png", "--model", "model")
    assert status == 2
    assert "3 outputs, but 2 labels" in errors


def test_an_unreachable_store_is_one_sentence(predict: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    status, output, errors = predict(pictures / "000.png")
    assert (status, output) == (2, "")
    assert errors == "predict: the object store at http://127.0.0.1:1 cannot be reached; is it running?\n"
