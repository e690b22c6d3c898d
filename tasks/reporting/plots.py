"""The report's charts as inline SVG; colours and dark mode are the style sheet's (report.css)."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tasks.evaluation.calibration import Calibration
from tasks.evaluation.costs import mean_costs, threshold_of
from tasks.evaluation.metrics import ClassScores, Counts, Floats, Labels, Probabilities
from tasks.evaluation.ranking import Ranking
from tasks.reporting.svg import Axes, Point, element, line, picture, round_ticks, shorten, text

Values = Sequence[float | None]

WIDTH = 420.0
CURVES_WIDTH, CURVES_HEIGHT = 350.0, 250.0
CURVES_PLOT = (46.0, 32.0, 294.0, 168.0)  # left, top, width, height
MAX_MARKERS = 60
MAX_NUMBERED_CLASSES = 20
MAX_NAMED_CLASSES = 40
MOST_CONFUSED = 30
THRESHOLDS = 353  # of a curve of costs: one a unit of the picture


def curves(epochs: Sequence[float], series: Mapping[str, Values], value_format: str, chosen: int | None) -> Markup:
    """Draw one line a series over the epochs; a missing value is a gap.

    Args:
        epochs: Positions on the x axis, ascending.
        series: Values by the name shown in the legend; at most three.
        value_format: As in `{:.0%}`.
        chosen: The epoch whose weights were kept, marked by a vertical line.
    """
    values = [value for line_values in series.values() for value in line_values if value is not None]
    x_ticks = round_ticks(min(0.0, *epochs), max(epochs), smallest=1)
    axes = Axes(*CURVES_PLOT, x_ticks, round_ticks(min(values), max(values)))
    parts = axes.frame("{:g}", value_format, "epoch")
    if chosen is not None:
        x, bottom = axes.place(chosen, axes.y_ticks[0])
        parts.append(line([(x, axes.top), (x, bottom)], "chosen"))
        parts.append(text(x, axes.top - 4, "kept", "note", "end"))
    legend = axes.left
    for index, (name, line_values) in enumerate(series.items(), start=1):
        parts.append(line([(legend, 15), (legend + 20, 15)], f"series series{index}"))
        parts.append(text(legend + 26, 19, name, anchor="start"))
        legend += 40 + 7.2 * len(name)
        known = [(x, y) for x, y in zip(epochs, line_values, strict=True)]
        for missing, run in groupby(known, key=lambda pair: pair[1] is None):
            if not missing:
                points = [axes.place(x, y) for x, y in run if y is not None]
                parts.append(line(points, f"series series{index}"))
                if len(known) <= MAX_MARKERS:
                    parts += [element("circle", cx=x, cy=y, r=2.6, class_=f"dot series{index}") for x, y in points]
    return picture(CURVES_WIDTH, CURVES_HEIGHT, parts, f"{', '.join(series)} by epoch")


def most_confused(confusion: Counts) -> NDArray[np.intp]:
    """Return the classes that a matrix shows, in label order: all, or of more than 40 those most often mistaken."""
    mistakes = confusion * ~np.eye(len(confusion), dtype=bool)
    order = np.argsort(-(mistakes.sum(axis=0) + mistakes.sum(axis=1)), kind="stable")
    return np.sort(order[: len(confusion) if len(confusion) <= MAX_NAMED_CLASSES else MOST_CONFUSED])


def confusion_picture(confusion: Counts, classes: Sequence[str]) -> Markup:
    """Draw a confusion matrix (C, C), rows actual, of the classes of most_confused; a colour is a share of the row."""
    shown, images_of = most_confused(confusion), confusion.sum(axis=1)
    confusion, images_of, classes = confusion[np.ix_(shown, shown)], images_of[shown], [classes[i] for i in shown]
    count = len(classes)
    cell, left, top = 400 / count, 86.0, 80.0
    side, size = count * cell, {"width": cell - 1, "height": cell - 1}
    parts = [element("rect", class_="cell", x=left, y=top, width=side, height=side)]
    for actual, predicted in zip(*np.nonzero(confusion), strict=True):
        share = confusion[actual, predicted] / images_of[actual]
        corner = {"x": left + predicted * cell + 0.5, "y": top + actual * cell + 0.5}
        # The square root lets the few percent of a confusion be seen beside the ninety of the diagonal.
        opacity = round(float(np.sqrt(share)), 3)
        class_ = "right" if actual == predicted else "wrong"
        parts.append(element("rect", class_=class_, fill_opacity=str(opacity), **corner, **size))
    if count <= MAX_NUMBERED_CLASSES:
        parts += _cell_numbers(confusion, left, top, cell)
    for index, name in enumerate(classes):
        middle = (index + 0.5) * cell
        parts.append(text(left - 8, top + middle + 4, shorten(name, 11), anchor="end"))
        turn = f"translate({left + middle + 4:.2f} {top - 8:.2f}) rotate(-55)"
        parts.append(element("text", shorten(name, 11), transform=turn, class_="label"))
    parts.append(text(left + side / 2, top + side + 22, "columns: predicted · rows: actual", "title"))
    return picture(left + side + 30, top + side + 32, parts, "confusion matrix")


def _cell_numbers(confusion: Counts, left: float, top: float, cell: float) -> list[Markup]:
    parts = []
    for (actual, predicted), images in np.ndenumerate(confusion):
        strong = images / max(confusion[actual].sum(), 1) > 0.3
        kind = "number strong" if strong else "number" if images else "number none"
        x, y = left + (predicted + 0.5) * cell, top + (actual + 0.5) * cell + 4
        parts.append(text(x, y, str(images), kind))
    return parts


def reliability_diagram(calibration: Calibration) -> Markup:
    """Draw accuracy over confidence, the diagonal of perfect calibration, and how many images each bin holds."""
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    axes = Axes(52.0, 16.0, 352.0, 262.0, ticks, ticks)
    parts = axes.frame("{:.0%}", "{:.0%}", "confidence")
    width = axes.width / len(calibration.counts)
    for start, images, confidence, accuracy in zip(
        calibration.edges, calibration.counts, calibration.confidence, calibration.accuracy, strict=False
    ):
        if not images:
            continue
        x, y = axes.place(float(start), float(accuracy))
        bottom = axes.top + axes.height
        tip = f"{images:,} images, confidence {confidence:.1%}, accuracy {accuracy:.1%}"
        bar = {"x": x + 1, "width": width - 2, "y": y, "height": bottom - y}
        parts.append(element("rect", element("title", tip), class_="bar", **bar))
        gap_x, gap_y = axes.place(float(confidence), float(accuracy))
        parts.append(element("circle", cx=gap_x, cy=gap_y, r=3.2, class_="dot series2"))
    parts.append(line([axes.place(0, 0), axes.place(1, 1)], "ideal"))
    parts += _histogram(calibration, axes)
    return picture(WIDTH, 410.0, parts, "reliability diagram: accuracy by confidence")


def _histogram(calibration: Calibration, above: Axes) -> list[Markup]:
    """Draw the share of the images in each bin, hanging below the diagram's axis title."""
    top, height = above.top + above.height + 50, 48.0
    width = above.width / len(calibration.counts)
    most = calibration.counts.max()
    parts = [line([(above.left, top + height), (above.left + above.width, top + height)], "axis")]
    for start, images in zip(calibration.edges, calibration.counts, strict=False):
        tall = height * float(images / most)
        x = above.place(float(start), 0)[0]
        bar = {"x": x + 1, "width": width - 2, "y": top + height - tall, "height": tall}
        parts.append(element("rect", element("title", f"{images:,} images"), class_="bar faint", **bar))
    parts.append(text(above.left + above.width / 2, top + height + 20, "images in each bin", "title"))
    return parts


