"""Elements are well-formed and escaped; ticks are round and enclose the values."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.reporting.svg import element, picture, round_ticks, shorten, text


def parse(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup)  # noqa: S314  our own markup


def test_content_and_attributes_are_escaped() -> None:
    markup = element("text", "<b>&", class_='a"b', text_anchor="end")
    parsed = parse(markup)
    assert (parsed.text, parsed.attrib) == ("<b>&", {"class": 'a"b', "text-anchor": "end"})


def test_a_picture_is_one_well_formed_element() -> None:
    parsed = parse(picture(10, 20.5, [text(1, 2, "é<")], "a label"))
    assert parsed.attrib["viewBox"] == "0 0 10 20.5"
    assert parsed[0].text == "é<"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (3, 47, [0, 10, 20, 30, 40, 50]),
        (0.001, 0.001, [0, 0.0002, 0.0004, 0.0006, 0.0008, 0.001]),
    ],
)
def test_ticks_by_hand(low: float, high: float, ticks: list[float]) -> None:
    assert round_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_and_ascend(low: float, span: float) -> None:
    ticks = round_ticks(low, low + span)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert all(a < b for a, b in pairwise(ticks))
    assert 2 <= len(ticks) <= 12


def test_epochs_get_whole_ticks() -> None:
    assert round_ticks(0, 2, smallest=1) == [0, 1, 2]


def test_shorten() -> None:
    assert (shorten("cat", 5), shorten("automobile", 5)) == ("cat", "auto…")
