import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks.data.arrays import (
    Arrays,
    SplitRecord,
    load_arrays,
    load_split_record,
    save_arrays,
    save_selected,
    save_split_record,
)
from tasks.evaluation.metrics import log_loss
from tasks.model_files.files import load_model
from tasks.stage.files import write_json
from tests.fixtures.nursery import Nursery

ROOT = Path(__file__).parents[2]
CLASSES = ("dark", "dim", "bright", "white")


def write_split(folder: Path) -> None:
    """Real arrays of four shades, which a small network tells apart at once."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    hashes = {}
    for split, count in (("train", 96), ("validation", 30)):
        labels = generator.integers(0, 4, count).astype(np.int32)
        noise = generator.integers(0, 64, (count, 32, 32, 3))
        arrays = Arrays((noise + 60 * labels[:, None, None, None]).astype(np.uint8), labels)
        hashes[split] = save_selected(folder, split, arrays, np.arange(count))
    record = SplitRecord("folders", CLASSES, (32, 32, 3), "stratified", 0, {}, hashes, hashes, {}, "crop")
    save_split_record(folder, record)


def write_params(folder: Path, recipe: dict[str, Any] | None = None, **train: Any) -> None:
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["train"] |= {"recipe": "digits", **train}
    values["recipes"]["digits"] |= {"epochs": 3, "batch_size": 16, **(recipe or {})}
    with (folder / "params.yaml").open("w") as stream:
        YAML().dump(values, stream)


def stage(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-u", "-m", "tasks.train"]
    environment = {"PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def run_stage(folder: Path) -> tuple[int, str, str]:
    process = stage(folder)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def contents(folder: Path) -> dict[str, str | bytes]:
    """What every file holds: text to be read where a test fails, a hash of the rest."""
    files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {
        name: data.decode() if name.endswith(("json", "tsv")) else sha256(data).digest() for name, data in files.items()
    }


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    write_split(tmp_path / "data" / "split")
    return tmp_path


def test_it_leaves_all_that_the_next_stages_read(workspace: Path) -> None:
    write_params(workspace, devices="cpu:2")
    status, out, err = run_stage(workspace)
    assert status == 0, err
    assert "2 replicas" in out
    assert "[100.0%] epoch 3/3, step 6/6" in out
    assert err == "", "TensorFlow's start-up lines belong to no one"
    model = workspace / "model"
    training = json.loads((model / "training.json").read_text())
    assert (training["recipe"], training["epochs_run"], training["steps"]) == ("digits", 3, 18)
    assert training["fit"] == "crop"
    history = json.loads((model / "history.json").read_text())["columns"]
    assert history["epoch"] == [1, 2, 3]
    assert history["validation_top1"][-1] == training["validation"]["top1"] > 0.5
    lines = (model / "dvclive" / "plots" / "metrics" / "validation_top1.tsv").read_text().splitlines()
    assert [float(line.split("\t")[1]) for line in lines[1:]] == pytest.approx(history["validation_top1"])
    runtime = json.loads((workspace / "runtime" / "train.json").read_text())
    assert runtime["replicas"] == 2
    assert runtime["images_per_second"] > 0
    assert not (workspace / ".cache" / "checkpoints").exists() or not any((workspace / ".cache/checkpoints").iterdir())
    validation = np.load(workspace / "data/split/validation_images.npy")
    labels = np.load(workspace / "data/split/validation_labels.npy")
    network, calibration = load_model(model / "model.keras"), training["calibration"]
    answers = np.asarray(network(validation))
    assert (answers.argmax(axis=1) == labels).mean() == pytest.approx(training["validation"]["top1"])
    assert f"calibrated on 30 validation images: temperature {calibration['temperature']:.3f}; there log loss" in out
    assert network.get_layer("temperature").scale == pytest.approx(1 / calibration["temperature"])
    assert log_loss(answers, labels) == pytest.approx(calibration["after"]["log_loss"], abs=1e-5)
    assert calibration["after"]["log_loss"] < calibration["before"]["log_loss"]


def test_the_notebooks_loss_is_calibrated_too_and_few_validation_images_leave_the_probabilities(
    workspace: Path,
) -> None:
    write_params(workspace, {"loss": {"name": "binary_crossentropy"}})
    status, out, err = run_stage(workspace)
    assert status == 0, err
    assert "calibrated on 30 validation images" in out
    images, labels = (np.load(workspace / f"data/split/validation_{name}.npy") for name in ("images", "labels"))
    record = load_split_record(workspace / "data/split")
    digest = save_selected(workspace / "data/split", "validation", Arrays(images, labels), np.arange(12))
    hashes = {**record.content_sha256, "validation": digest}
    save_split_record(workspace / "data/split", dataclasses.replace(record, content_sha256=hashes))
    status, out, err = run_stage(workspace)
    assert status == 0, err
    assert "\nnot calibrated: 12 validation images are too few, 20 are needed\n" in out
    assert load_model(workspace / "model/model.keras").get_layer("temperature").scale == 1


@pytest.mark.long  # tests/integration/test_train_kills.py kills at any moment
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(workspace: Path) -> None:
    write_params(workspace, {"epochs": 20}, checkpoint_every_steps=3)
    process = stage(workspace)
    checkpoints = workspace / ".cache" / "checkpoints"
    while process.poll() is None and len(list(checkpoints.glob("*/step-*.npz"))) < 2:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (workspace / "model").exists()
    (own,) = checkpoints.iterdir()
    shutil.copytree(own, workspace / "another")
    note = json.loads((own / "run.json").read_text())
    status, out, err = run_stage(workspace)
    assert status == 0, err
    assert "begins anew" not in err
    assert re.search(r"resuming in epoch \d+, after \d+ steps of it", out)
    resumed = contents(workspace / "model")
    write_json(workspace / "another/run.json", note | {"seed": 5, "code": note["code"] | {"tasks/train.py": "other"}})
    (workspace / "another").rename(checkpoints / "another")
    status, out, err = run_stage(workspace)
    assert "resuming" not in out
    assert re.search(r"train: begins anew: .* differs in: code \(tasks/train.py\); seed \(5 → \d+\)\n", err)
    assert contents(workspace / "model") == resumed


MACHINE = """
import os, sys
native, cores = sys.argv[1:]
sys.argv[1:] = []
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
import tasks.train
tasks.training.run.resolve_precision = lambda asked: {"auto": native}.get(asked, asked)
tasks.train.main()
"""


two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: there is no other machine")


def train_on(workspace: Path, native: str, cores: int) -> "subprocess.Popen[str]":
    """Start the stage as a machine with so many cores would that computes `auto` in the precision `native`."""
    command = [sys.executable, "-u", "-c", MACHINE, native, str(cores)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=workspace, env={"PYTHONPATH": str(ROOT)}, **pipes)


def finished(process: "subprocess.Popen[str]") -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def killed_after_a_save(workspace: Path, process: "subprocess.Popen[str]") -> None:
    while process.poll() is None and not list(workspace.glob(".cache/checkpoints/*/step-*.npz")):
        time.sleep(0.05)
    process.kill()
    process.communicate()


@two_cores
def test_a_run_that_goes_on_with_more_or_fewer_cores_ends_in_the_same_bytes(workspace: Path) -> None:
    write_params(workspace, {"epochs": 8, "precision": "auto"}, checkpoint_every_steps=3)
    finished(train_on(workspace, "bfloat16", cores=1))
    undisturbed = contents(workspace / "model")
    shutil.rmtree(workspace / "model")
    killed_after_a_save(workspace, train_on(workspace, "bfloat16", cores=1))
    out, err = finished(train_on(workspace, "float32", cores=2))
    assert "resuming in epoch" in out
    assert "1 thread, as it began" in out
    assert err == ""
    assert contents(workspace / "model") == undisturbed
    machine = json.loads((workspace / "runtime/train.json").read_text())["machine"]
    assert (machine["precision"], machine["threads"]) == ("bfloat16", "1")


@two_cores
def test_a_given_number_of_threads_gives_the_same_bytes_on_any_number_of_cores(workspace: Path) -> None:
    write_params(workspace, threads=2)
    finished(train_on(workspace, "float32", cores=1))
    on_one_core = contents(workspace / "model")
    finished(train_on(workspace, "float32", cores=2))
    assert contents(workspace / "model") == on_one_core


@two_cores
def test_a_run_goes_on_on_another_machine_and_says_what_differs(workspace: Path) -> None:
    write_params(workspace, {"epochs": 8}, threads=1, checkpoint_every_steps=3)
    killed_after_a_save(workspace, train_on(workspace, "float32", cores=2))
    write_params(workspace, {"epochs": 8}, threads=2, checkpoint_every_steps=3)
    out, err = finished(train_on(workspace, "float32", cores=2))
    assert "resuming in epoch" in out
    assert "train: goes on from another machine (threads 1 → 2): it ends in other bytes than undisturbed\n" in err


@pytest.mark.parametrize(
    ("recipe", "train", "named"),
    [
        ({"batch_size": 15}, {"devices": "cpu:2"}, "recipes.digits.batch_size = 15 is global and is not divisible by"),
        ({}, {"devices": "gpu:5"}, "train.devices = 'gpu:5'"),
        ({"augment": {"crop": 40}}, {}, "recipes.digits.augment.crop = 40: must be less than the images' 32 pixels"),
        (
            {"augment": {"cutout": 32}},
            {},
            "recipes.digits.augment.cutout = 32: must be less than the images' 32 pixels",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_the_model(
    nursery: Nursery, workspace: Path, recipe: dict[str, Any], train: dict[str, Any], named: str
) -> None:
    (workspace / "model").mkdir()
    (workspace / "model" / "model.keras").write_text("the model before")
    write_params(workspace, recipe, **train)
    run = nursery.start(workspace)
    assert run.wait() == 2
    said = [line for line in run.err.splitlines() if line.startswith("train: ")]
    assert len(said) == 1
    assert named in said[0]
    assert "Traceback" not in run.err
    assert [path.name for path in (workspace / "model").iterdir()] == ["model.keras"]
    assert (workspace / "model" / "model.keras").read_text() == "the model before"


def test_costs_of_no_class_are_refused_before_it_trains(nursery: Nursery, workspace: Path) -> None:
    write_params(workspace)
    text = (workspace / "params.yaml").read_text()
    assert "costs: {}" in text
    (workspace / "params.yaml").write_text(text.replace("costs: {}", "costs: {drak: 10}"))
    run = nursery.start(workspace)
    assert run.wait() == 2
    assert "train: evaluate.costs: 'drak' is no class, " in run.err
    assert "; the classes are dark, dim, bright, white\n" in run.err
    assert not (workspace / "model").exists()


def test_it_never_reads_the_test_images(workspace: Path) -> None:
    # The workspace has none: reading them would fail.
    assert not list((workspace / "data" / "split").glob("test_*"))
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert not [dep for dep in stages["train"]["deps"] if "test" in dep]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_labels_that_were_replaced_under_their_old_name_are_refused(
    nursery: Nursery, workspace: Path, split: str
) -> None:
    folder = workspace / "data/split"
    write_params(workspace)
    arrays = load_arrays(folder, split)
    save_arrays(folder, split, Arrays(np.array(arrays.images), np.roll(arrays.labels, 1)))
    run = nursery.start(workspace)
    assert run.wait() == 2
    sentence = f"the {split} arrays in data/split are not the ones that split.json records; run split again"
    assert sentence in run.err
    assert not (workspace / "model").exists()


UNKNOWN_LAYER = """
import keras, runpy, sys
from tasks.models import backbones
backbones.BACKBONES["airbench"] = lambda images, _: keras.layers.Conv2DTranspose(3, 3)(images)
sys.argv = ["train"]
runpy.run_module("tasks.train", run_name="__main__")
"""


def test_a_layer_that_no_saved_model_may_have_is_refused_before_training(tmp_path: Path) -> None:
    """Whoever adds a backbone learns of a missing line at once, and not after hours, when the model is loaded."""
    write_split(tmp_path / "data/split")
    write_params(tmp_path, {"model": {"base": "airbench", "head": "linear"}})
    done = subprocess.run(
        [sys.executable, "-c", UNKNOWN_LAYER],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "train: the network has the layer keras.layers.Conv2DTranspose" in done.stderr
    assert "adds a line to tasks/model_files/allowed_classes.py" in done.stderr
    assert not (tmp_path / "model").exists()
