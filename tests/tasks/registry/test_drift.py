"""How a champion does on what came: a real release in a real S3 server, asked about real arrays."""

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.data.arrays import SPLITS, load_arrays
from tasks.data.hashes import FIT_HASHES, TEST_HASHES, load_hashes
from tasks.model_files.files import load_model
from tasks.params.data import SplitParams
from tasks.registry.champion_answers import CACHE
from tasks.registry.channels import resolve
from tasks.registry.drift import MAX_ASKED, Asked, Drift, asked_through, measure_drift
from tasks.split import split
from tests.fixtures.archives import make_raw, write_tar
from tests.fixtures.published import Workspace
from tests.fixtures.stages import CLASSES, SIZE

PARAMS = SplitParams(method="stable", validation_fraction=0.1, test_fraction=0.2, image_size=SIZE)


def divided(
    folder: Path, count: int, classes: tuple[str, ...] = CLASSES, width: int = SIZE, params: SplitParams = PARAMS
) -> Path:
    """Divide the first so many images of an endless collection, of which each class has every n-th."""
    files = {}
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream := io.BytesIO(), "png")
        files[f"{classes[number % len(classes)]}/{number}.png"] = stream.getvalue()
    folder.mkdir()
    split(params, make_raw(folder / "raw", "folders", write_tar(folder / "images.tar", files)), folder / "split")
    return folder / "split"


def publish_one_that_knows(workspace: Workspace, known: Path) -> None:
    """Make champion a release that trained, chose and was tested on a data set."""
    workspace.retrain(right=20)
    for name in (FIT_HASHES, TEST_HASHES):
        hashes = load_hashes(known / name)
        hashes = np.resize(hashes, (24, 2)) if name == TEST_HASHES else hashes
        np.save(Path("data/split") / name, hashes)
    assert workspace.publish_and_offer()["champion"]


def asked(workspace: Workspace, now: Path) -> Asked:
    return asked_through(workspace.bucket, 500, PARAMS, now.parent / "raw")


def drift_of(workspace: Workspace, now: Path) -> Drift:
    drift = measure_drift(workspace.bucket, resolve(workspace.bucket, "champion"), now, asked(workspace, now))
    assert drift is not None
    return drift


def test_what_came_is_what_the_champion_has_not_seen_and_it_is_asked(workspace: Workspace, tmp_path: Path) -> None:
    publish_one_that_knows(workspace, divided(tmp_path / "then", 60))
    drift = drift_of(workspace, now := divided(tmp_path / "now", 90))
    assert (drift.images, drift.came, drift.asked) == (90, 30, 30)
    assert (drift.own_images, drift.own_top1) == (24, 20 / 24)
    network, right = load_model(Path("model/model.keras")), 0
    fit, tested = (load_hashes(tmp_path / "then/split" / name) for name in (FIT_HASHES, TEST_HASHES))
    seen = {int(each) for each in (*fit, *tested.ravel())}
    for part in SPLITS:
        arrays = load_arrays(now, part)
        for image, label in zip(arrays.images, arrays.labels, strict=True):
            if int(hashlib.sha256(image.tobytes()).hexdigest()[:16], 16) not in seen:
                right += int(network.predict(image[None], verbose=0).argmax() == label)
    assert drift.right == right
    assert drift.sentence.startswith(f"30 of 90 images came since the champion {drift.champion} was made: it is right")
    assert drift.p_value < 0.05  # noise: a third is right, by chance
    assert drift.classes_p_value == pytest.approx(1.0)
    assert len(list(CACHE.iterdir())) == 1
    assert drift_of(workspace, now) == drift


def test_a_champion_that_knows_all_is_not_asked(workspace: Workspace, tmp_path: Path) -> None:
    publish_one_that_knows(workspace, now := divided(tmp_path / "now", 60))
    drift = drift_of(workspace, now)
    assert (drift.came, drift.asked, drift.sentence[-26:]) == (0, 0, "knows all of the 60 images")
    assert not CACHE.exists()


def test_of_classes_that_the_champion_does_not_know_nothing_is_asked(workspace: Workspace, tmp_path: Path) -> None:
    publish_one_that_knows(workspace, divided(tmp_path / "then", 60))
    drift = drift_of(workspace, divided(tmp_path / "now", 120, (*CLASSES, "dog")))
    assert (drift.came, drift.asked) == (60, 45)
    assert drift.classes_p_value > 0.5


def test_a_champion_of_another_fit_is_asked_about_what_came_as_it_knows_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    wide = 3 * SIZE
    publish_one_that_knows(workspace, divided(tmp_path / "then", 60, width=wide))
    squashed = drift_of(workspace, divided(tmp_path / "squashed", 90, width=wide))
    crop = PARAMS.model_copy(update={"fit": "crop"})
    cropped = drift_of(workspace, divided(tmp_path / "cropped", 90, width=wide, params=crop))
    assert (cropped.problem, cropped.came, cropped.asked) == ("", 30, 30)
    assert cropped == squashed
    assert len(list(CACHE.iterdir())) == 2  # of two questions
    (tmp_path / "cropped/raw/images.tar").unlink()
    shutil.rmtree(CACHE)
    assert "it does not answer (" in drift_of(workspace, tmp_path / "cropped/split").problem


def test_of_very_many_a_sample_is_asked(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.registry.drift.MAX_ASKED", 20)
    publish_one_that_knows(workspace, divided(tmp_path / "then", 60))
    drift = drift_of(workspace, divided(tmp_path / "now", 120))
    assert (drift.came, drift.asked) == (60, 20)
    assert "of 20 of them" in drift.sentence
    assert MAX_ASKED == 5_000


def test_shares_of_classes_that_change_and_answers_that_change_are_told(workspace: Workspace, tmp_path: Path) -> None:
    publish_one_that_knows(workspace, divided(tmp_path / "then", 60))
    ants = ("ant", "bee", "cat", "ant", "ant", "ant", "ant", "ant", "ant")
    drift = drift_of(workspace, divided(tmp_path / "now", 180, ants))
    assert drift.classes_p_value < 0.01
    assert drift.answers_p_value < 0.01  # it is sure of its own test images, and not of noise


def test_a_release_that_does_not_say_what_it_has_seen_says_nothing_of_what_came(
    workspace: Workspace, tmp_path: Path
) -> None:
    champion = resolve(workspace.bucket, "champion")
    older = champion.model_copy(update={"files": tuple(e for e in champion.files if not e.path.endswith("hashes.npy"))})
    now = divided(tmp_path / "now", 60)
    assert measure_drift(workspace.bucket, older, now, asked(workspace, now)) is None
