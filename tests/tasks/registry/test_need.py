"""When new data are a reason to train."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.params.data import DownloadParams
from tasks.params.params import Params, load_params
from tasks.params.retrain import RetrainParams
from tasks.registry.drift import Drift
from tasks.registry.manifest import Manifest
from tasks.registry.need import decide
from tests.fixtures.published import PARAMS_FILE

NOW = datetime(2024, 3, 1, tzinfo=UTC)
QUIET = Drift("0123456789abcdef", 1_000, 50, asked=50, right=44, own_images=150, own_top1=0.9, p_value=0.31)


def params(**changes: Any) -> Params:
    return load_params(PARAMS_FILE).model_copy(update={"retrain": RetrainParams(when="needed", **changes)})


def champion(days: float = 1.0, **parameters: Any) -> Manifest:
    """Return as much of a champion's manifest as is asked: when it was made, and by which parameters."""
    values = {**params().used(), **parameters}
    return Manifest.model_construct(
        id="0123456789abcdef", created_at=(NOW - timedelta(days=days)).isoformat(), parameters=values
    )


def test_every_change_is_a_reason_unless_a_person_sets_thresholds() -> None:
    assert decide(champion(), QUIET, load_params(PARAMS_FILE), NOW).retrain
    need = decide(champion(), QUIET, params(), NOW)
    assert not need.retrain
    assert need.sentence == (
        "not retrained: 50 new images of 100; a champion of 1.0 days, of 30; "
        "it is not significantly worse on what came (p = 0.31)"
    )


@pytest.mark.parametrize(
    ("changes", "days", "drift", "said"),
    [
        ({"new_images": 50}, 1.0, QUIET, "50 images came, and retrain.new_images is 50"),
        ({"days": 2}, 2.0, QUIET, "the champion is 2.0 days old, and retrain.days is 2"),
        (
            {},
            1.0,
            Drift("0123456789abcdef", 1_000, 50, 50, 35, 150, 0.9, p_value=0.0011),
            "the champion is right on 70.00 % of what came, significantly less than the 90.00 % of its own test images",
        ),
    ],
)
def test_each_threshold_is_a_reason_of_its_own(changes: dict[str, Any], days: float, drift: Drift, said: str) -> None:
    need = decide(champion(days), drift, params(**changes), NOW)
    assert (need.retrain, said in need.sentence) == (True, True)
    without = {"new_images": None, "days": None} | dict.fromkeys(changes)
    assert not decide(champion(days), QUIET, params(**without), NOW).retrain


def test_other_parameters_are_a_reason_and_other_devices_are_none() -> None:
    train = {**params().used()["train"], "devices": "gpu:0,1", "memory_megabytes": 1}
    assert not decide(champion(train=train), QUIET, params(), NOW).retrain
    other = decide(champion(train={**train, "seed": 8}), QUIET, params(), NOW)
    assert (other.retrain, "was made by other parameters" in other.sentence) == (True, True)


def test_a_release_without_fit_was_squashed_and_only_image_folders_are_fitted() -> None:
    older = {name: value for name, value in params().used()["split"].items() if name != "fit"}
    assert not decide(champion(split=older), QUIET, params(), NOW).retrain, "CIFAR-10's images are not"
    folders = DownloadParams(dataset="folders", url=("file:///photos/",))
    now = params().model_copy(update={"download": folders})
    photos = {**now.used(), "split": older}
    assert "was made by other parameters" in decide(champion(**photos), QUIET, now, NOW).sentence
    squash = now.model_copy(update={"split": now.split.model_copy(update={"fit": "squash"})})
    assert not decide(champion(**photos), QUIET, squash, NOW).retrain


def test_another_start_is_a_reason_and_the_release_that_it_stands_for_is_none() -> None:
    train = params().used()["train"]
    warm = params().model_copy(update={"train": params().train.model_copy(update={"start": "champion"})})
    made: dict[str, Any] = {"train": {**train, "start": "champion"}, "weights": {"release": "a" * 16}}
    assert not decide(champion(**made), QUIET, warm, NOW).retrain
    assert decide(champion(), QUIET, warm, NOW).retrain
    older = {name: value for name, value in train.items() if name not in ("start", "shrink_perturb")}
    assert not decide(champion(train=older), QUIET, params(), NOW).retrain, "made before there was a choice"


def test_a_champion_from_before_a_setting_was_there_was_made_by_its_default() -> None:
    values = params().used()
    name, recipe = next(iter(values["recipes"].items()))
    older = {key: value for key, value in recipe.items() if key not in ("averaging", "augment")}
    augment = {key: recipe["augment"][key] for key in ("crop", "flip", "shrink")}
    assert not decide(champion(recipes={name: {**older, "augment": augment}}), QUIET, params(), NOW).retrain
    assert decide(champion(recipes={name: {**older, "augment": {"crop": 3}}}), QUIET, params(), NOW).retrain


def test_without_a_champion_whose_past_is_known_there_is_nothing_to_wait_for() -> None:
    assert decide(None, None, params(), NOW).retrain
    assert decide(champion(), None, params(), NOW).retrain
