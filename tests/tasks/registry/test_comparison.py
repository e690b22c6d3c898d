"""Two releases differ in what their manifests say and in what their classes scored."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.comparison import changes, compare
from tasks.registry.manifest import DamagedError, Manifest
from tasks.registry.releases import file_key, publish_release
from tasks.registry.store import Store
from tests.fixtures.buckets import new_bucket, write_release

ANT = {"images": 50, "precision": 0.5, "recall": 0.5, "f1": 0.5}
BEE = {"images": 50, "precision": 0.75, "recall": 0.75, "f1": 0.75}


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


def _published(bucket: Store, folder: Path, per_class: Any = None, top1: float = 0.5, **manifest: Any) -> Manifest:
    folder.mkdir()
    if per_class is not None:
        (folder / "per_class.json").write_text(json.dumps(per_class))
    made = write_release(folder, folder.name, top1=top1).model_copy(update=manifest)
    return publish_release(bucket, folder, made)


def test_changes_are_of_nested_values_by_dotted_name() -> None:
    before = {"same": 1, "a": {"b": 1, "c": "x", "gone": None}, "list": [1, 2], "flag": True, "lost": 2.5}
    after = {"same": 1, "a": {"b": 1.5, "c": "y"}, "list": [1, 3], "flag": False, "new": {"d": 4}}
    assert changes(before, after) == {
        "a.b": {"before": 1, "after": 1.5, "change": 0.5},
        "a.c": {"before": "x", "after": "y"},
        "list": {"before": [1, 2], "after": [1, 3]},
        "flag": {"before": True, "after": False},
        "lost": {"before": 2.5, "after": None},
        "new.d": {"before": None, "after": 4},
    }


def test_a_release_does_not_differ_from_itself(bucket: Store, tmp_path: Path) -> None:
    manifest = _published(bucket, tmp_path / "a", {"ant": ANT})
    found = compare(bucket, manifest, manifest)
    assert found == {
        "before": manifest.id,
        "after": manifest.id,
        **{name: {} for name in ("code", "parameters", "data", "environment", "metrics", "classes")},
        "same_test_images": True,
    }


def test_everything_that_differs_is_named(bucket: Store, tmp_path: Path) -> None:
    recipes = {"fast": {"epochs": 9.9, "batch_size": 512}, "best": {"epochs": 37, "batch_size": 512}}
    first, second = (
        _published(
            bucket,
            tmp_path / name,
            classes,
            top1,
            parameters={"train": {"recipe": name, "seed": 0}, "recipes": {name: recipes[name]}},
            git={"commit": commit * 40, "dirty": False},
            environment={"keras": version},
            data={"dataset": "cifar10", "content_sha256": {"test": commit * 64}},
        )
        for name, classes, top1, commit, version in (
            ("fast", {"ant": ANT, "bee": BEE}, 0.5, "c", "3.15.1"),
            ("best", {"ant": ANT, "bee": {**BEE, "recall": 0.5}, "cat": BEE}, 0.75, "d", "3.15.2"),
        )
    )
    found = compare(bucket, first, second)
    assert (found["before"], found["after"]) == (first.id, second.id)
    assert found["code"] == {"commit": {"before": "c" * 40, "after": "d" * 40}}
    assert found["parameters"] == {
        "train.recipe": {"before": "fast", "after": "best"},
        "recipe.epochs": {"before": 9.9, "after": 37, "change": pytest.approx(27.1)},
    }
    assert found["data"] == {"content_sha256.test": {"before": "c" * 64, "after": "d" * 64}}
    assert found["environment"] == {"keras": {"before": "3.15.1", "after": "3.15.2"}}
    assert found["metrics"] == {"top1": {"before": 0.5, "after": 0.75, "change": 0.25}}
    assert found["classes"].keys() == {"bee", "cat"}
    assert found["classes"]["bee"] == {"recall": {"before": 0.75, "after": 0.5, "change": -0.25}}
    assert found["classes"]["cat"]["images"] == {"before": None, "after": 50}


def test_only_the_file_of_the_classes_is_fetched(bucket: Store, tmp_path: Path) -> None:
    first, second = (_published(bucket, tmp_path / name, {"ant": ANT}) for name in ("first", "second"))
    fetched: list[str] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        fetched.append(params["Key"].rpartition("/")[2])

    bucket.client.meta.events.register("provide-client-params.s3.GetObject", note)
    compare(bucket, first, second)
    assert fetched == ["per_class.json", "per_class.json"]


def test_a_release_without_classes_is_compared_without_them(bucket: Store, tmp_path: Path) -> None:
    first, second = _published(bucket, tmp_path / "first", {"ant": ANT}), _published(bucket, tmp_path / "second")
    assert compare(bucket, first, second)["classes"] is None


def test_other_test_images_are_said(bucket: Store, tmp_path: Path) -> None:
    first = _published(bucket, tmp_path / "first")
    other = first.model_copy(update={"metrics": {**first.metrics, "test_sha256": "b" * 64}})
    assert compare(bucket, first, other)["same_test_images"] is False


@pytest.mark.parametrize("damage", ["altered", "longer", "missing"])
def test_a_damaged_file_is_refused(bucket: Store, tmp_path: Path, damage: str) -> None:
    manifest = _published(bucket, tmp_path / "a", {"ant": ANT})
    entry = next(entry for entry in manifest.files if entry.path == "per_class.json")
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/{file_key(manifest, entry)}"}
    if damage == "missing":
        bucket.client.delete_object(**place)
    else:
        body = (tmp_path / "a/per_class.json").read_bytes()
        bucket.client.put_object(**place, Body=body.replace(b"ant", b"bee") if damage == "altered" else body + b" ")
    with pytest.raises(DamagedError, match=r"per_class\.json (was altered|is missing)"):
        compare(bucket, manifest, manifest)


@pytest.mark.parametrize("content", [[1], {"ant": 1}, {"ant": {**ANT, "recall": 2}}, {"ant": {"recall": 0.5}}])
def test_what_evaluate_does_not_write_is_refused(bucket: Store, tmp_path: Path, content: Any) -> None:
    manifest = _published(bucket, tmp_path / "a", content)
    with pytest.raises(DamagedError, match="is not what the stage evaluate writes"):
        compare(bucket, manifest, manifest)
