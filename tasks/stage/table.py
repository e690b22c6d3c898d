"""CSV files that people open in a spreadsheet: no cell of theirs is a formula, whatever a class or a file is called."""

import csv
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from tasks.stage.shown import one_line

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")


def spreadsheet_cell(text: str) -> str:
    """Return a text that a spreadsheet takes for text, with an apostrophe before it if need be.

    https://owasp.org/www-community/attacks/CSV_Injection; what a terminal would obey is a question mark.
    """
    line = one_line(text)
    return f"'{line}" if line.startswith(FORMULA_STARTS) else line


def text_of_cell(cell: str) -> str:
    """Return the text of a cell that spreadsheet_cell made, without the apostrophe: no cell of its has one else."""
    return cell.removeprefix("'")


def write_table(stream: TextIO, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows of texts and numbers, each at once."""
    writer = csv.writer(stream, lineterminator="\n")
    for row in itertools.chain((header,), rows):
        writer.writerow(_cells(row))


def _cells(row: Sequence[Any]) -> list[Any]:
    return [spreadsheet_cell(value) if isinstance(value, str) else value for value in row]
