"""The stage evaluate, on a small real model and real arrays: every image once, and bad input in one sentence."""

import csv
import hashlib
import html
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from tasks.data.arrays import Arrays, load_arrays, load_split_record, save_selected, save_split_record
from tasks.evaluate import evaluate
from tasks.model_files.files import load_model, save_model
from tasks.params.data import SplitParams
from tasks.params.params import EvaluateParams
from tasks.reporting.answers import most_confident_mistakes
from tasks.split import split
from tasks.stage.errors import InputError
from tasks.stage.files import read_json, sha256_of, write_json
from tests.fixtures.archives import colour_images, make_raw, write_tar
from tests.tasks.reporting.small_run import CLASSES, SHAPE, build_small_model, write_model, write_split

ROOT = Path(__file__).parents[2]
IMAGES = 23  # batches of 8, 8 and 7
PARAMS = EvaluateParams(batch_size=8, test_time_augmentation="auto")
Damage = Callable[[Path], None]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    write_split(folder / "data/split", IMAGES)
    write_model(folder / "model", build_small_model())
    return folder


@pytest.fixture
def workspace(original: Path, tmp_path: Path) -> Path:
    """A folder of its own with data/split, model and params.yaml."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    text = (ROOT / "params.yaml").read_text()
    assert "batch_size: 500" in text
    (tmp_path / "params.yaml").write_text(text.replace("batch_size: 500", "batch_size: 8"))
    return tmp_path


def run_stage(folder: Path, largest_file: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.evaluate"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
        capture_output=True,
        text=True,
        check=False,
    )


def run_here(folder: Path, params: EvaluateParams = PARAMS) -> dict[str, Any]:
    return evaluate(params, folder / "data/split", folder / "model", folder / "evaluation", folder / "runtime")


def test_the_command_measures_every_test_image_once(workspace: Path) -> None:
    result = run_stage(workspace)
    assert result.returncode == 0, result.stderr
    output, test = workspace / "evaluation", load_arrays(workspace / "data/split", "test")
    names = {"metrics.json", "per_class.json", "probabilities.npy", "predictions.csv", "confusion.csv", "report.html"}
    names |= {"architecture.png", "summary.txt", "summary.png"}
    assert {path.name for path in output.iterdir()} == names

    expected = load_model(workspace / "model/model.keras")(np.asarray(test.images), training=False).numpy()
    probabilities = np.load(output / "probabilities.npy")
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)

    metrics = read_json(output / "metrics.json")
    assert metrics["images"] == IMAGES
    assert metrics["top1"] == np.mean(expected.argmax(axis=1) == test.labels)
    assert metrics["top1_low"] < metrics["top1"] < metrics["top1_high"]
    assert metrics["test_sha256"] == read_json(workspace / "data/split/split.json")["content_sha256"]["test"]
    assert metrics["model_bytes"] == (workspace / "model/model.keras").stat().st_size
    assert metrics["parameters"] == build_small_model().count_params()

    rows = list(csv.DictReader((output / "predictions.csv").open()))
    assert list(rows[0]) == ["index", "actual", "predicted", "confidence", "correct"], "CIFAR-10's images have no files"
    assert [int(row["index"]) for row in rows] == list(range(IMAGES))
    assert [row["actual"] for row in rows] == [CLASSES[label] for label in test.labels]
    assert [row["predicted"] for row in rows] == [CLASSES[index] for index in expected.argmax(axis=1)]
    assert np.mean([int(row["correct"]) for row in rows]) == pytest.approx(metrics["top1"])
    assert len(list(csv.DictReader((output / "confusion.csv").open()))) == IMAGES
    assert sum(row["images"] for row in read_json(output / "per_class.json").values()) == IMAGES

    headline = f"{100 * metrics['top1']:.2f}"
    assert f"top-1 {headline} %" in result.stdout
    assert "[100.0%]" in result.stdout
    assert headline in (output / "report.html").read_text()
    assert read_json(workspace / "runtime/evaluate.json")["images_per_second"] > 0


def test_metrics_are_flat_and_complete(workspace: Path) -> None:
    metrics = run_here(workspace)
    wanted = {
        "top1", "top1_low", "top1_high", "top1_augmented", "binary_accuracy", "log_loss", "expected_calibration_error",
        "balanced_accuracy", "macro_f1", "test_time_augmentation", "images", "dataset", "test_sha256", "parameters",
        "model_bytes",
    }  # fmt: skip
    assert set(metrics) == wanted
    assert not any(isinstance(value, dict | list) for value in metrics.values())


def test_two_classes_have_what_only_they_have(tmp_path: Path) -> None:
    write_split(tmp_path / "data/split", 60, classes=("sound", "defective"))
    write_model(tmp_path / "model", build_small_model(classes=2))
    metrics = run_here(tmp_path)
    test, probabilities = (
        load_arrays(tmp_path / "data/split", "test"),
        np.load(tmp_path / "evaluation/probabilities.npy"),
    )
    assert metrics["positive_class"] == "defective"
    odds = np.log(probabilities[:, 1]) - np.log(probabilities[:, 0])
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(test.labels, odds))
    assert metrics["average_precision"] == pytest.approx(average_precision_score(test.labels, odds))
    assert metrics["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(test.labels, probabilities.argmax(axis=1))
    )
    assert f"{metrics['roc_auc']:.4f}" in (tmp_path / "evaluation/report.html").read_text()


def test_costs_add_what_they_ask_for_and_change_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = ("defective", "sound")
    write_split(tmp_path / "data/split", 60, classes=classes)
    write_model(tmp_path / "model", build_small_model(classes=2))
    plain, evaluation = run_here(tmp_path), tmp_path / "evaluation"
    before = {path.name: path.read_bytes() for path in evaluation.iterdir()}
    costs = {"defective": 20.0, "sound > defective": 2.0}
    metrics = run_here(tmp_path, PARAMS.model_copy(update={"costs": costs}))
    changed = {path.name for path in evaluation.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"metrics.json", "per_class.json", "predictions.csv", "report.html"}
    assert {name: metrics[name] for name in plain} == plain
    assert set(metrics) - set(plain) == {"mean_cost", "mean_cost_plain", "costs"}
    assert metrics["costs"] == costs

    labels = load_arrays(tmp_path / "data/split", "test").labels
    probabilities = np.load(evaluation / "probabilities.npy")
    answers = np.where(probabilities[:, 0] > 2 / 22, 0, 1)
    assert answers.tolist() != probabilities.argmax(axis=1).tolist(), "or nothing is shown"
    for name, given in (("mean_cost", answers), ("mean_cost_plain", probabilities.argmax(axis=1))):
        missed, alarms = np.sum((labels == 0) & (given == 1)), np.sum((labels == 1) & (given == 0))
        assert metrics[name] == pytest.approx((20 * missed + 2 * alarms) / 60)
    rows = list(csv.DictReader((evaluation / "predictions.csv").open()))
    assert [row["least_cost"] for row in rows] == [classes[answer] for answer in answers]
    per_class = read_json(evaluation / "per_class.json")
    assert per_class["defective"]["recall_by_cost"] == pytest.approx(np.mean(answers[labels == 0] == 0))
    assert per_class["sound"]["precision_by_cost"] == pytest.approx(np.mean(labels[answers == 1] == 1))
    assert f"it finds {np.sum(answers[labels == 0] == 0)} of {np.sum(labels == 0)} defective" in capsys.readouterr().out


def test_costs_of_no_class_are_refused_before_anything_is_answered(workspace: Path) -> None:
    (workspace / "model/model.keras").unlink()  # it is not come to
    with pytest.raises(InputError, match=r"evaluate\.costs: 'rde' is no class, .*; the classes are red, green, blue$"):
        run_here(workspace, PARAMS.model_copy(update={"costs": {"rde": 10.0}}))


def test_photos_are_predicted_and_shown_by_name(tmp_path: Path) -> None:
    side, files = 12, colour_images(20, side=12)
    nasty = '=red/<img src=x onerror="alert(1)">\n.png'
    files = {name.replace("red/", "=red/").replace("=red/00007.png", nasty): data for name, data in files.items()}
    files["blue/00003-cut.png"] = files["blue/00003.png"][:70]
    params = SplitParams(
        method="stable", validation_fraction=0.1, test_fraction=0.6, image_size=side, max_quarantined=0.1
    )
    raw = make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "a.tar", files))
    split(params, raw, tmp_path / "data/split")
    write_model(tmp_path / "model", build_small_model((side, side, 3)))
    run_here(tmp_path)
    with (tmp_path / "evaluation/predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (tmp_path / "data/split/index.csv").open(encoding="utf-8", newline="") as stream:
        index = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    assert [(row["path"], row["sha256"]) for row in rows] == [(row["path"], row["sha256"]) for row in index]
    shown = {f"'{name}" if name.startswith("=") else name: data for name, data in files.items()}
    for row in rows:
        (content,) = [data for name, data in shown.items() if name.replace("\n", "?") == row["path"]]
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert row["path"].startswith(f"{row['actual']}/")
    test, probabilities = (
        load_arrays(tmp_path / "data/split", "test"),
        np.load(tmp_path / "evaluation/probabilities.npy"),
    )
    report = (tmp_path / "evaluation/report.html").read_text()
    mistakes = most_confident_mistakes(test.labels, probabilities, 1000)
    assert len(mistakes) > 5
    names = re.findall(r'<p class="file"><bdi>(.*)</bdi>', report.split("<h2>The most confident mistakes</h2>")[1])
    assert [html.unescape(name) for name in names[: len(mistakes)]] == [
        rows[place]["path"].removeprefix("'") for place in mistakes
    ]
    assert 'onerror="' not in report


def test_names_of_other_images_are_refused(tmp_path: Path, original: Path) -> None:
    write_split(tmp_path / "data/split", IMAGES, dataset="folders")
    shutil.copytree(original / "model", tmp_path / "model")
    with pytest.raises(InputError, match=r"index\.csv does not exist; run the stage split first"):
        run_here(tmp_path)
    (tmp_path / "data/split/index.csv").write_text("split,label,sha256,group,path\ntest,red,0,,1.png\n")
    with pytest.raises(InputError, match=r"index\.csv does not list the test images of the arrays"):
        run_here(tmp_path)
    assert not (tmp_path / "evaluation").exists()


def test_two_runs_write_equal_bytes(workspace: Path) -> None:
    run_here(workspace)
    first = {path.name: sha256_of(path) for path in (workspace / "evaluation").iterdir()}
    run_here(workspace)
    assert {path.name: sha256_of(path) for path in (workspace / "evaluation").iterdir()} == first


def test_the_batch_size_changes_nothing_but_rounding(workspace: Path) -> None:
    answers = []
    for size in (1, 7, IMAGES, 1000):
        run_here(workspace, EvaluateParams(batch_size=size))
        answers.append(np.load(workspace / "evaluation/probabilities.npy"))
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5)


def test_without_test_time_augmentation_both_top1_are_equal(workspace: Path) -> None:
    metrics = run_here(workspace, EvaluateParams(batch_size=8, test_time_augmentation="none"))
    assert metrics["top1_augmented"] == metrics["top1"]
    assert 'data-metric="top1_augmented"' not in (workspace / "evaluation/report.html").read_text()


def write_corners(folder: Path, split: str, labels: Sequence[int], left: Sequence[int], right: Sequence[int]) -> None:
    """Replace a split by black images whose upper corners hold a class each, as a colour; -1 is none.

    The right one is the brighter: where both hold one, a mirrored image is the surer.
    """
    images = np.zeros((len(labels), *SHAPE), np.uint8)
    for corner, classes, light in ((0, left, 100), (SHAPE[1] - 1, right, 255)):
        images[:, 0, corner] = [light * np.eye(3)[value] if value >= 0 else np.zeros(3) for value in classes]
    arrays, record = Arrays(images, np.array(labels, np.int32)), load_split_record(folder)
    digest = save_selected(folder, split, arrays, np.arange(len(labels)))
    save_split_record(folder, replace(record, content_sha256={**record.content_sha256, split: digest}))


def reads_the_left_corner() -> keras.Model:
    inputs = keras.Input(SHAPE, dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    kernel = np.zeros((np.prod(SHAPE), 3), np.float32)
    kernel[:3] = 4 * np.eye(3)
    model.set_weights([kernel, np.zeros(3, np.float32)])
    return model


@pytest.mark.parametrize("mirrored", [True, False])
def test_views_are_averaged_where_that_helps_on_validation_images_whatever_it_does_to_the_test_images(
    tmp_path: Path, mirrored: bool
) -> None:
    split, labels = tmp_path / "data/split", [number % 3 for number in range(60)]
    write_split(split, 60)
    write_model(tmp_path / "model", reads_the_left_corner())
    none, wrong = [-1] * 60, [(label + 1) % 3 for label in labels]
    sides = [(label, -1) if number % 2 else (-1, label) for number, label in enumerate(labels)]
    helpful, harmful = tuple(zip(*sides, strict=True)), (labels, wrong)
    write_corners(split, "validation", labels, *(helpful if mirrored else harmful))
    write_corners(split, "test", labels, *(harmful if mirrored else (none, labels)))
    metrics = run_here(tmp_path)
    views = read_json(tmp_path / "evaluation/views.json")  # where nobody has chosen, and nowhere else
    assert metrics["test_time_augmentation"] == views["augmentation"] == ("mirror" if mirrored else "none")
    assert (metrics["top1"], metrics["top1_augmented"]) == ((1, 0) if mirrored else (1 / 3, 1 / 3))
    assert views["images"] == 60
    report = (tmp_path / "evaluation/report.html").read_text()
    assert views["reason"].replace("_", " ") in report
    assert ('data-metric="top1_augmented"' in report) == mirrored


def test_validation_images_are_not_asked_where_a_person_has_chosen(workspace: Path) -> None:
    for name in ("images", "labels"):
        (workspace / f"data/split/validation_{name}.npy").unlink()
    metrics = run_here(workspace, EvaluateParams(batch_size=8, test_time_augmentation="mirror"))
    assert metrics["test_time_augmentation"] == "mirror"
    assert not (workspace / "evaluation/views.json").exists()


def flip_a_byte(folder: Path) -> None:
    path = folder / "model/model.keras"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def not_a_keras_file(folder: Path) -> None:
    path = folder / "model/model.keras"
    path.write_text("not a model")
    record_hash(folder)


def other_classes(folder: Path) -> None:
    save_model(build_small_model(classes=5), folder / "model/model.keras")
    record_hash(folder)


def other_shape(folder: Path) -> None:
    save_model(build_small_model((16, 10, 3)), folder / "model/model.keras")
    record_hash(folder)


def diverged(folder: Path) -> None:
    model = build_small_model()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    save_model(model, folder / "model/model.keras")
    record_hash(folder)


def record_hash(folder: Path) -> None:
    path = folder / "model/training.json"
    write_json(path, {**read_json(path), "model_sha256": sha256_of(folder / "model/model.keras")})


def no_hash(folder: Path) -> None:
    path = folder / "model/training.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "model_sha256"})


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def broken_json(folder: Path) -> None:
    (folder / "model/training.json").write_text("{")


def another_validation_image(folder: Path) -> None:
    another_test_image(folder, "validation")


def another_test_image(folder: Path, split: str = "test") -> None:
    path = folder / f"data/split/{split}_images.npy"
    images = np.load(path)
    images[3, 4, 5] ^= 1
    np.save(path, images)


def no_test_images(folder: Path) -> None:
    for name, shape, dtype in (("images", (0, *SHAPE), np.uint8), ("labels", (0,), np.int32)):
        np.save(folder / f"data/split/test_{name}.npy", np.empty(shape, dtype))


def other_fit(folder: Path) -> None:
    path = folder / "data/split/split.json"
    write_json(path, read_json(path) | {"fit": "crop"})


BAD_INPUT: dict[str, tuple[Damage, str]] = {
    "one byte altered": (flip_a_byte, r"model\.keras was altered"),
    "not a Keras file": (not_a_keras_file, r"model\.keras is not a Keras model"),
    "other classes": (other_classes, r"model\.keras knows 5 classes, but 3 are in split\.json"),
    "other image shape": (other_shape, r"takes images of 16×10×3, but the test images have 12×10×3"),
    "other fit": (other_fit, r"was trained on images of fit squash, but the test images have crop"),
    "diverged": (diverged, r"not probabilities"),
    "hash not recorded": (no_hash, r"run it again"),
    "no model": (remove("model/model.keras"), r"model\.keras does not exist; run the stage train"),
    "no training record": (remove("model/training.json"), r"training\.json does not exist"),
    "training record broken": (broken_json, r"training\.json is not JSON"),
    "test image altered": (another_test_image, r"not the ones that split\.json records"),
    "validation image altered": (another_validation_image, r"the validation arrays in .* are not the ones that split"),
    "no test images": (no_test_images, r"has no test images"),
    "no split record": (remove("data/split/split.json"), r"split\.json does not exist"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence_and_leaves_the_last_evaluation_alone(workspace: Path, case: str) -> None:
    damage, sentence = BAD_INPUT[case]
    (workspace / "evaluation").mkdir()
    (workspace / "evaluation/metrics.json").write_text("earlier")
    damage(workspace)
    with pytest.raises(InputError, match=sentence):
        run_here(workspace)
    assert (workspace / "evaluation/metrics.json").read_text() == "earlier"
    assert [path.name for path in (workspace / "evaluation").iterdir()] == ["metrics.json"]


def test_the_command_ends_with_status_2_and_no_traceback(workspace: Path) -> None:
    flip_a_byte(workspace)
    result = run_stage(workspace)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith("evaluate: model/model.keras was altered")
    assert not (workspace / "evaluation").exists()


@pytest.mark.parametrize(
    "room", [pytest.param(50, marks=pytest.mark.long), 450, pytest.param(20_000, marks=pytest.mark.long)]
)
def test_a_quota_that_is_full_ends_with_a_sentence_and_the_last_evaluation(workspace: Path, room: int) -> None:
    (workspace / "evaluation").mkdir()
    (workspace / "evaluation/metrics.json").write_text("earlier")
    result = run_stage(workspace, largest_file=room)
    assert result.returncode == 2, result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("evaluate: File too large")
    assert "Traceback" not in result.stderr
    assert (workspace / "evaluation/metrics.json").read_text() == "earlier"
    assert {path.name for path in workspace.iterdir()} == {"data", "model", "evaluation", "params.yaml"}


def test_single_images_get_the_recorded_probabilities(workspace: Path) -> None:
    run_here(workspace)
    recorded = np.load(workspace / "evaluation/probabilities.npy")
    model: keras.Model = load_model(workspace / "model/model.keras")
    for image, expected in zip(load_arrays(workspace / "data/split", "test").images, recorded, strict=True):
        np.testing.assert_allclose(model.predict_on_batch(np.asarray(image[None]))[0], expected, atol=1e-5)


def test_the_report_of_digits_says_so_first(tmp_path: Path, original: Path) -> None:
    write_split(tmp_path / "data/split", IMAGES, dataset="digits")
    shutil.copytree(original / "model", tmp_path / "model")
    run_here(tmp_path)
    text = (tmp_path / "evaluation/report.html").read_text()
    assert "These are handwritten digits, not CIFAR-10." in text
    assert text.index("These are handwritten digits") < text.index('data-metric="top1"')
    assert json.loads((tmp_path / "evaluation/metrics.json").read_text())["dataset"] == "digits"
