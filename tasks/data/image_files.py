"""Which file each image of a split came from: index.csv read again, for a stage that has the arrays alone."""

import csv
from dataclasses import dataclass
from pathlib import Path

from tasks.data.arrays import Labels, SplitRecord
from tasks.stage.errors import InputError
from tasks.stage.table import spreadsheet_cell, text_of_cell

INDEX_NAME = "index.csv"
INDEX_COLUMNS = ("split", "label", "sha256", "group", "path")
WITH_FILES = "folders"  # the data set whose images have files of their own


@dataclass(frozen=True)
class ImageFile:
    """The file of an image.

    Attributes:
        path: In the collection or archive, without what a terminal would obey.
        sha256: Of its bytes, in hexadecimal.
    """

    path: str
    sha256: str


def image_files(folder: Path, split: str, record: SplitRecord, labels: Labels) -> tuple[ImageFile, ...]:
    """Return the file of each image of a split, in the arrays' order; none where the data set has no such files.

    Args:
        folder: That the stage split wrote.
        split: One of SPLITS.
        record: What split.json says.
        labels: Of the split's images, int32 (N,), with which the rows of index.csv must agree.

    Raises:
        InputError: index.csv is missing, no such table, or of other images than the arrays.
    """
    if record.dataset != WITH_FILES:
        return ()
    path = folder / INDEX_NAME
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream, strict=True) if row["split"] == split]
        said = [row["label"] for row in rows]
        files = tuple(ImageFile(text_of_cell(row["path"]), row["sha256"]) for row in rows)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run the stage split first") from error
    except (AttributeError, KeyError, ValueError, csv.Error) as error:  # the first where a row is cut short
        raise InputError(f"{path} is not what the stage split writes: {error}") from error
    if said != [spreadsheet_cell(record.classes[label]) for label in labels]:
        raise InputError(f"{path} does not list the {split} images of the arrays beside it; run split again")
    return files
