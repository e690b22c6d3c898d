"""The stage publish on a real Keras model and a real S3 server."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from infra.local.object_store import ObjectStore
from tasks.data.arrays import load_arrays
from tasks.errors import InputError
from tasks.params import Params, PublishParams, load_params
from tasks.publish import publish
from tasks.storage.bucket import Bucket
from tasks.storage.client import connect
from tasks.storage.manifest import Manifest
from tasks.storage.pointers import read_channel, read_pointer, resolve
from tasks.storage.releases import list_releases, pull_release
from tests.fixtures.stages import CLASSES, SIZE, write_stages

PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before leave; copied by `workspace`, never written to."""
    root = tmp_path_factory.mktemp("stages")
    write_stages(root)
    return root


@pytest.fixture
def workspace(stages: Path, tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> "Workspace":
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "workspace"
    shutil.copytree(stages, root)
    monkeypatch.chdir(root)
    return Workspace(root, f"tests/{uuid.uuid4().hex}")


class Workspace:
    """A folder with the stages' outputs and a prefix of its own in the test bucket."""

    def __init__(self, root: Path, prefix: str) -> None:
        self.root, self.prefix = root, prefix

    @property
    def bucket(self) -> Bucket:
        return Bucket(connect(), "retrain", self.prefix)

    def params(self, **changes: Any) -> Params:
        chosen = PublishParams.model_validate({"bucket": "retrain", "prefix": self.prefix, **changes})
        return load_params(PARAMS_FILE).model_copy(update={"publish": chosen})

    def publish(self, **changes: Any) -> dict[str, Any]:
        publish(self.params(**changes), Path("data/split"), Path("model"), Path("evaluation"), Path("release"))
        receipt: dict[str, Any] = json.loads(Path("release/receipt.json").read_text())
        return receipt

    def keys(self) -> dict[str, str]:
        listing = self.bucket.client.list_objects_v2(Bucket="retrain", Prefix=self.prefix)
        return {entry["Key"]: f"{entry['ETag']} {entry['LastModified']}" for entry in listing.get("Contents", [])}

    def change_metrics(self, **changes: Any) -> None:
        path = Path("evaluation/metrics.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def refused(self, **changes: Any) -> str:
        """Publish, and return the sentence with which that is refused; nothing may have been lost or published."""
        Path("release").mkdir()
        Path("release/receipt.json").write_text("of the run before")
        with pytest.raises(InputError) as caught:
            self.publish(**changes)
        assert Path("release/receipt.json").read_text() == "of the run before"
        return str(caught.value)


def test_a_release_holds_all_that_was_made_and_where_it_comes_from(workspace: Workspace, tmp_path: Path) -> None:
    Path("runtime").mkdir()
    Path("runtime/train.json").write_text('{"seconds": 12.5, "devices": ["CPU:0"]}')
    receipt = workspace.publish()
    manifest = resolve(workspace.bucket, "champion")
    pull_release(workspace.bucket, manifest, tmp_path / "pulled")
    pulled = tmp_path / "pulled"
    for folder, name in (("model", "model.keras"), ("model", "training.json"), ("model", "summary.txt")):
        assert (pulled / name).read_bytes() == Path(folder, name).read_bytes()
    for name in ("metrics.json", "per_class.json", "probabilities.npy", "report.html"):
        assert (pulled / name).read_bytes() == Path("evaluation", name).read_bytes()
    assert json.loads((pulled / "labels.json").read_text()) == list(CLASSES)
    assert (pulled / "saved_model/1/saved_model.pb").is_file()
    assert "top-1" in (pulled / "README.md").read_text()
    metrics = json.loads(Path("evaluation/metrics.json").read_text())
    assert receipt == {
        "id": manifest.id,
        "uri": f"s3://retrain/{workspace.prefix}/releases/{manifest.id}",
        "bucket": "retrain",
        "prefix": workspace.prefix,
        "top1": metrics["top1"],
        "already_published": False,
        "champion": True,
        "verdict": [f"top-1 {100 * metrics['top1']:.2f} % reaches the floor of 0.00 %", "there is no champion yet"],
    }
    assert manifest.metrics == metrics
    assert manifest.parameters["recipes"].keys() == {"fast"}
    assert manifest.data["content_sha256"]["test"] == metrics["test_sha256"]
    assert manifest.runtime == {"train": {"seconds": 12.5, "devices": ["CPU:0"]}}
    assert manifest.environment["tensorflow"] == tf.__version__
    assert manifest.git is None  # the workspace of this test is no repository


def test_the_saved_model_serves_uint8_images(workspace: Workspace, tmp_path: Path) -> None:
    workspace.publish()
    pull_release(workspace.bucket, resolve(workspace.bucket, "candidate"), tmp_path / "pulled")
    serve = tf.saved_model.load(str(tmp_path / "pulled/saved_model/1")).signatures["serving_default"]
    ((_, wanted),) = serve.structured_input_signature[1].items()
    assert (wanted.dtype, wanted.shape.as_list()) == (tf.uint8, [None, SIZE, SIZE, 3])
    (answers,) = serve(images=tf.constant(load_arrays(Path("data/split"), "test").images)).values()
    recorded = np.load("evaluation/probabilities.npy")
    np.testing.assert_allclose(answers.numpy(), recorded, atol=1e-5)


def test_publishing_twice_changes_nothing(workspace: Workspace) -> None:
    first, before = workspace.publish(), workspace.keys()
    second = workspace.publish()
    assert workspace.keys() == before
    assert second == {**first, "already_published": True, "verdict": ["it is the champion already"]}


def test_a_publisher_that_died_before_the_channels_is_completed(workspace: Workspace) -> None:
    receipt = workspace.publish()
    for channel in ("candidate", "champion"):
        workspace.bucket.client.delete_object(Bucket="retrain", Key=f"{workspace.prefix}/channels/{channel}.json")
    workspace.publish()
    for channel in ("candidate", "champion"):
        assert resolve(workspace.bucket, channel).id == receipt["id"]


def _channels(workspace: Workspace) -> tuple[str, str]:
    return resolve(workspace.bucket, "candidate").id, resolve(workspace.bucket, "champion").id


@pytest.mark.parametrize(("top1", "wins"), [(0.5, True), (0.51, True), (0.49, False)])
def test_the_champion_moves_only_to_one_that_is_not_worse(workspace: Workspace, top1: float, wins: bool) -> None:
    workspace.change_metrics(top1=0.5)
    first = workspace.publish()
    workspace.change_metrics(top1=top1, log_loss=1.23)
    second = workspace.publish()
    assert second["champion"] is wins
    assert _channels(workspace) == (second["id"], second["id"] if wins else first["id"])
    manifest = resolve(workspace.bucket, second["id"])
    assert manifest.parent == first["id"]
    assert list(manifest.verdict) == second["verdict"]


def test_another_test_set_does_not_move_the_champion(workspace: Workspace) -> None:
    first = workspace.publish()
    shutil.rmtree("data")
    shutil.rmtree("model")
    shutil.rmtree("evaluation")
    write_stages(Path(), top1=1.0, test_seed=8)
    second = workspace.publish()
    assert _channels(workspace) == (second["id"], first["id"])
    assert "another test set" in second["verdict"][1]


def test_a_release_below_the_floor_is_published_but_not_champion(workspace: Workspace) -> None:
    workspace.change_metrics(top1=0.5)
    receipt = workspace.publish(minimum_top1=0.6)
    assert receipt["champion"] is False
    assert receipt["verdict"][0] == "top-1 50.00 % is below the floor of 60.00 %"
    assert resolve(workspace.bucket, "candidate").id == receipt["id"]
    assert read_channel(workspace.bucket, "champion") is None
    accepted = workspace.publish(minimum_top1=0.5)
    assert accepted["champion"] is True
    pointer = read_pointer(workspace.bucket, "champion")
    assert pointer is not None
    assert pointer.current.reason == "; ".join(accepted["verdict"])


def _published(workspace: Workspace) -> list[Manifest]:
    return list(list_releases(workspace.bucket))


def test_a_model_that_was_altered_is_refused(workspace: Workspace) -> None:
    data = bytearray(Path("model/model.keras").read_bytes())
    data[len(data) // 2] ^= 1
    Path("model/model.keras").write_bytes(data)
    sentence = workspace.refused()
    assert sentence.startswith("model/model.keras was altered")
    assert _published(workspace) == []


def test_predictions_that_are_not_the_models_are_refused(workspace: Workspace) -> None:
    recorded = np.load("evaluation/probabilities.npy")
    recorded[-1] = recorded[-1][::-1]
    np.save("evaluation/probabilities.npy", recorded)
    assert "does not reproduce the recorded predictions" in workspace.refused()
    assert _published(workspace) == []


def test_an_evaluation_of_other_images_is_refused(workspace: Workspace) -> None:
    workspace.change_metrics(test_sha256="0" * 64)
    assert "measured on other test images" in workspace.refused()


@pytest.mark.parametrize(
    "path", ["model/model.keras", "model/training.json", "evaluation/metrics.json", "evaluation/probabilities.npy"]
)
def test_a_missing_file_is_named(workspace: Workspace, path: str) -> None:
    Path(path).unlink()
    assert workspace.refused().startswith(f"{path} does not exist; run the stage ")


def test_an_unreachable_store_is_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        assert workspace.refused() == f"the object store at {endpoint} cannot be reached; is it running?"


def test_wrong_credentials_are_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "PLANTED")
    sentence = workspace.refused()
    assert "does not accept the S3 credentials" in sentence
    assert "PLANTED" not in sentence


def test_a_missing_bucket_is_said(workspace: Workspace) -> None:
    assert "bucket 'no-such-bucket' does not exist" in workspace.refused(bucket="no-such-bucket")


def test_a_full_disk_loses_nothing(workspace: Workspace, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    first = workspace.publish()
    workspace.change_metrics(log_loss=9.0)
    with contextlib.suppress(OSError):
        (small_disk / "filling").write_bytes(bytes(1 << 20))
    with pytest.raises(OSError, match="No space left on device"):
        workspace.publish()
    assert json.loads(Path("release/receipt.json").read_text()) == first
    assert [manifest.id for manifest in _published(workspace)] == [first["id"]]
    assert [path.name for path in small_disk.iterdir()] == ["filling"]


def test_no_credential_is_in_what_is_published(workspace: Workspace, object_store: ObjectStore) -> None:
    workspace.publish()
    secrets = [object_store.access_key.encode(), object_store.secret_key.encode()]
    for key in list(workspace.keys()):
        body = workspace.bucket.client.get_object(Bucket="retrain", Key=key)["Body"].read()
        assert not any(secret in body for secret in secrets), key
    assert not any(secret in Path("release/receipt.json").read_bytes() for secret in secrets)


def test_the_command_ends_with_one_sentence_and_status_2(workspace: Workspace) -> None:
    shutil.copy(PARAMS_FILE, "params.yaml")
    Path("model/model.keras").write_bytes(b"altered")
    done = subprocess.run(
        [sys.executable, "-m", "tasks.publish"],
        env={**os.environ, "PYTHONPATH": str(PARAMS_FILE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("publish: model/model.keras was altered")
    assert "Traceback" not in done.stderr
