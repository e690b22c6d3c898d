"""The stage train from a release: what it takes over, what it leaves behind, and that scratch is as it was."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.local.object_store import ObjectStore
from tasks.data.arrays import SplitRecord
from tasks.data.hashes import load_hashes
from tasks.models.start import START_HASHES, Start
from tasks.params.params import ShrinkPerturb, TrainParams
from tasks.params.recipe import ModelParams, Recipe
from tasks.params.weights import WeightsParams
from tasks.stage.files import read_json
from tasks.training.run import makings_of
from tasks.weights import ReleasePlace, weights
from tests.fixtures.buckets import new_bucket
from tests.fixtures.nursery import Nursery, StageRun
from tests.fixtures.releases_to_begin_from import publish_to_begin_from
from tests.fixtures.train_workspace import CLASSES, RECIPE, contents, saved_weights, write_workspace

STEPLESS = {"optimizer": {"name": "sgd", "learning_rate": 1e-12}, "epochs": 0.08}  # one step that moves nothing


def finished(nursery: Nursery, folder: Path) -> StageRun:
    run = nursery.start(folder)
    assert run.wait() == 0, run.err
    return run


@pytest.fixture(scope="module")
def scratch(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the recipe was trained from scratch."""
    folder = write_workspace(tmp_path_factory.mktemp("scratch"), {"epochs": 1})
    finished(nursery, folder)
    return folder


@pytest.fixture
def release(scratch: Path, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReleasePlace:
    """That model as a release, whose classes stand in the other order."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    bucket, model = new_bucket(object_store), (scratch / "model/model.keras").read_bytes()
    made = publish_to_begin_from(bucket, tmp_path / "release", model=model, classes=CLASSES[::-1])
    return ReleasePlace(made.id, bucket.name, bucket.prefix)


def workspace(folder: Path, start: ReleasePlace, recipe: dict[str, Any], **train: Any) -> Path:
    write_workspace(folder, recipe, start=start.release, **train)
    model = ModelParams.model_validate(RECIPE["model"])
    weights(WeightsParams(), model, folder / "data/weights", folder / "cache", start)
    return folder


def test_it_begins_with_the_releases_weights_and_says_so(
    nursery: Nursery, scratch: Path, release: ReleasePlace, tmp_path: Path
) -> None:
    folder = workspace(tmp_path / "begun", release, STEPLESS)
    run = finished(nursery, folder)
    assert f"begins with the weights of release {release.release}; it knows 2 of 2 classes\n" in run.out
    for ours, theirs in zip(saved_weights(folder)[:-1], saved_weights(scratch)[:-1], strict=True):
        if ours.ndim > 1:  # the step renews batch norm's running statistics
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(saved_weights(folder)[-1], saved_weights(scratch)[-1][..., ::-1], rtol=1e-6)
    assert load_hashes(folder / "model" / START_HASHES).tolist() == [1, 2, 3]
    training = read_json(folder / "model/training.json")
    assert (training["start"]["release"], training["start"]["shrink_perturb"]) == (release.release, None)
    assert "start" not in read_json(scratch / "model/training.json")
    again = workspace(tmp_path / "again", release, STEPLESS)
    finished(nursery, again)
    assert contents(again / "model") == contents(folder / "model")


def test_what_is_not_there_or_does_not_fit_is_one_sentence_and_leaves_the_model(
    nursery: Nursery, release: ReleasePlace, tmp_path: Path
) -> None:
    wide = {"model": {**RECIPE["model"], "widths": [8, 8, 16]}}
    folder = workspace(tmp_path / "wide", release, wide)
    (folder / "model").mkdir()
    (folder / "model/model.keras").write_text("the model before")
    for words in (
        f"release {release.release} (base airbench, head linear) does not fit this recipe's network (base airbench",
        f"holds no release to begin from, and release {release.release} is asked for; run weights",
    ):
        run = nursery.start(folder)
        assert run.wait() == 2
        said = [line for line in run.err.splitlines() if line.startswith("train: ")]
        assert len(said) == 1
        assert words in said[0]
        assert "Traceback" not in run.err
        assert (folder / "model/model.keras").read_text() == "the model before"
        shutil.rmtree(folder / "data/weights", ignore_errors=True)


def test_another_start_is_another_run_and_scratch_is_the_run_that_it_was(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(RECIPE)
    record = SplitRecord("folders", CLASSES, (32, 32, 3), "stable", 0, {}, {}, {"train": "0" * 64}, {})

    def fingerprint(release: str | None, mixture: ShrinkPerturb | None = None) -> str:
        start = None if release is None else Start(release, "1" * 64, "2" * 64, CLASSES, {})
        params = TrainParams(recipe="small", start=release or "scratch", shrink_perturb=mixture)
        return makings_of(params, recipe, record, tmp_path, start).fingerprint

    mixture = ShrinkPerturb(shrink=0.4, perturb=0.1)
    runs = [fingerprint(None), fingerprint("a" * 16), fingerprint("b" * 16), fingerprint("b" * 16, mixture)]
    assert len(set(runs)) == len(runs)
    assert "start" not in makings_of(TrainParams(recipe="small"), recipe, record, tmp_path).facts
