"""What goes with a data set that a run names."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.fitting import GOES_WITH, fitting
from flows.overrides import apply_overrides, preview
from tests.fixtures.dvc_project import REPOSITORY

PHOTOS = {"download.dataset": "folders", "download.url": "file:///photos.zip"}
COLLECTION = {"download.dataset": "folders", "download.url": "file:///photos/"}

PHOTOGRAPHS = {"train.recipe": "finetune", "split.image_size": 128, "evaluate.test_time_augmentation": "auto"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({}, {}),
        ({"train.seed": 3}, {}),
        (PHOTOS, {**PHOTOGRAPHS, "download.sha256": None}),
        (COLLECTION, PHOTOGRAPHS),  # the look finds its pin
        (
            {**COLLECTION, "train.recipe": "fast", "split.image_size": 32},
            {"evaluate.test_time_augmentation": "auto"},
        ),
        ({**COLLECTION, "train.recipe": "fast", "split.image_size": 32, "evaluate.test_time_augmentation": "none"}, {}),
        ({**PHOTOS, "download.sha256": "0" * 64}, PHOTOGRAPHS),
    ],
)
def test_what_goes_with_a_data_set_is_added_and_said(
    folder: Path, given: dict[str, Any], added: dict[str, Any]
) -> None:
    said: list[str] = []
    assert fitting(given, said.append, folder / "params.yaml") == {**given, **added}
    assert len(said) == bool(added)
    assert all(key in said[0] for key in added)


def test_what_names_classes_or_releases_of_the_other_data_set_is_left_behind(folder: Path) -> None:
    chosen = {"evaluate.costs": {"cat": 5}, "train.start": "0123456789abcdef"}
    apply_overrides(chosen, folder / "params.yaml")
    left = {"evaluate.costs": {}, "train.start": "scratch"}
    assert fitting(COLLECTION, print, folder / "params.yaml") == {**COLLECTION, **PHOTOGRAPHS, **left}
    given = {**COLLECTION, "evaluate.costs.defective": 10, "train.start": "champion"}
    assert fitting(given, print, folder / "params.yaml") == {**given, **PHOTOGRAPHS}
    assert fitting({}, print, folder / "params.yaml") == {}


def test_a_data_set_that_stays_keeps_what_a_person_chose(folder: Path) -> None:
    apply_overrides({**COLLECTION, "train.recipe": "fast"}, folder / "params.yaml")
    assert fitting(COLLECTION, print, folder / "params.yaml") == COLLECTION
    assert fitting({}, print, folder / "params.yaml") == {}


def test_what_goes_with_each_data_set_is_valid(folder: Path) -> None:
    for dataset, values in GOES_WITH.items():
        params = preview({**PHOTOS, "download.dataset": dataset, **values}, folder / "params.yaml")
        assert params.download.dataset == dataset
