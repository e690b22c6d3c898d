"""Each chart is well-formed and shows what it was given."""

from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.evaluation.calibration import Calibration, calibration
from tasks.evaluation.costs import mean_costs
from tasks.evaluation.metrics import class_scores
from tasks.evaluation.ranking import ranking_by
from tasks.reporting import plots

NAMES = ["ant", "bee", "cat & <dog>"]
CONFUSION = np.array([[8, 1, 1], [0, 10, 0], [2, 3, 5]])


def parse(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup)  # noqa: S314  our own markup


def having(svg: ElementTree.Element, class_: str) -> list[ElementTree.Element]:
    return [part for part in svg.iter() if class_ in part.get("class", "").split()]


def test_curves_draw_each_series_and_leave_gaps() -> None:
    series: dict[str, list[float | None]] = {"train": [0.1, 0.5, 0.7, 0.9], "validation": [0.2, None, 0.6, 0.8]}
    svg = parse(plots.curves([1, 2, 3, 4], series, "{:.0%}", chosen=3))
    dots = [[dot for dot in having(svg, "dot") if f"series{number}" in dot.attrib["class"]] for number in (1, 2)]
    assert [len(found) for found in dots] == [4, 3]
    assert len([line for line in having(svg, "series2") if "series" in line.attrib["class"].split()]) == 3
    assert len(having(svg, "chosen")) == 1


def test_a_single_epoch_can_be_drawn() -> None:
    svg = parse(plots.curves([1], {"learning rate": [0.1]}, "{:g}", chosen=None))
    assert len(having(svg, "dot")) == 1


def test_confusion_numbers_are_all_there_and_rows_are_actual() -> None:
    svg = parse(plots.confusion_picture(CONFUSION, NAMES))
    assert [int(part.text or "") for part in having(svg, "number")] == CONFUSION.ravel().tolist()
    opacity = [float(part.attrib["fill-opacity"]) for part in having(svg, "wrong")]
    assert opacity == pytest.approx([np.sqrt(x) for x in (0.1, 0.1, 0.2, 0.3)], abs=1e-2)
    assert [part.text for part in having(svg, "label")][::2] == ["ant", "bee", "cat & <dog>"]


@pytest.mark.parametrize("classes", [2, 30, 200])
def test_confusion_of_any_number_of_classes(classes: int) -> None:
    names = [f"class {index}" for index in range(classes)]
    text = plots.confusion_picture(np.eye(classes, dtype=int), names)
    assert len(having(parse(text), "right")) == min(classes, plots.MOST_CONFUSED)
    assert len(text) < 40_000, "cells without images take no space in a large matrix"


def test_of_many_classes_those_are_shown_that_can_be_read() -> None:
    confusion = 10 * np.eye(1000, dtype=int)
    confusion[700, 3], confusion[5, 900] = 4, 2
    names = [f"c{index}" for index in range(1000)]
    svg = parse(plots.confusion_picture(confusion, names))
    shown = [part.text for part in having(svg, "label")][::2]
    assert len(shown) == plots.MOST_CONFUSED
    assert {"c3", "c5", "c700", "c900"} < set(shown)
    assert float(having(svg, "wrong")[0].attrib["fill-opacity"]) == pytest.approx((2 / 12) ** 0.5, abs=1e-3)
    chart = parse(plots.class_scores_picture(names, class_scores(confusion)))
    weakest = [part.text for part in having(chart, "label") if part.text in names]
    assert weakest[:2] == ["c3", "c700"]  # of equal F1, the first
    assert len(weakest) == plots.MAX_NAMED_CLASSES
    assert float(chart.attrib["viewBox"].split()[3]) < 1200


def test_reliability_bars_stand_at_their_accuracy() -> None:
    probabilities = np.array([[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]], np.float32)
    found: Calibration = calibration(probabilities, np.array([0, 0, 0], np.int32), bins=4)
    svg = parse(plots.reliability_diagram(found))
    bars = [bar for bar in having(svg, "bar") if "faint" not in bar.attrib["class"]]
    assert [float(bar.attrib["height"]) / 262 for bar in bars] == pytest.approx([0.5, 1.0])
    assert bars[0][0].text == "2 images, confidence 65.0%, accuracy 50.0%"


