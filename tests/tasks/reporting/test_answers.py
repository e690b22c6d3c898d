"""Which answers are looked at, and what is said of them, by hand."""

import numpy as np
import pytest

from tasks.reporting.answers import (
    LONGEST_NAME,
    Chance,
    chances,
    least_sure,
    margins,
    most_confident_mistakes,
    shown_name,
)

CLASSES = ("ant", "bee", "cat", "dog")
ANSWERS = np.array([[0.75, 0.25, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0.5, 0.375, 0.125]], np.float32)


def test_the_most_probable_classes_and_the_right_one() -> None:
    best = [Chance("bee", 0.5), Chance("cat", 0.375)]
    assert chances(ANSWERS[2], CLASSES, 2) == tuple(best)
    assert chances(ANSWERS[2], CLASSES, 2, actual=0) == (*best, Chance("ant", 0.0, is_actual=True))
    assert chances(ANSWERS[2], CLASSES, 2, actual=2) == (best[0], Chance("cat", 0.375, is_actual=True))
    assert [chance.name for chance in chances(ANSWERS[1], CLASSES, 3)] == ["ant", "bee", "cat"]
    assert len(chances(ANSWERS[0], CLASSES, 9)) == 4


def test_the_lowest_margin_comes_first_and_of_equal_ones_the_first() -> None:
    assert margins(ANSWERS).tolist() == [0.5, 0, 0.125]
    assert least_sure(ANSWERS, 2).tolist() == [1, 2]
    assert least_sure(ANSWERS[[0, 2, 0, 2]], 9).tolist() == [1, 3, 0, 2]
    assert margins(np.ones((2, 1), np.float32)).tolist() == [0, 0]


def test_most_confident_mistakes_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.3, 0.7]], np.float32)
    labels = np.array([0, 1, 0, 0, 0], np.int32)
    assert most_confident_mistakes(labels, probabilities, 3).tolist() == [2, 1, 3]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("monday.zip!/cat/1.png", "monday.zip!/cat/1.png"),
        ("a\nb\u202egnp.exe\udcff", "a?b?gnp.exe?"),
        ("x" * 500 + "/1.png", "…" + "x" * (LONGEST_NAME - 7) + "/1.png"),
    ],
)
def test_a_name_is_one_line_of_bounded_length(path: str, shown: str) -> None:
    assert shown_name(path) == shown