def roc_curve(ranking: Ranking) -> Markup:
    """Draw recall over the false positive rate, and the diagonal of a model that guesses."""
    points = [(0.0, 0.0), *zip(ranking.false_positive_rate.tolist(), ranking.recall.tolist(), strict=True)]
    return _unit_square(points, [(0, 0), (1, 1)], "false positive rate", "ROC curve: recall by false positive rate")


def precision_recall_curve(ranking: Ranking) -> Markup:
    """Draw precision over recall in steps, whose area is the average precision, and what a model that guesses has."""
    recall, precision = ranking.recall.tolist(), ranking.precision.tolist()
    starts = [0.0, *recall[:-1]]
    points = [
        (x, y) for start, end, y in zip(starts, recall, precision, strict=True) if end > start for x in (start, end)
    ]
    return _unit_square(points, [(0, precision[-1]), (1, precision[-1])], "recall", "precision by recall")


def _unit_square(points: Sequence[Point], guessing: Sequence[Point], x_title: str, label: str) -> Markup:
    """Draw a curve over shares from 0 to 1; points less than half a unit of the picture apart are one."""
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    axes = Axes(52.0, 16.0, 352.0, 262.0, ticks, ticks)
    placed = [axes.place(*point) for point in points]
    kept = placed[:1]
    for x, y in placed[1:-1]:
        if max(abs(x - kept[-1][0]), abs(y - kept[-1][1])) >= 0.5:
            kept.append((x, y))
    parts = axes.frame("{:.0%}", "{:.0%}", x_title)
    parts.append(line([axes.place(*point) for point in guessing], "ideal"))
    parts.append(line([*kept, placed[-1]], "series series1"))
    return picture(WIDTH, 322.0, parts, label)


