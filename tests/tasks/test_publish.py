"""The stage publish on a real Keras model and a real S3 server."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from infra.local.object_store import ObjectStore
from tasks.data.arrays import load_arrays
from tasks.data.hashes import FIT_HASHES, TEST_HASHES, Hashes, load_hashes
from tasks.models.start import START_HASHES
from tasks.registry.actor import current_actor
from tasks.registry.channels import read_pointer, resolve
from tasks.registry.manifest import Manifest
from tasks.registry.offer import examined
from tasks.registry.recorded_answers import fetch_hashes
from tasks.registry.releases import list_releases, pull_release
from tasks.registry.signatures import TrustedKeys
from tasks.registry.store import Store
from tasks.stage.files import sha256_of
from tests.fixtures.published import PARAMS_FILE, RIGHT, Published, Workspace, channels, rules
from tests.fixtures.stages import CLASSES, SIZE

# What a release holds


def test_a_release_holds_all_that_was_made_and_where_it_comes_from(
    published: Published, workspace: Workspace, tmp_path: Path
) -> None:
    manifest = resolve(workspace.bucket, "champion")
    pull_release(workspace.bucket, manifest, tmp_path / "pulled")
    pulled = tmp_path / "pulled"
    for folder, name in (("model", "model.keras"), ("model", "training.json")):
        assert (pulled / name).read_bytes() == Path(folder, name).read_bytes()
    for name in ("metrics.json", "per_class.json", "probabilities.npy", "report.html"):
        assert (pulled / name).read_bytes() == Path("evaluation", name).read_bytes()
    assert json.loads((pulled / "labels.json").read_text()) == list(CLASSES)
    assert (pulled / "saved_model/1/saved_model.pb").is_file()
    assert "top-1" in (pulled / "README.md").read_text()
    metrics = json.loads(Path("evaluation/metrics.json").read_text())
    assert json.loads((published[0].root / "release/receipt.json").read_text()) == {
        "id": manifest.id,
        "uri": f"s3://retrain/{published[0].prefix}/releases/{manifest.id}",
        "bucket": "retrain",
        "prefix": published[0].prefix,
        "top1": 0.75,
    }
    assert manifest.metrics == metrics
    assert manifest.parameters["recipes"].keys() == {"fast"}
    assert manifest.data["content_sha256"]["test"] == metrics["test_sha256"]
    assert manifest.runtime == {
        "train": {"seconds": 12.5, "devices": ["CPU:0"], "strategy": "MirroredStrategy"},
    }
    assert manifest.environment["tensorflow"] == tf.__version__
    assert manifest.git is None  # the workspace of this test is no repository


def test_what_the_publication_did_not_examine_is_examined_by_the_offer(workspace: Workspace) -> None:
    unexamined = resolve(workspace.bucket, "champion").model_copy(update={"verdict": ()})
    found = examined(workspace.bucket, unexamined, 1e-5)
    assert {finding.rule: finding.passed for finding in found} == {"reloads": True, "serves": False}
    assert found[1].sentence.startswith("saved_model/1 is not known to answer: it is a program, and no trusted key")
    signed = replace(workspace.bucket, trust=TrustedKeys({}))  # a reader of it has checked who signed the manifest
    assert all(finding.passed for finding in examined(signed, unexamined, 1e-5))


def test_the_verdict_lists_every_rule_with_its_figures(published: Published, workspace: Workspace) -> None:
    verdict = published[1]["verdict"]
    assert rules(verdict, True) == [
        "reaches_floor",
        "beats_the_largest_class",
        "was_not_rolled_back",
        "was_not_beaten",
        "reloads",
        "serves",
    ]
    assert verdict[0]["figures"] == {"top1": 0.75, "minimum_top1": 0.0}
    for finding in verdict[-2:]:
        assert finding["figures"]["images"] == 16
        assert finding["figures"]["difference"] <= finding["figures"]["largest_answer_difference"] == 1e-5
    manifest = resolve(workspace.bucket, "champion")
    assert [each.model_dump() for each in manifest.verdict if not isinstance(each, str)] == list(verdict)
    pointer = read_pointer(workspace.bucket, "champion")
    assert pointer is not None
    assert pointer.current.reason == "; ".join(manifest.sentences)
    assert pointer.current.actor == current_actor()


def test_the_saved_model_serves_uint8_images(workspace: Workspace, tmp_path: Path) -> None:
    pull_release(workspace.bucket, resolve(workspace.bucket, "candidate"), tmp_path / "pulled")
    serve = tf.saved_model.load(str(tmp_path / "pulled/saved_model/1")).signatures["serving_default"]
    ((_, wanted),) = serve.structured_input_signature[1].items()
    assert (wanted.dtype, wanted.shape.as_list()) == (tf.uint8, [None, SIZE, SIZE, 3])
    (answers,) = serve(images=tf.constant(load_arrays(Path("data/split"), "test").images)).values()
    recorded = np.load("evaluation/probabilities.npy")
    np.testing.assert_allclose(answers.numpy(), recorded, atol=1e-5)


def test_publishing_twice_changes_nothing(published: Published, workspace: Workspace) -> None:
    before = workspace.objects()
    first, second = workspace.publish(), workspace.publish()
    assert workspace.objects() == before
    assert first == second
    assert first["id"] == published[1]["id"]


def test_publishing_moves_no_channel(new_workspace: Workspace) -> None:
    receipt = new_workspace.publish()
    assert [manifest.id for manifest in _published(new_workspace)] == [receipt["id"]]
    assert read_pointer(new_workspace.bucket, "candidate") is read_pointer(new_workspace.bucket, "champion") is None


# What a release that began from another has seen


def begin_from(release: str, seen: Hashes) -> None:
    """Have the workspace's model say that training began from a release which has seen these images."""
    np.save(Path("model") / START_HASHES, seen)
    path = Path("model/training.json")
    sha256 = sha256_of(Path("model") / START_HASHES)
    start = {"release": release, "model_sha256": "0" * 64, "fit_hashes_sha256": sha256, "shrink_perturb": None}
    path.write_text(json.dumps({**json.loads(path.read_text()), "start": start}))


