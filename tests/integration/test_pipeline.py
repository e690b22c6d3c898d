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
from tasks.params.address import DOWNLOAD_URL
from tasks.registry.signatures import SIGNING_KEY
from tasks.registry.signing import generate_key
from tasks.s3.client import connect
from tasks.stage.shown import percent
from tests.fixtures.secrets import spellings

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("download", "split", "weights", "train", "evaluate", "publish")
SETTINGS = ("download.dataset=digits", "train.recipe=digits", "recipes.digits.epochs=6", "publish.prefix=pipeline")
REMOTE = "s3://retrain/pipeline-test"

# Beside the credentials of the object store and the private key; none may be written or said anywhere. The store knows
# no session's token and refuses whoever brings one.
# Put together here, since this file is in the clone that is searched.
USER, PASSWORD, SIGNATURE, TOKEN = (f"planted-{what}" for what in ("user", "password", "signature", "token+/=="))
PLANTED_URL = f"http://{USER}:{PASSWORD}@127.0.0.1:1/archive.tar.gz?X-Amz-Signature={SIGNATURE}"

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


SIGNED_BY = re.compile(rb"(?:X-Amz-Credential|AWSAccessKeyId)=\w+")


@pytest.fixture(scope="module")
def environment(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT_", "DVC_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    author = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    generate_key(key := tmp_path_factory.mktemp("keys") / "release.key")
    planted = {SIGNING_KEY: str(key), DOWNLOAD_URL: PLANTED_URL}
    return clean | dict(object_store.environment) | author | {"PATH": path} | planted


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
    top1 = percent(metrics["top1"])
    assert metrics["top1"] > 0.8
    assert receipt["top1"] == metrics["top1"] == shown["metrics"]["top1"]
    assert f"top-1 {top1} (95 % interval" in first_run
    assert "on 270 test images of digits" in first_run
    assert top1.replace(" ", "\u00a0") in (repository / "evaluation" / "report.html").read_text()
    for wanted in ("evaluation/report.html", receipt["uri"], "tasks.predict", "tasks.registry", "make up"):
        assert wanted in first_run
    assert re.search(r"train +\[100\.0%\] epoch 6/6, step 11/11, loss .*, top-1 .* images/s", first_run)


@pytest.fixture(scope="module")
def secrets(environment: Environment) -> list[bytes]:
    """Every spelling of every credential that the runs are given."""
    private = Path(environment[SIGNING_KEY]).read_text().splitlines()[1]
    planted = [USER, PASSWORD, SIGNATURE, TOKEN, private]
    return spellings([environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], *planted])


def test_no_secret_is_in_anything_that_a_run_wrote(
    finished: Path, first_run: str, environment: Environment, object_store: ObjectStore, secrets: list[bytes]
) -> None:
    written = {"the run's output": first_run.encode()}
    written |= {str(path): path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    git = ("git", "cat-file", "--batch", "--batch-all-objects", "--buffer")
    done = subprocess.run(git, cwd=finished, env=environment, capture_output=True, check=True)
    written["git's history"] = done.stdout
    client = connect(object_store.environment)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="retrain", Prefix="pipeline"):
        for entry in page["Contents"]:
            body = client.get_object(Bucket="retrain", Key=entry["Key"])["Body"].read()
            written[f"s3://{entry['Key']}"] = body
    for wanted in ("dvc.lock", "evaluation/report.html", "runtime/train.json", "prefect.db", "manifest.json", ".dir"):
        assert any(wanted in name for name in written), wanted
    # A link to the report names the key that signed it, which is no secret, and holds no other.
    written = {name: SIGNED_BY.sub(b"", body) if "prefect.db" in name else body for name, body in written.items()}
    assert [name for name, body in written.items() if any(secret in body for secret in secrets)] == []


def test_no_secret_is_in_what_a_failure_says(
    finished: Path, environment: Environment, tmp_path: Path, secrets: list[bytes]
) -> None:
    wrong = {"AWS_SECRET_ACCESS_KEY": environment["AWS_SECRET_ACCESS_KEY"][::-1]}
    shutil.copytree(finished / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy(finished / name, tmp_path)
    parameters = (tmp_path / "params.yaml").read_text().replace("dataset: digits", "dataset: cifar10")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10/params.yaml").write_text(parameters)
    (tmp_path / "url").mkdir()
    (tmp_path / "url/params.yaml").write_text(parameters.replace("url:", f"url: {PLANTED_URL} #", 1))
    attempts: list[tuple[list[str], str, dict[str, str]]] = [
        (["tasks.registry", "show"], "", wrong),
        (["tasks.registry", "show"], "", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}),
        (["tasks.registry", "show"], "", {"AWS_ENDPOINT_URL_S3": PLANTED_URL}),
        (["tasks.registry", "show"], "", {"AWS_ENDPOINT_URL": f"http://{USER}:{PASSWORD}@[::1"}),
        (["tasks.download"], "cifar10", {}),
        (
            ["tasks.download"],
            "cifar10",
            {DOWNLOAD_URL: f"http://{USER}:{PASSWORD}@[::1/a?sig={SIGNATURE}"},
        ),
        (["tasks.download"], "url", {}),
        (["dvc", "pull", "--verbose"], "", wrong),
        (["dvc", "pull", "--verbose"], "", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}),
    ]
    for arguments, folder, changes in attempts:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path / folder,
            env=environment | {"PYTHONPATH": str(REPOSITORY), "AWS_SESSION_TOKEN": TOKEN} | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        words = done.stdout
        assert done.returncode != 0, words
        assert not [secret for secret in [*secrets, wrong["AWS_SECRET_ACCESS_KEY"].encode()] if secret in words], words
        assert arguments[0] == "dvc" or b"Traceback" not in words


def test_params_yaml_says_what_was_run_and_keeps_its_comments(finished: Path) -> None:
    text = (finished / "params.yaml").read_text()
    assert re.search("dataset: digits +# cifar10, folders or digits", text)
    assert YAML(typ="safe").load(text)["recipes"]["digits"]["epochs"] == 6


def test_a_second_run_finds_every_stage_unchanged(finished: Path, environment: Environment) -> None:
    before = locked_hashes(finished)
    output = python(finished, environment, "-m", "flows.run")
    assert "nothing is new, so Prefect is not started" in output
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


def test_a_release_is_made_again_in_a_clone_by_the_commands_that_rebuild_prints(
    finished: Path, environment: Environment
) -> None:
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


@pytest.mark.long  # a minute of real training; test_flow.py and test_stale_stages.py say the same of small stages
def test_one_parameter_reruns_exactly_the_stages_that_depend_on_it(finished: Path, environment: Environment) -> None:
    output = python(finished, environment, "-m", "flows.run", "--set", "evaluate.calibration_bins=10")
    untouched = dict.fromkeys(("download", "split", "weights", "train"), "unchanged")
    assert outcomes(output) == untouched | {"evaluate": "ran", "publish": "ran"}


@pytest.mark.long  # test_experiments.py has several at once
def test_an_experiment_with_another_parameter(finished: Path, environment: Environment) -> None:
    output = dvc(finished, environment, "exp", "run", "--set-param", "recipes.digits.epochs=2", "--name", "short")
    assert "Running stage 'train'" in output
    assert "Running stage 'split'" not in output
    training = json.loads((finished / "model" / "training.json").read_text())
    assert training["epochs_run"] == 2
    assert "short" in dvc(finished, environment, "exp", "list", "--name-only")
