"""Mistakes that cost differently, in words and rows: for the report, and for who watches the stage."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tasks.evaluation.costs import CostComparison
from tasks.evaluation.metrics import Counts, Floats
from tasks.stage.shown import percent

NAMED = 10  # classes with a sentence of their own


def cost_sentences(by_cost: CostComparison, classes: Sequence[str], training: Mapping[str, Any]) -> Iterator[str]:
    """Yield what answering by least expected cost does on the test images, a sentence for each class that costs name.

    Args:
        by_cost: The answers in both ways.
        classes: Names in label order.
        training: training.json.
    """
    yield (
        f"the answer of least expected cost takes the mean cost of a test image from {by_cost.mean_cost_plain:.4f} "
        f"(most probable class) to {by_cost.mean_cost:.4f}"
    )
    named = [index for index, (low, high) in enumerate(_bounds(by_cost.costs)) if (low, high) != (1, 1)]
    for index in named[:NAMED]:
        images, before, after = _found(by_cost, index)
        alarms = " → ".join(f"{_false_alarms(each)[index]:,}" for each in (by_cost.plain, by_cost.chosen))
        if images:
            yield (
                f"it finds {after:,} of {images:,} {classes[index]}, where the most probable class finds {before:,}; "
                f"false alarms {alarms}"
            )
        else:
            yield f"no test image is of {classes[index]}; false alarms {alarms}"
    if balance_of(training):
        yield (
            "it was trained with balance, by which rare classes are given higher probabilities already: costs come on "
            "top of that"
        )


def cost_rows(by_cost: CostComparison, classes: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield a row a class in label order: what a mistake about it costs, recall and false alarms by both answers."""
    alarms = [_false_alarms(confusion) for confusion in (by_cost.plain, by_cost.chosen)]
    for index, (name, (low, high)) in enumerate(zip(classes, _bounds(by_cost.costs), strict=True)):
        images, *found = _found(by_cost, index)
        recalls = [percent(count / images if images else None, 1).replace(" ", "\u00a0") for count in found]
        yield {
            "class": name,
            "cost": f"{low:,.6g}" if low == high else f"{low:,.6g} to {high:,.6g}",
            "images": f"{images:,}",
            "recall": " → ".join(recalls),
            "false_alarms": " → ".join(f"{each[index]:,}" for each in alarms),
        }


def balance_of(training: Mapping[str, Any]) -> float:
    """Return how far a model's training, as training.json has it, let images of rare classes count more; 0 to 1."""
    recipe = training.get("recipe_parameters", {})
    return float(recipe.get("balance") or recipe.get("loss", {}).get("balance") or 0)


def _bounds(costs: Floats) -> list[tuple[float, float]]:
    """Return the least and the highest cost of a mistake about each class."""
    mistakes = [np.delete(row, index) for index, row in enumerate(costs)]
    return [(float(row.min()), float(row.max())) for row in mistakes]


def _found(by_cost: CostComparison, index: int) -> tuple[int, int, int]:
    """Return a class's images, and how many of them the two answers find."""
    return int(by_cost.plain[index].sum()), int(by_cost.plain[index, index]), int(by_cost.chosen[index, index])


def _false_alarms(confusion: Counts) -> Counts:
    """Return for each class how many images of others were taken for it; int64 (C,)."""
    return np.asarray(confusion.sum(axis=0) - np.diag(confusion))
