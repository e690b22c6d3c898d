"""The whole pipeline in a clone of this repository, on the bundled digits: every real part, nothing in its place."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from infra.local.object_store import ObjectStore

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("download", "split", "train", "evaluate", "publish")
SETTINGS = ("download.dataset=digits", "train.recipe=digits", "recipes.digits.epochs=6", "publish.prefix=pipeline")
REMOTE = "s3://retrain/pipeline-test"

Environment = dict[str, str]


def command(folder: Path, environment: Environment, *arguments: str) -> str:
    """Run a command that must succeed, in a folder, and return all that it printed."""
    done = subprocess.run(
        arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}"
    return done.stdout


def python(folder: Path, environment: Environment, *arguments: str) -> str:
    return command(folder, environment, sys.executable, *arguments)


def dvc(folder: Path, environment: Environment, *arguments: str) -> str:
    return python(folder, environment, "-m", "dvc", *arguments)


def commit_all(folder: Path, environment: Environment, message: str) -> None:
    command(folder, environment, "git", "add", "--all")
    command(folder, environment, "git", "commit", "--quiet", "--message", message)


def locked_hashes(folder: Path) -> dict[str, str]:
    stages = YAML(typ="safe").load(folder / "dvc.lock")["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def outcomes(output: str) -> dict[str, str]:
    """What the summary at the end of a run says of each stage."""
    found = re.findall(rf"^({'|'.join(STAGES)}) +(ran|unchanged|restored from an earlier run) ", output, re.MULTILINE)
    return dict(found)


@pytest.fixture(scope="module")
def environment(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT_", "DVC_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    author = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return clean | dict(object_store.environment) | author | {"PATH": path}


@pytest.fixture(scope="module")
def repository(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository as it is now, in a git repository of its own."""
    folder = tmp_path_factory.mktemp("pipeline") / "repository"
    listed = command(REPOSITORY, environment, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    command(folder, environment, "git", "init", "--quiet", "--initial-branch=main")
    dvc(folder, environment, "remote", "modify", "storage", "url", REMOTE)
    commit_all(folder, environment, "Begin")
    return folder


@pytest.fixture(scope="module")
def first_run(repository: Path, environment: Environment) -> str:
    return python(repository, environment, "-m", "flows.run", "--set", *SETTINGS)


@pytest.fixture(scope="module")
def finished(repository: Path, first_run: str) -> Path:
    """The repository after its first run."""
    return repository


def test_one_run_ends_with_one_number_everywhere(first_run: str, repository: Path, environment: Environment) -> None:
    assert outcomes(first_run) == dict.fromkeys(STAGES, "ran")
    metrics = json.loads((repository / "evaluation" / "metrics.json").read_text())
    receipt = json.loads((repository / "release" / "receipt.json").read_text())
    shown: dict[str, Any] = json.loads(python(repository, environment, "-m", "tasks.registry", "show", "--json"))
    top1 = f"{metrics['top1']:.2%}"
    assert metrics["top1"] > 0.8
    assert receipt["top1"] == metrics["top1"] == shown["metrics"]["top1"]
    assert f"top-1 {top1} (95 % interval" in first_run
    assert "on 270 test images of digits" in first_run
    assert top1.removesuffix("%") in (repository / "evaluation" / "report.html").read_text()
    for wanted in ("evaluation/report.html", receipt["uri"], "tasks.predict", "tasks.registry", "make up"):
        assert wanted in first_run
    assert re.search(r"train +\[100\.0%\] epoch 6/6, step 11/11, loss .*, top-1 .* images/s", first_run)


def test_params_yaml_says_what_was_run_and_keeps_its_comments(finished: Path) -> None:
    text = (finished / "params.yaml").read_text()
    assert re.search("dataset: digits +# cifar10, folders or digits", text)
    assert YAML(typ="safe").load(text)["recipes"]["digits"]["epochs"] == 6


def test_a_second_run_finds_every_stage_unchanged(finished: Path, environment: Environment) -> None:
    before = locked_hashes(finished)
    output = python(finished, environment, "-m", "flows.run")
    assert outcomes(output) == dict.fromkeys(STAGES, "unchanged")
    assert locked_hashes(finished) == before


def test_dvc_repro_has_nothing_to_do_after_a_run(finished: Path, environment: Environment) -> None:
    output = dvc(finished, environment, "repro")
    assert "Running stage" not in output
    assert output.count("didn't change, skipping") == len(STAGES)


def test_the_run_is_saved_as_an_experiment(finished: Path, environment: Environment) -> None:
    listed = dvc(finished, environment, "exp", "list", "--name-only")
    assert re.search(r"^[a-z]+-[a-z]+$", listed.strip(), re.MULTILINE)


def test_the_commands_of_a_dvc_user_work(finished: Path, environment: Environment, tmp_path: Path) -> None:
    metrics = json.loads(dvc(finished, environment, "metrics", "show", "--json"))
    assert metrics[""]["data"]["evaluation/metrics.json"]["data"]["images"] == 270
    plots = dvc(finished, environment, "plots", "show", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text()
    assert "index.html" in plots
    assert all(word in page for word in ("validation_loss", "validation_top1", "Confusion matrix"))
    changes = json.loads(dvc(finished, environment, "params", "diff", "--json"))
    assert changes["params.yaml"]["download.dataset"] == {"old": "cifar10", "new": "digits"}


def test_another_workspace_reaches_the_same_hashes_without_prefect(
    finished: Path, environment: Environment, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    command(tmp_path, environment, "git", "clone", "--quiet", str(finished), str(clone))
    shutil.copy(finished / "params.yaml", clone / "params.yaml")
    dvc(clone, environment, "repro")
    ours, theirs = locked_hashes(clone), locked_hashes(finished)
    # The receipt alone may differ: the second to publish finds the release there.
    for path in ("data/raw", "data/split", "model", "evaluation"):
        assert ours[path] == theirs[path]


def test_data_and_model_come_back_by_dvc_pull(finished: Path, environment: Environment, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    command(tmp_path, environment, "git", "clone", "--quiet", str(finished), str(clone))
    for name in ("dvc.lock", "params.yaml"):
        shutil.copy(finished / name, clone / name)
    dvc(clone, environment, "pull")
    for name in ("data/split/train_images.npy", "model/model.keras", "evaluation/metrics.json", "release/receipt.json"):
        assert (clone / name).read_bytes() == (finished / name).read_bytes()
    output = dvc(clone, environment, "repro")
    assert output.count("didn't change, skipping") == len(STAGES)


def test_a_release_is_made_again_by_the_commands_that_rebuild_prints(finished: Path, environment: Environment) -> None:
    receipt = json.loads((finished / "release" / "receipt.json").read_text())
    plan = json.loads(python(finished, environment, "-m", "tasks.registry", "rebuild", receipt["id"], "--json"))
    assert plan["doubts"] == []
    # All but the installation, which takes minutes: this interpreter's environment is that of the same lock.
    steps = [step["commands"] for step in plan["steps"] if "make environment" not in step["commands"]]
    assert len(steps) == len(plan["steps"]) - 1
    script = "\n".join(["set -euo pipefail", *(line for commands in steps for line in commands)])
    output = command(finished, environment, "bash", "-c", script)
    assert "Running stage 'train'" in output  # computed again, not copied
    assert [line for line in output.splitlines() if line.endswith(": OK")] == [
        "evaluation/metrics.json: OK",
        "model/model.keras: OK",
        "evaluation/probabilities.npy: OK",
        "data/split/split.json: OK",
    ]
    ours, theirs = locked_hashes(finished / ".cache" / f"rebuild-{receipt['id']}"), locked_hashes(finished)
    for path in ("data/raw", "data/split", "model", "evaluation"):
        assert ours[path] == theirs[path]


def test_the_champion_answers_as_the_evaluation_recorded(
    finished: Path, environment: Environment, tmp_path: Path
) -> None:
    images = np.load(finished / "data" / "split" / "test_images.npy")[:20]
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index:02d}.png")
    python(finished, environment, "-m", "tasks.registry", "pull", "champion", str(tmp_path / "champion"))
    paths = [str(path) for path in sorted(tmp_path.glob("*.png"))]
    options = ("--model", str(tmp_path / "champion"), "--top", "10", "--json")
    answers = json.loads(python(finished, environment, "-m", "tasks.predict", *paths, *options))["predictions"]
    classes = json.loads((finished / "data" / "split" / "split.json").read_text())["classes"]
    predicted = [[{c["class"]: c["probability"] for c in a["classes"]}[name] for name in classes] for a in answers]
    recorded = np.load(finished / "evaluation" / "probabilities.npy")[:20]
    np.testing.assert_allclose(predicted, recorded, atol=1e-5)


def test_one_parameter_reruns_exactly_the_stages_that_depend_on_it(finished: Path, environment: Environment) -> None:
    output = python(finished, environment, "-m", "flows.run", "--set", "evaluate.calibration_bins=10")
    untouched = dict.fromkeys(("download", "split", "train"), "unchanged")
    assert outcomes(output) == untouched | {"evaluate": "ran", "publish": "ran"}
    output = python(finished, environment, "-m", "flows.run", "--set", "evaluate.calibration_bins=15")
    assert outcomes(output)["evaluate"] == "restored from an earlier run"


def test_an_experiment_with_another_parameter(finished: Path, environment: Environment) -> None:
    output = dvc(finished, environment, "exp", "run", "--set-param", "recipes.digits.epochs=2", "--name", "short")
    assert "Running stage 'train'" in output
    assert "Running stage 'split'" not in output
    training = json.loads((finished / "model" / "training.json").read_text())
    assert training["epochs_run"] == 2
    assert "short" in dvc(finished, environment, "exp", "list", "--name-only")
