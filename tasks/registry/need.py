"""Whether new data are a reason to train: `retrain.when` and its thresholds, in words that a person understands."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.data.arrays import SQUASH
from tasks.params.params import Params, as_read_today
from tasks.registry.drift import Drift
from tasks.registry.manifest import Manifest
from tasks.stage.shown import percent

DAY = 86_400  # seconds


@dataclass(frozen=True)
class Need:
    """Whether to train, and why, in a sentence."""

    retrain: bool
    sentence: str


def decide(champion: Manifest | None, drift: Drift | None, params: Params, now: datetime | None = None) -> Need:
    """Return whether a run trains on the data that it found.

    Args:
        champion: That there is, if any.
        drift: How it does on what came; None where it does not say what it has seen.
        params: Section `retrain`, and what makes a model.
        now: UTC; the present if not given.
    """
    if params.retrain.when == "changed":
        return Need(True, "retraining, as after every change (retrain.when)")
    if champion is None or drift is None:
        return Need(True, "retraining: there is no champion whose answers to what came are known")
    age = ((now or datetime.now(UTC)) - datetime.fromisoformat(champion.created_at)).total_seconds() / DAY
    reason = next(_reasons(champion, drift, age, params), None)
    if reason is None:
        return Need(False, f"not retrained: {_short_of(drift, age, params)}")
    return Need(True, f"retraining: {reason}")


def _reasons(champion: Manifest, drift: Drift, age: float, params: Params) -> Iterator[str]:
    """Give every reason to train; `age` is the champion's, in days."""
    wanted = params.retrain
    if _what_makes_a_model(as_read_today(champion.parameters)) != _what_makes_a_model(params.used()):
        yield f"the champion {champion.id} was made by other parameters"
    if wanted.new_images is not None and drift.came >= wanted.new_images:
        yield f"{drift.came:,} images came, and retrain.new_images is {wanted.new_images:,}"
    if wanted.days is not None and age >= wanted.days:
        yield f"the champion is {age:.1f} days old, and retrain.days is {wanted.days:g}"
    significance = params.publish.significance
    if drift.asked and drift.p_value <= significance:
        yield (
            f"the champion is right on {percent(drift.right / drift.asked)} of what came, significantly less than the "
            f"{percent(drift.own_top1)} of its own test images (p = {drift.p_value:.3g}, significance {significance:g})"
        )


def _short_of(drift: Drift, age: float, params: Params) -> str:
    """Say how far each threshold is from being reached."""
    wanted, parts = params.retrain, list[str]()
    if wanted.new_images is not None:
        parts.append(f"{drift.came:,} new images of {wanted.new_images:,}")
    if wanted.days is not None:
        parts.append(f"a champion of {age:.1f} days, of {wanted.days:g}")
    if drift.asked:
        parts.append(f"it is not significantly worse on what came (p = {drift.p_value:.3g})")
    return "; ".join(parts) or "no threshold is set"


def _what_makes_a_model(values: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that make another model: not on which devices, or where its checkpoints lie."""
    train = values.get("train", {})
    return {
        "split": _split(values),
        "recipe": values.get("recipes", {}).get(train.get("recipe")),
        "seed": train.get("seed"),
        "start": train.get("start", "scratch"),
        "shrink_perturb": train.get("shrink_perturb"),
    }


def _split(values: dict[str, Any]) -> dict[str, Any]:
    """Return how images become arrays; an older release says nothing of fit, and only image folders heed it."""
    split = {"fit": SQUASH, **(values.get("split") or {})}
    if values.get("download", {}).get("dataset") != "folders":
        del split["fit"]
    return split