def test_what_its_start_has_seen_it_has_seen_too_though_it_is_gone_from_the_data(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 24 test images ten were training images of the start, which are training images of nobody today."""
    workspace.retrain(right=RIGHT + 1, confidence=0.8, trained_on=(9, 3))
    own, tested = (load_hashes(Path("data/split") / name) for name in (FIT_HASHES, TEST_HASHES))
    gone = np.array([7, 8], np.uint64)
    begin_from("0123456789abcdef", np.unique(np.concatenate([gone, tested[:10, 0]])))
    offered = workspace.publish_and_offer()
    release = resolve(workspace.bucket, offered["id"])
    fit, _ = fetch_hashes(workspace.bucket, release, tmp_path)
    assert fit is not None
    assert fit.tolist() == sorted({*own.tolist(), *gone.tolist(), *tested[:10, 0].tolist()})
    assert START_HASHES not in [entry.path for entry in release.files]
    compared = next(each for each in offered["verdict"] if each["rule"] == "enough_to_compare")
    assert "on 14 of 24 test images, without 10 that one of them trained on" in compared["sentence"]
    assert (
        "10 test images are such as release 0123456789abcdef, with which it began, has seen" in capsys.readouterr().out
    )
    pull_release(workspace.bucket, release, tmp_path / "pulled")
    assert "Of the test images 10 are among that" in (tmp_path / "pulled/README.md").read_text()
    said = "it began with the weights of release 0123456789abcdef, and has seen what that has"
    assert said in next(each for each in offered["verdict"] if each["rule"] == "tells_start")["sentence"]
    pointer = read_pointer(workspace.bucket, "champion")
    assert pointer is not None
    assert (pointer.current.release, said in pointer.current.reason) == (release.id, True)


def test_what_the_start_has_seen_is_neither_lost_nor_altered(new_workspace: Workspace) -> None:
    begin_from("0123456789abcdef", np.array([7], np.uint64))
    np.save(Path("model") / START_HASHES, np.array([8], np.uint64))
    sentence = new_workspace.refused()
    assert sentence == "model/start_fit_hashes.npy is not what train recorded in training.json; run train again"
    (Path("model") / START_HASHES).unlink()
    shutil.rmtree("release")
    assert new_workspace.refused() == sentence
    assert _published(new_workspace) == []


# What is refused altogether


def test_a_damaged_upload_is_noticed_before_it_is_a_release(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Store.upload

    def damaged(self: Store, source: Path, key: str, sha256: str) -> None:
        upload(self, source, key, sha256)
        if key.endswith("model.keras"):
            body = bytearray(source.read_bytes())
            body[len(body) // 2] ^= 1
            self.client.put_object(Bucket=self.name, Key=f"{self.prefix}/{key}", Body=bytes(body))

    before = channels(workspace)
    workspace.retrain(right=RIGHT + 1)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "upload", damaged)
        assert "model.keras was altered" in workspace.refused()
    assert [manifest.id for manifest in _published(workspace)] == [before[0]]
    assert channels(workspace) == before


def _published(workspace: Workspace) -> list[Manifest]:
    return list(list_releases(workspace.bucket))


def test_a_model_that_was_altered_is_refused(new_workspace: Workspace) -> None:
    data = bytearray(Path("model/model.keras").read_bytes())
    data[len(data) // 2] ^= 1
    Path("model/model.keras").write_bytes(data)
    sentence = new_workspace.refused()
    assert sentence.startswith("model/model.keras was altered")
    assert _published(new_workspace) == []


def test_predictions_that_are_not_the_models_are_refused(new_workspace: Workspace) -> None:
    recorded = np.load("evaluation/probabilities.npy")
    recorded[-1] = np.roll(recorded[-1], 1)
    np.save("evaluation/probabilities.npy", recorded)
    assert "does not reproduce the recorded answers" in new_workspace.refused()
    assert _published(new_workspace) == []


def test_an_evaluation_of_other_images_is_refused(new_workspace: Workspace) -> None:
    new_workspace.change_metrics(test_sha256="0" * 64)
    assert "measured on other test images" in new_workspace.refused()


def test_metrics_that_are_not_those_of_the_predictions_are_refused(new_workspace: Workspace) -> None:
    new_workspace.change_metrics(top1=0.76)
    assert "says top-1 0.76, but probabilities.npy gives 0.75; run evaluate again" in new_workspace.refused()


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
        assert workspace.refused().startswith(f"the object store at {endpoint} cannot be reached; is it running?")


def test_wrong_credentials_are_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "PLANTED")
    sentence = workspace.refused()
    assert "does not accept the S3 credentials" in sentence
    assert "PLANTED" not in sentence


def test_a_missing_bucket_is_said(workspace: Workspace) -> None:
    assert "bucket 'no-such-bucket' does not exist" in workspace.refused(bucket="no-such-bucket")


def test_a_full_disk_loses_nothing(workspace: Workspace, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = workspace.publish()
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    workspace.change_metrics(log_loss=9.0)
    with contextlib.suppress(OSError):
        (small_disk / "filling").write_bytes(bytes(1 << 20))
    with pytest.raises(OSError, match="No space left on device"):
        workspace.publish()
    assert json.loads(Path("release/receipt.json").read_text()) == first
    assert [manifest.id for manifest in _published(workspace)] == [first["id"]]
    assert [path.name for path in small_disk.iterdir()] == ["filling"]


def test_no_credential_is_in_what_is_published(workspace: Workspace, object_store: ObjectStore) -> None:
    workspace.publish()  # for the receipt; the rest is there
    secrets = [object_store.access_key.encode(), object_store.secret_key.encode()]
    for key in workspace.objects():
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