def path_of(svg: ElementTree.Element, class_: str) -> NDArray[np.float64]:
    """A curve's points as shares: 0 to 1 from left to right and from below upwards."""
    (curve,) = having(svg, class_)
    places = [[float(number) for number in point.split()] for point in curve.attrib["d"].removeprefix("M").split("L")]
    return np.array([[(x - 52) / 352, 1 - (y - 16) / 262] for x, y in places])


def test_curves_of_two_classes_go_through_every_threshold() -> None:
    found = ranking_by(np.array([0.9, 0.6, 0.4, 0.4]), np.array([True, False, True, False]))
    roc = path_of(parse(plots.roc_curve(found)), "series1")
    np.testing.assert_allclose(roc, np.array([[0, 0], [0, 0.5], [0.5, 0.5], [1, 1]]), atol=1e-3)
    svg = parse(plots.precision_recall_curve(found))
    # A threshold that adds only false positives is a fall within the step that follows.
    np.testing.assert_allclose(path_of(svg, "series1"), np.array([[0, 1], [0.5, 1], [0.5, 0.5], [1, 0.5]]), atol=1e-3)
    np.testing.assert_allclose(path_of(svg, "ideal"), np.array([[0, 0.5], [1, 0.5]]), atol=1e-3)


def test_curves_of_many_images_take_little_space_and_end_where_they_should() -> None:
    generator = np.random.default_rng(0)
    positive = generator.random(50_000) < 0.3
    found = ranking_by(generator.normal(size=50_000) + positive, positive)
    for text in (plots.roc_curve(found), plots.precision_recall_curve(found)):
        assert len(text) < 25_000
    assert path_of(parse(plots.roc_curve(found)), "series1")[-1].tolist() == [1, 1]


def test_the_curve_of_costs_marks_the_rule_and_the_most_probable_class() -> None:
    generator = np.random.default_rng(1)
    labels = (np.arange(60) % 2).astype(np.int32)
    shares = np.clip(generator.normal(0.35 + 0.3 * labels, 0.2), 0.01, 0.99).astype(np.float32)
    probabilities, costs = np.stack([1 - shares, shares], axis=1), np.array([[0.0, 1.0], [4.0, 0.0]])
    svg = parse(plots.cost_curve(probabilities, labels, costs, ["sound", "sick & <tired>"]))
    assert "answered sick & <tired> above this probability of it" in [part.text for part in having(svg, "title")]
    low, high = (float(part.text or "") for part in (having(svg, "label")[0], having(svg, "label")[-7]))
    (rule,), (even,) = having(svg, "series2"), [dot for dot in having(svg, "dot") if "series1" in dot.attrib["class"]]
    for dot, threshold in ((rule, 0.2), (even, 0.5)):
        cost = mean_costs(probabilities, labels, costs, np.array([threshold]))[0]
        assert float(dot.attrib["cx"]) == pytest.approx(52 + 352 * threshold, abs=0.01)
        height = 1 - (float(dot.attrib["cy"]) - 34) / 244
        assert low + height * (high - low) == pytest.approx(cost, abs=1e-3)
    assert {part.text for part in having(svg, "note")} == {"least expected cost", "most probable"}
    equal = parse(plots.cost_curve(probabilities, labels, 1 - np.eye(2), ["a", "b"]))
    assert [part.text for part in having(equal, "note")] == ["least expected cost"]


def test_class_scores_are_sorted_by_f1() -> None:
    svg = parse(plots.class_scores_picture(NAMES, class_scores(CONFUSION)))
    labels = [part.text for part in having(svg, "label")]
    assert [name for name in labels if name in NAMES] == ["cat & <dog>", "ant", "bee"]


def test_a_class_without_an_image_has_no_dot_for_its_recall() -> None:
    confusion = np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    svg = parse(plots.class_scores_picture(NAMES, class_scores(confusion)))
    tips = [dot[0].text for dot in having(svg, "dot") if len(dot)]
    assert tips.count(f"{NAMES[2]}: recall not measured, precision 0.0%") == 1
    assert len(tips) == 5


def test_interval_line_places_top1_between_its_bounds() -> None:
    values = {"top1": 0.6, "top1_low": 0.5, "top1_high": 0.7}
    svg = parse(plots.interval_line(values, classes=10))
    (bar,), (dot,) = having(svg, "bar"), having(svg, "dot")
    start, width = float(bar.attrib["x"]), float(bar.attrib["width"])
    assert float(dot.attrib["cx"]) == pytest.approx(start + width / 2)