def cost_curve(probabilities: Probabilities, labels: Labels, costs: Floats, classes: Sequence[str]) -> Markup:
    """Draw the mean cost over the threshold, of two classes, and mark the rule's and that of the most probable class.

    Args:
        probabilities: float32 (N, 2).
        labels: (N,).
        costs: float64 (2, 2), rows actual, columns answered.
        classes: Their names.
    """
    rule, thresholds = threshold_of(costs), np.linspace(0, 1, THRESHOLDS)
    values = mean_costs(probabilities, labels, costs, thresholds)
    axes = Axes(52.0, 34.0, 352.0, 244.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0], round_ticks(0.0, float(values.max())))
    parts = axes.frame("{:.0%}", "{:g}", f"answered {shorten(classes[rule.sought], 20)} above this probability of it")
    points = [axes.place(x, y) for x, y in zip(thresholds.tolist(), values.tolist(), strict=True)]
    parts.append(line(points, "series series1"))
    marked = {0.5: "most probable", rule.value: "least expected cost"}  # of costs that are equal, one
    for value, words in marked.items():
        x, y = axes.place(value, float(mean_costs(probabilities, labels, costs, np.array([value]))[0]))
        is_rule = value == rule.value
        parts.append(line([(x, axes.top), (x, axes.top + axes.height)], "chosen"))
        parts.append(text(x, axes.top - (18 if is_rule else 4), words, "note", "start" if value < 0.5 else "end"))
        parts.append(element("circle", cx=x, cy=y, r=4.5, class_=f"dot series{2 if is_rule else 1}"))
    return picture(WIDTH, 322.0, parts, "mean cost by threshold")


def class_scores_picture(classes: Sequence[str], scores: ClassScores) -> Markup:
    """Draw precision and recall as two dots on a line, one row a class, lowest F1 first, the 40 weakest of more.

    What was not measured has no dot.
    """
    row, left = 26.0, 92.0
    order = np.argsort(scores.f1, kind="stable")[:MAX_NAMED_CLASSES]
    low = float(np.nanmin([scores.recall[order], scores.precision[order]]))
    axes = Axes(left, 34.0, WIDTH - left - 20, row * len(order), round_ticks(low, 1.0, 4), [0, 1])
    bottom = axes.top + axes.height
    parts = [
        element("circle", cx=left + 6, cy=15.0, r=5.5, class_="dot series1"),
        text(left + 17, 19, "recall", anchor="start"),
        element("circle", cx=left + 76, cy=15.0, r=3.5, class_="dot series2"),
        text(left + 87, 19, "precision", anchor="start"),
    ]
    for value in axes.x_ticks:
        x = axes.place(value, 0)[0]
        parts += [line([(x, axes.top), (x, bottom)], "grid"), text(x, bottom + 17, f"{value:.0%}")]
    for position, index in enumerate(order):
        y = axes.top + (position + 0.5) * row
        shares = [float(scores.recall[index]), float(scores.precision[index])]
        said = ["not measured" if np.isnan(share) else f"{share:.1%}" for share in shares]
        tip = element("title", f"{classes[index]}: recall {said[0]}, precision {said[1]}")
        parts.append(text(left - 10, y + 4, shorten(classes[index], 12), anchor="end"))
        dots = [
            (number, radius, axes.place(share, 0)[0])
            for number, radius, share in zip((1, 2), (5.5, 3.5), shares, strict=True)
            if not np.isnan(share)
        ]
        if len(dots) == 2:
            parts.append(line([(x, y) for _, _, x in dots], "link"))
        parts += [element("circle", tip, cx=x, cy=y, r=size, class_=f"dot series{number}") for number, size, x in dots]
    return picture(WIDTH, bottom + 26, parts, "recall and precision by class")


def interval_line(metrics: Mapping[str, float], classes: int) -> Markup:
    """Draw top-1 with its interval on a line from chance to 100 %."""
    chance, width = 1 / classes, 500.0
    axes = Axes(14.0, 0.0, width - 28, 30.0, [0, 1], [0, 1])
    at = {name: axes.place(float(value), 0)[0] for name, value in metrics.items() if name.startswith("top1")}
    parts = [line([(axes.left, 22), (axes.left + axes.width, 22)], "scale")]
    for value in (0, 0.25, 0.5, 0.75, 1.0):
        x = axes.place(value, 0)[0]
        parts += [line([(x, 19), (x, 25)], "axis"), text(x, 42, f"{value:.0%}")]
    x = axes.place(chance, 0)[0]
    parts += [line([(x, 14), (x, 30)], "chosen"), text(x, 9, "chance", "note")]
    span = {"x": at["top1_low"], "width": max(1.0, at["top1_high"] - at["top1_low"]), "y": 15.0, "height": 14.0}
    parts.append(element("rect", class_="bar faint", rx=3.0, **span))
    parts.append(element("circle", cx=at["top1"], cy=22.0, r=5.5, class_="dot series1"))
    return picture(width, 48, parts, "top-1 and its interval between chance and 100 %")
