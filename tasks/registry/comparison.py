"""`registry diff`: what differs between two releases, from their manifests and their per_class.json."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tasks.registry.manifest import DamagedError, Manifest
from tasks.registry.releases import read_release_file
from tasks.registry.store import Store

PER_CLASS = "per_class.json"
MAX_PER_CLASS = 64 << 20  # bytes; a hundred bytes a class

Share = Annotated[float, Field(ge=0, le=1)]


class ClassScores(BaseModel):
    """A class's line in per_class.json; None is what was not measured."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    images: int
    precision: Share | None
    recall: Share | None
    f1: Share | None


SCORES = TypeAdapter(dict[str, ClassScores])

Change = dict[str, Any]


def compare(bucket: Store, before: Manifest, after: Manifest) -> dict[str, Any]:
    """Return what differs, as JSON.

    Returns:
        `before` and `after`: the ids. `code`, `parameters`, `data`, `environment`, `metrics`: from a name to
        `{"before", "after"}`, null where a release does not have it, and `change` between two numbers; equal ones are
        left out. Names are joined by dots; `recipe.…` is the recipe that was used, whatever its name. `classes`: from
        a class to such changes of its images, precision, recall and f1, all classes whose scores differ; null where a
        release has no per_class.json. `same_test_images`: whether the metrics are of the same images.

    Raises:
        DamagedError: A per_class.json is not what its manifest says, or not what evaluate writes.
        InputError: The store refused.
    """
    scores = [_class_scores(bucket, manifest) for manifest in (before, after)]
    classes = None if None in scores else _nested_changes(*(value or {} for value in scores))
    return {
        "before": before.id,
        "after": after.id,
        "code": changes(before.git or {}, after.git or {}),
        "parameters": changes(_parameters(before), _parameters(after)),
        "data": changes(before.data, after.data),
        "environment": changes(before.environment, after.environment),
        "metrics": changes(before.metrics, after.metrics),
        "same_test_images": before.metrics.get("test_sha256") == after.metrics.get("test_sha256"),
        "classes": classes,
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Change]:
    """Return by dotted name the values that differ, in the order of `before`, then what only `after` has."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return {name: _change(old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)}


def _change(before: Any, after: Any) -> Change:
    change = {"before": before, "after": after}
    numbers = [value for value in (before, after) if isinstance(value, int | float) and not isinstance(value, bool)]
    return {**change, "change": after - before} if len(numbers) == 2 else change


def _flat(value: dict[str, Any], start: str = "") -> list[tuple[str, Any]]:
    """Return nested values by dotted name; lists and empty objects are values."""
    found: list[tuple[str, Any]] = []
    for name, inner in value.items():
        found += _flat(inner, f"{start}{name}.") if isinstance(inner, dict) and inner else [(f"{start}{name}", inner)]
    return found


def _parameters(manifest: Manifest) -> dict[str, Any]:
    """Return the parameters with the recipe that was used in the place of all recipes."""
    values = dict(manifest.parameters)
    recipes, train = values.pop("recipes", None), values.get("train")
    name = train.get("recipe") if isinstance(train, dict) else None
    used = recipes.get(name) if isinstance(recipes, dict) else None
    return {**values, "recipe": used or {}}


def _nested_changes(before: dict[str, ClassScores], after: dict[str, ClassScores]) -> dict[str, dict[str, Change]]:
    dumped = [{name: each.model_dump() for name, each in scores.items()} for scores in (before, after)]
    names = {**dumped[0], **dumped[1]}
    found = {name: changes(dumped[0].get(name, {}), dumped[1].get(name, {})) for name in names}
    return {name: change for name, change in found.items() if change}


def _class_scores(bucket: Store, manifest: Manifest) -> dict[str, ClassScores] | None:
    """Return what evaluate measured of each class; nothing where the release does not have it."""
    entry = next((entry for entry in manifest.files if entry.path == PER_CLASS), None)
    if entry is None:
        return None
    source = f"{PER_CLASS} of release {manifest.id}"
    if entry.size > MAX_PER_CLASS:
        raise DamagedError(f"{source} has {entry.size} bytes, more than any that evaluate writes")
    try:
        return SCORES.validate_json(read_release_file(bucket, manifest, entry))
    except ValidationError as error:
        raise DamagedError(f"{source} is not what the stage evaluate writes: {error.errors()[0]['msg']}") from error
