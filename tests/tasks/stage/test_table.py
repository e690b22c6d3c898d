"""Tables for spreadsheets."""

import csv
import io

import pytest

from tasks.stage.shown import one_line
from tasks.stage.table import spreadsheet_cell, text_of_cell, write_table


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("cat", "cat"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("'=1", "''=1"),
        ("a\x1b[2Jb\nc", "a?[2Jb?c"),
        ("\u202egnp.exe", "?gnp.exe"),
    ],
)
def test_a_cell_is_text(text: str, cell: str) -> None:
    assert spreadsheet_cell(text) == cell
    assert text_of_cell(cell) == one_line(text)


def test_numbers_stay_numbers() -> None:
    stream = io.StringIO()
    write_table(stream, ["class", "change"], [["=cat", -0.5], ["a, b", 2]])
    assert list(csv.reader(io.StringIO(stream.getvalue()))) == [["class", "change"], ["'=cat", "-0.5"], ["a, b", "2"]]
