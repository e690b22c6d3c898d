"""The evaluation as one self-contained HTML page: no script, no request, nothing from a clock or a machine."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from tasks.evaluation.calibration import Calibration
from tasks.evaluation.choice import Choice
from tasks.evaluation.costs import CostComparison, threshold_of
from tasks.evaluation.metrics import Counts, Labels, Probabilities, class_scores, class_table, unmeasured
from tasks.evaluation.ranking import Ranking
from tasks.reporting import plots
from tasks.reporting.answers import chances, least_sure, most_confident_mistakes, shown_name
from tasks.reporting.cost_words import cost_rows, cost_sentences
from tasks.reporting.pictures import MAX_LOSSLESS, data_uri, page_template, thumbnail
from tasks.stage.shown import DATASETS, costs_text, percent

TEMPLATE = "report.html.j2"
MISTAKES, LEAST_SURE = 48, 24  # images shown: the page stays below a few megabytes
LIKELIEST = 3  # classes beside each
TILE = 192  # pixels to which shown images are reduced where they are larger
CONFUSED_PAIRS = 8
MODEL_PICTURE_SCALE = 0.8  # page pixels for each pixel of the model's picture
AUGMENTATIONS = {
    "none": "the image alone",
    "mirror": "the image and its mirror image averaged",
    "mirror_and_shift": "six views averaged: the image, two shifts by a pixel, and their mirror images",
}


@dataclass(frozen=True)
class Evaluated:
    """What the report tells of.

    Attributes:
        metrics: metrics.json.
        augmentation: Name of the test-time augmentation.
        classes: Names in label order.
        images, labels, probabilities: The test split, uint8 (N, H, W, 3) and int32 (N,), and the answers to it,
            float32 (N, C).
        names: Paths of the test images' files, in their order; empty where they have none.
        confusion, calibration: As in tasks/evaluation/metrics.py and calibration.py.
        ranking: Of two classes that both have test images, how well the second one's probability ranks them.
        by_cost: The answers of least expected cost beside the most probable ones, where costs are given.
        split: split.json.
        training: training.json.
        history: Columns of history.json.
        model_picture: A PNG file's bytes.
        model_summary: The table of layers.
        choice: How the test-time augmentation was chosen; None where a person did.
    """

    metrics: Mapping[str, Any]
    augmentation: str
    classes: Sequence[str]
    images: NDArray[np.uint8]
    labels: Labels
    probabilities: Probabilities
    names: Sequence[str]
    confusion: Counts
    calibration: Calibration
    ranking: Ranking | None
    split: Mapping[str, Any]
    training: Mapping[str, Any]
    history: Mapping[str, Sequence[Any]]
    model_picture: bytes
    model_summary: str
    by_cost: CostComparison | None = None
    choice: Choice | None = None


def render_report(evaluated: Evaluated) -> str:
    """Return the page; equal inputs are equal text."""
    mistakes = most_confident_mistakes(evaluated.labels, evaluated.probabilities, len(evaluated.labels))
    return page_template(TEMPLATE, percent=_unbroken_percent, plain=plain, shown_name=shown_name).render(
        evaluated=evaluated,
        metrics=evaluated.metrics,
        training=evaluated.training,
        split=evaluated.split,
        dataset=DATASETS.get(evaluated.metrics["dataset"], evaluated.metrics["dataset"]),
        augmentation=AUGMENTATIONS[evaluated.augmentation],
        even_odds_loss=math.log(len(evaluated.classes)),
        charts=_charts(evaluated),
        is_probe=is_probe(evaluated),
        pairs=list(confused_pairs(evaluated)),
        matrix_classes=len(plots.most_confused(evaluated.confusion)),
        chart_classes=min(len(evaluated.classes), plots.MAX_NAMED_CLASSES),
        per_class=class_table(evaluated.classes, evaluated.confusion),
        unmeasured=unmeasured(evaluated.classes, evaluated.confusion.sum(axis=1)),
        cost=_cost(evaluated),
        averaged=bool(evaluated.training.get("recipe_parameters", {}).get("averaging")),
        start=evaluated.training.get("start", {}).get("release"),
        large_tiles=max(evaluated.images.shape[1:3]) > MAX_LOSSLESS,
        mistakes=list(_tiles(evaluated, mistakes[:MISTAKES])),
        mistakes_in_all=len(mistakes),
        least_sure=list(_tiles(evaluated, least_sure(evaluated.probabilities, LEAST_SURE))),
        model_picture=data_uri(evaluated.model_picture),
        model_picture_width=_page_width(evaluated.model_picture),
        recipe=dict(flatten(evaluated.training.get("recipe_parameters", {}))),
        run=list(_run(evaluated.training)),
        duplicates=list(_duplicates(evaluated.split["duplicates"])),
        hashes=list(_hashes(evaluated)),
    )


def _unbroken_percent(share: float | None, digits: int = 2) -> str:
    return percent(share, digits).replace(" ", "\u00a0")


def plain(value: Any) -> str:
    """Return a parameter's value as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(plain(part) for part in value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested groups under dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def confused_pairs(evaluated: Evaluated) -> Iterator[tuple[str, str, int, float]]:
    """Yield the most frequent confusions as actual class, predicted class, images, and share of the actual class."""
    wrong = evaluated.confusion * ~np.eye(len(evaluated.classes), dtype=bool)
    for flat in np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS]:
        actual, predicted = divmod(int(flat), len(evaluated.classes))
        images = int(wrong[actual, predicted])
        if images:
            share = images / int(evaluated.confusion[actual].sum())
            yield evaluated.classes[actual], evaluated.classes[predicted], images, share


