"""A release answers from the bucket as recorded, or the check says what is wrong with it."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.registry import reload as module
from tasks.registry.channels import resolve
from tasks.registry.releases import pull_release
from tasks.registry.reload import (
    as_recorded,
    checked_positions,
    choose_checked_images,
    reload_in_clean_process,
    reloads,
    serves,
)
from tasks.stage.errors import OutageError
from tests.fixtures.published import PARAMS_FILE, Workspace

ALLOWED = 1e-5


@pytest.fixture
def release(workspace: Workspace, tmp_path: Path) -> Path:
    """The champion, pulled."""
    pull_release(workspace.bucket, resolve(workspace.bucket, "champion"), tmp_path / "release")
    return tmp_path / "release"


def test_checked_images_are_spread_over_all() -> None:
    assert checked_positions(24, 16).tolist() == sorted(set(checked_positions(24, 16).tolist()))
    assert checked_positions(24, 16)[[0, -1]].tolist() == [0, 23]
    assert checked_positions(1, 1).tolist() == [0]


@pytest.mark.parametrize(
    ("count", "size", "chosen"), [(24, 8, 16), (5, 8, 5), (100, 600, 3), (2, 1300, 1), (10_000, 32, 16)]
)
def test_few_images_are_carried_and_large_ones_fewer(count: int, size: int, chosen: int) -> None:
    images = np.broadcast_to(np.zeros((), np.uint8), (count, size, size, 3))
    assert len(choose_checked_images(images)) == chosen
    assert chosen == 1 or chosen * images[0].nbytes <= module.MAX_BYTES


def test_a_release_that_answers_as_recorded_passes(release: Path) -> None:
    for finding in (reloads(release, ALLOWED), serves(release, ALLOWED)):
        assert finding.passed
        assert "reproduces the recorded answers to 16 test images" in finding.sentence


def test_other_answers_than_recorded_are_refused_with_the_difference(release: Path) -> None:
    recorded = np.load(release / "probabilities.npy")
    recorded[0] += np.array([0.001, -0.001, 0], np.float32)
    np.save(release / "probabilities.npy", recorded)
    for finding in (reloads(release, ALLOWED), serves(release, ALLOWED)):
        assert not finding.passed
        assert "it differs by 0.001 at most, 1e-05 is allowed" in finding.sentence
        assert finding.figures["difference"] == pytest.approx(0.001, rel=1e-3)
    assert reloads(release, 0.0011).passed


def test_answers_that_are_no_numbers_are_refused(release: Path) -> None:
    np.save(release / "probabilities.npy", np.full((24, 3), np.nan, np.float32))
    finding = reloads(release, ALLOWED)
    assert not finding.passed
    assert "difference" not in finding.figures


def test_answers_of_another_shape_are_refused(release: Path) -> None:
    np.save(release / "probabilities.npy", np.zeros((24, 1), np.float32))
    assert "its answers have shape (16, 3), the recorded ones (16, 1)" in reloads(release, ALLOWED).sentence


def test_a_model_that_does_not_load_is_a_finding(release: Path) -> None:
    (release / "model.keras").write_bytes(b"no archive")
    finding = reloads(release, ALLOWED)
    assert not finding.passed
    assert finding.sentence.startswith("model.keras does not answer: model.keras is not a Keras model")
    assert serves(release, ALLOWED).passed


def test_a_saved_model_that_does_not_serve_is_a_finding(release: Path) -> None:
    shutil.rmtree(release / "saved_model")
    finding = serves(release, ALLOWED)
    assert not finding.passed
    assert finding.sentence.startswith("saved_model/1's serving_default does not answer: ")
    assert reloads(release, ALLOWED).passed


def test_a_release_without_images_to_answer_is_a_finding(release: Path) -> None:
    (release / "checked_images.npy").unlink()
    assert reloads(release, ALLOWED).sentence == "model.keras does not answer: the release has no checked_images.npy"


def test_a_process_that_ends_without_an_answer_is_a_finding(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")  # no Python starts
    findings = reload_in_clean_process(workspace.bucket, resolve(workspace.bucket, "champion"), ALLOWED)
    assert [(finding.rule, finding.passed) for finding in findings] == [("reloads", False), ("serves", False)]
    assert findings[0].sentence.startswith("the process that reloads it ended with status 1: ")


def test_a_process_that_does_not_end_is_a_finding(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.01)
    findings = reload_in_clean_process(workspace.bucket, resolve(workspace.bucket, "champion"), ALLOWED)
    assert findings[0].sentence == "the process that reloads it did not end within 0 s"


def test_a_store_in_trouble_is_an_error_and_no_finding(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, manifest = workspace.bucket, resolve(workspace.bucket, "champion")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(OutageError, match="cannot be reached; is it running"):
            reload_in_clean_process(bucket, manifest, ALLOWED)


@pytest.mark.parametrize("runs", [False, True])
def test_anybody_can_check_a_release_and_runs_its_saved_model_only_if_he_says_so(
    workspace: Workspace, runs: bool
) -> None:
    shutil.copy(PARAMS_FILE, "params.yaml")
    option = ["--run-saved-model"] if runs else []
    done = subprocess.run(
        [sys.executable, "-m", "tasks.registry.reload", "champion", "--prefix", workspace.prefix, *option],
        env={**os.environ, "PYTHONPATH": str(PARAMS_FILE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("✓ model.keras reproduces the recorded answers to 16 test images")
    assert second.startswith(f"{'✓' if runs else '?'} saved_model/1's serving_default reproduces")
    assert ("no trusted key signed it, so it was not run now" in second) is not runs


def test_what_a_publisher_recorded_counts_up_to_the_difference_that_is_allowed(workspace: Workspace) -> None:
    champion = resolve(workspace.bucket, "champion")
    assert as_recorded(champion, ALLOWED).passed
    assert not as_recorded(champion, -1.0).passed
    assert not as_recorded(champion.model_copy(update={"verdict": ()}), ALLOWED).passed
