"""index.csv beside the arrays: a row an image, in their order; what a person greps."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.data.arrays import SPLITS
from tasks.data.assignment import Assignment
from tasks.data.image_files import INDEX_COLUMNS, INDEX_NAME
from tasks.data.labelled import LabelledImages
from tasks.stage.table import write_table

QUARANTINE_NAME = "quarantine.csv"


def write_index(folder: Path, data: LabelledImages, assignment: Assignment, group: str | None) -> None:
    """Write which image is where: its split, label, sha256, group and path.

    The n-th row of a split is the n-th image of its arrays. An image without a file is named by its place in the
    archive, as `#17`, and known by the sha256 of its pixels.

    Args:
        folder: Of the arrays.
        data: All images.
        assignment: Which of them are in which split.
        group: The regular expression that names groups, or None.
    """
    with (folder / INDEX_NAME).open("w", encoding="utf-8", newline="") as stream:
        write_table(stream, INDEX_COLUMNS, _rows(data, assignment, group))


def write_quarantine(folder: Path, quarantine: Sequence[tuple[str, str]]) -> None:
    """Write which files could not be read and are no part of the arrays, and why; a table without rows for none."""
    with (folder / QUARANTINE_NAME).open("w", encoding="utf-8", newline="") as stream:
        write_table(stream, ("path", "reason"), quarantine)


def _rows(data: LabelledImages, assignment: Assignment, group: str | None) -> Iterator[tuple[Any, ...]]:
    names = data.group_names(group)
    for split in SPLITS:
        for position in assignment.indices[split]:
            path = data.paths[position] if data.paths else f"#{position}"
            yield split, data.classes[data.arrays.labels[position]], data.sha256[position], names[position], path