def is_probe(evaluated: Evaluated) -> bool:
    """Return whether a linear head was solved on frozen features, a row of the history for each penalty tried."""
    return "penalty" in evaluated.history


def _charts(evaluated: Evaluated) -> dict[str, Markup]:
    history = evaluated.history
    epochs = range(1, len(history["train_loss"]) + 1)
    kept = evaluated.training.get("best_epoch")
    setting = "penalty" if is_probe(evaluated) else "learning_rate"
    loss = {"train": history["train_loss"], "validation": history["validation_loss"]}
    top1 = {"train": history["train_top1"], "validation": history["validation_top1"]}
    charts = {
        "interval": plots.interval_line(evaluated.metrics, len(evaluated.classes)),
        "top1": plots.curves(epochs, top1, "{:.0%}", kept),
        "loss": plots.curves(epochs, loss, "{:.3g}", kept),
        "setting": plots.curves(epochs, {setting.replace("_", " "): history[setting]}, "{:.3g}", kept),
        "confusion": plots.confusion_picture(evaluated.confusion, evaluated.classes),
        "reliability": plots.reliability_diagram(evaluated.calibration),
        "classes": plots.class_scores_picture(evaluated.classes, class_scores(evaluated.confusion)),
    }
    if evaluated.ranking is not None:
        charts["roc"] = plots.roc_curve(evaluated.ranking)
        charts["precision_recall"] = plots.precision_recall_curve(evaluated.ranking)
    if evaluated.by_cost is not None and len(evaluated.classes) == 2:
        costs = evaluated.by_cost.costs
        charts["cost"] = plots.cost_curve(evaluated.probabilities, evaluated.labels, costs, evaluated.classes)
    return charts


def _cost(evaluated: Evaluated) -> dict[str, Any] | None:
    """Return what the section on costs tells; nothing where all mistakes cost the same."""
    if evaluated.by_cost is None:
        return None
    rule = threshold_of(evaluated.by_cost.costs) if len(evaluated.classes) == 2 else None
    return {
        "costs": costs_text(evaluated.metrics["costs"]),
        "sentences": list(cost_sentences(evaluated.by_cost, evaluated.classes, evaluated.training)),
        "rows": list(cost_rows(evaluated.by_cost, evaluated.classes)),
        "threshold": rule and rule.value,
        "sought": rule and evaluated.classes[rule.sought],
    }


def _tiles(evaluated: Evaluated, positions: NDArray[np.intp]) -> Iterator[dict[str, Any]]:
    """Yield what is shown of the test images at some positions."""
    for position in positions.tolist():
        answer, label = evaluated.probabilities[position], int(evaluated.labels[position])
        yield {
            "picture": thumbnail(evaluated.images[position], TILE),
            "name": evaluated.names[position] if evaluated.names else f"test image {position}",
            "actual": evaluated.classes[label],
            "predicted": evaluated.classes[answer.argmax()],
            "chances": chances(answer, evaluated.classes, LIKELIEST, label),
        }


def _run(training: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    names = ("recipe", "seed", "precision", "epochs_run", "best_epoch", "steps", "parameters", "trainable_parameters")
    for name in names:
        yield name.replace("_", " "), plain(training.get(name))
    for split in ("train", "validation"):
        for name, value in training.get(split, {}).items():
            words = name.replace("top1", "top-1").replace("_", " ")
            yield f"{split} {words}", f"{value:.4f}" if name == "loss" else _unbroken_percent(value)


def _duplicates(counts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what split.json counts of byte-identical images, where there are any."""
    for name, value in flatten(counts):
        if value:
            yield name.replace(".", " ").replace("_", " ").replace("+", " and "), plain(value)


def _hashes(evaluated: Evaluated) -> Iterator[tuple[str, str]]:
    for split, digest in sorted(evaluated.split["content_sha256"].items()):
        yield f"{split} images and labels", digest
    yield "model.keras", evaluated.training["model_sha256"]


def _page_width(png: bytes) -> int:
    with Image.open(io.BytesIO(png)) as picture:
        return round(picture.width * MODEL_PICTURE_SCALE)
