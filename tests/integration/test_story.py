"""Eight weeks of a collection on real photographs, and what every week promises; the short form has three of them."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from infra.local.prefect_server import PrefectServer
from tasks.data.hashes import are_among
from tasks.registry.channels import read_channel, resolve
from tasks.registry.recorded_answers import fetch_hashes
from tasks.registry.store import Store
from tasks.s3.client import connect
from tests.fixtures import prefect_api
from tests.story.collection import LATE_CLASS, Collection, photographs
from tests.story.workers import Week, Worker, write_upstream

RAN, UNCHANGED, RESTORED = "ran", "unchanged", "restored from an earlier run"


@dataclass
class Story:
    """The collection, two workers on one bucket, and what every week so far has trained on."""

    photos: Collection
    bucket: Store
    keeps: Worker
    loses: Worker
    overrides: dict[str, Any]
    trained: set[str] = field(default_factory=set)
    number: int = 0

    def week(self) -> Week:
        """Run the flow on the worker whose turn it is, and check what holds in every week."""
        self.number += 1
        worker = self.keeps if self.number % 2 else self.loses
        self.loses.lose_disk()
        week = worker.run(self.overrides)
        tested = {row["sha256"] for row in week.split if row["split"] == "test"}
        assert not tested & self.trained, "an image that was trained on, or chosen by, tests"
        self.trained |= {row["sha256"] for row in week.split if row["split"] != "test"}
        assert {row["path"] for row in week.split} <= self.photos.files.keys()
        if week.state in ("Completed", "Refused") and week.outcomes["publish"] == RAN:
            self.check_judged(week)
        return week

    def check_judged(self, week: Week) -> None:
        """Check that neither the release nor the champion before it had trained on an image of its test set."""
        release = resolve(self.bucket, week.offer()["id"])
        fit, tested = fetch_hashes(self.bucket, release, week.folder)
        assert fit is not None and tested is not None
        assert not are_among(tested, fit).any()
        if release.parent is not None:
            theirs, _ = fetch_hashes(self.bucket, resolve(self.bucket, release.parent), week.folder)
            assert theirs is not None
            assert not are_among(tested, theirs).any()


@pytest.fixture
def story(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    object_store: ObjectStore,
    prefect_server: PrefectServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Story]:
    if "CIFAR10_FOLDERS_ARCHIVE" not in os.environ:
        pytest.skip("CIFAR10_FOLDERS_ARCHIVE does not name the real images")
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    prefect_api.know(prefect_server.environment)
    name = f"story-{uuid.uuid4().hex[:8]}"
    found = photographs(Path(os.environ["CIFAR10_FOLDERS_ARCHIVE"]), request.param)
    photos = Collection(connect(), "retrain", f"{name}-photos", found)
    (tmp_path / "upstream").mkdir()
    upstream = write_upstream(tmp_path / "upstream", f"s3://retrain/{name}-dvc")
    keeps, loses = (Worker(tmp_path / each, upstream, object_store, prefect_server) for each in ("keeps", "loses"))
    overrides = {
        "download.dataset": "folders",
        "download.url": photos.address,
        "split.image_size": 32,
        "train.recipe": "digits",
        "recipes.digits.epochs": 6,
        "evaluate.test_time_augmentation": "none",
        "publish.prefix": name,
    }
    yield Story(photos, Store(connect(), "retrain", name), keeps, loses, overrides)


@pytest.mark.timeout(1200)  # three whole runs and a fourth that finds nothing, on machines that are shared
@pytest.mark.parametrize("story", [160], indirect=True)
def test_a_collection_lives(story: Story) -> None:
    """The short form: it begins; images come, go, change their class and are spoilt, a class comes; then nothing."""
    story.overrides["split.max_quarantined"] = 0.05  # one of a class of a hundred
    begin(story, 700)
    names = story.photos.spoil(1)
    week = arrivals_removals_corrections(story, add=300, remove=20, relabel=10, late_class=True)
    assert_set_aside(week, names)
    assert_new_class(week)
    nothing(story, story.loses)


@pytest.mark.long
@pytest.mark.parametrize("story", [1400], indirect=True)
def test_eight_weeks(story: Story) -> None:
    begin(story, 2000)
    arrivals_removals_corrections(story, add=1000, remove=100, relabel=40)
    story.photos.add(1500)
    story.week()
    story.photos.add(1000)
    story.photos.overwrite(200)
    story.photos.rename(50)
    assert "1,200 images came, 200 went, 0 changed their class" in story.week().line("images came, ")
    a_new_class(story, add=1000)
    spoilt_files(story, add=1000, spoilt=8)
    nothing(story, story.keeps, story.loses)
    story.photos.add(2600, late_class=True)
    story.photos.copy_anew(20)
    story.photos.correct(30)
    week = story.week()
    assert week.outcomes["train"] == RAN
    assert "look like another one, saved anew" in week.line("saved anew")
    assert len(story.photos.files) >= 10_000


def begin(story: Story, count: int) -> None:
    """Week 1: the first photographs make the first champion."""
    story.photos.add(count)
    week = story.week()
    assert set(week.outcomes.values()) == {RAN}
    assert week.state == "Completed"
    assert f"{count:,} images of 9 classes" in week.line("images of 9 classes, snapshot")
    champion = read_channel(story.bucket, "champion")
    assert champion is not None
    assert champion.parameters["download"]["sha256"] in week.line("snapshot.csv:")


def arrivals_removals_corrections(
    story: Story, add: int, remove: int, relabel: int, *, late_class: bool = False
) -> Week:
    """Week 2, on an empty disk: what came is said, and the champion is asked about it before anything is trained."""
    story.photos.add(add, late_class=late_class)
    story.photos.remove(remove)
    story.photos.relabel(relabel)
    week = story.week()
    assert week.outcomes["train"] == RAN
    drift = week.line("images came since the champion")
    assert "it is right on" in drift and "of its own test images" in drift
    assert 0.8 * add < float(drift.partition(" of ")[0].replace(",", "")) <= add
    release = resolve(story.bucket, week.offer()["id"])
    assert release.runtime["drift"]["came"] > 0
    assert any(finding.rule == "tells_cohorts" for finding in release.verdict if not isinstance(finding, str))
    return week


def a_new_class(story: Story, add: int) -> None:
    """Week 5: a class comes of which nobody had a photograph; the line of champions goes on."""
    story.photos.add(add, late_class=True)
    assert_new_class(story.week())


def assert_new_class(week: Week) -> None:
    """Check that the class is there, that the gate says how it is learnt, and that the others alone are compared."""
    assert LATE_CLASS in {row["label"] for row in week.split}
    verdict = {finding["rule"]: finding for finding in week.offer()["verdict"]}
    assert verdict["learns_new_classes"]["sentence"].startswith(f"new classes, answered rightly: {LATE_CLASS} ")
    assert verdict["is_not_worse"]["figures"]["images"] < sum(row["split"] == "test" for row in week.split)
    assert "cannot be compared" not in week.message


def spoilt_files(story: Story, add: int, spoilt: int) -> None:
    """Week 6: a few files are cut off; they are set aside and named, and the week goes on."""
    names = story.photos.spoil(spoilt)
    story.photos.add(add, late_class=True)
    assert_set_aside(story.week(), names)


def assert_set_aside(week: Week, names: list[str]) -> None:
    """Check that files are set aside and named, and are no part of the arrays."""
    assert f"{len(names):,} files are set aside" in week.line("are set aside")
    assert not set(names) & {row["path"] for row in week.split}
    table = (week.folder / "data/split/quarantine.csv").read_text()
    assert all(name in table for name in names)


def nothing(story: Story, *workers: Worker) -> None:
    """Week 7: nothing came; whichever worker looks says so, and does not train."""
    champion = read_channel(story.bucket, "champion")
    for worker in workers:
        outcome = RESTORED if worker is story.loses else None
        story.loses.lose_disk()
        week = worker.run(story.overrides)
        assert RAN not in week.outcomes.values()
        assert outcome is None or set(week.outcomes.values()) == {outcome}
        assert (week.state, week.message[:26]) == ("Completed", "no stage had anything new:")
    assert read_channel(story.bucket, "champion") == champion
