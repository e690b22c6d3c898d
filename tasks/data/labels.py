"""labels.csv: what people say of their images, in a table beside them; it wins over the names of folders.

Its columns are `path,label[,group][,split]`, in any order: the path from the table's own folder, the class, who belongs
together (as `split.group` does by names), and the split, where one is given. Excel's forms are taken too: a byte order
mark, and semicolons. An image that the table does not list has the class that its folder names, `<class>/<image>` or
`<split>/<class>/<image>`; one that has neither is left out, and said.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.data.layout import SPLIT_FOLDERS, Entry, check_label, sorted_by_path
from tasks.data.names import IMAGE_SUFFIXES, is_clutter, member_name
from tasks.stage.errors import InputError

LABELS_NAME = "labels.csv"
MAX_LABELS_BYTES = 256 << 20  # a million images have a hundred
REQUIRED, OPTIONAL = ("path", "label"), ("group", "split")


@dataclass(frozen=True)
class Labelled:
    """What labels.csv makes of a collection or an archive.

    Attributes:
        entries: The images that have a class, sorted by path.
        unlabelled: Images that have none.
        absent: Paths in labels.csv where there is no file.
    """

    entries: list[Entry]
    unlabelled: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is worth a sentence: each names how many, and the first."""
        found = []
        if self.unlabelled:
            found.append(f"{len(self.unlabelled):,} images have no label, as {self.unlabelled[0]!r}")
        if self.absent:
            found.append(f"{LABELS_NAME} names {len(self.absent):,} files that are not there, as {self.absent[0]!r}")
        return tuple(found)


def labels_file(files: Iterable[str]) -> str | None:
    """Return the path of labels.csv among those of files: the one that lies highest; None where there is none."""
    found = [name for name in files if PurePosixPath(name).name == LABELS_NAME and not is_clutter(name)]
    return min(found, key=lambda name: (len(PurePosixPath(name).parts), name), default=None)


def read_labels(data: bytes, folder: PurePosixPath) -> dict[str, Entry]:
    """Return what labels.csv says of each path, by the file's path in its plain form.

    Args:
        data: The table's bytes.
        folder: In which it lies.

    Raises:
        InputError: It is not UTF-8, or no table with these columns; a path is there twice, climbs out, or has no label.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{LABELS_NAME} is not UTF-8: save it as CSV UTF-8 ({error.reason})") from error
    first = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in first else ",", strict=True)
    _check_columns([name.strip() for name in rows.fieldnames or ()])
    rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
    found: dict[str, Entry] = {}
    try:
        for row in rows:
            entry = _entry(row, folder, rows.line_num)
            if entry.name in found:
                raise InputError(f"{LABELS_NAME} has the path {entry.name!r} twice, again in line {rows.line_num}")
            found[entry.name] = entry
    except csv.Error as error:
        raise InputError(f"{LABELS_NAME} is damaged in line {rows.line_num}: {error}") from error
    return found


def label(files: Iterable[str], labels: Mapping[str, Entry], folder: PurePosixPath) -> Labelled:
    """Give each image its class: by labels.csv, or else by its folder.

    Args:
        files: Paths of all files.
        labels: As read_labels gives them.
        folder: In which labels.csv lies; what lies elsewhere is left out.

    Raises:
        InputError: A folder's name can be no class.
    """
    entries, unlabelled, present = list[Entry](), list[str](), set[str]()
    for name in files:
        path = PurePosixPath(name)
        if name in labels:
            present.add(name)
            entries.append(labels[name])
        elif path.suffix.lower() in IMAGE_SUFFIXES and not is_clutter(name) and path.is_relative_to(folder):
            by_folder = _by_folder(name, path.relative_to(folder).parts)
            entries.append(by_folder) if by_folder else unlabelled.append(name)
    return Labelled(sorted_by_path(entries), tuple(sorted(unlabelled)), tuple(sorted(labels.keys() - present)))


def _check_columns(names: list[str]) -> None:
    allowed = ", ".join((*REQUIRED, *OPTIONAL))
    if missing := [name for name in REQUIRED if name not in names]:
        raise InputError(f"{LABELS_NAME} has no column {missing[0]!r}; its columns may be {allowed}")
    if unknown := [name for name in names if name not in REQUIRED + OPTIONAL]:
        raise InputError(f"{LABELS_NAME} has the unknown column {unknown[0]!r}; its columns may be {allowed}")
    if len(set(names)) < len(names):
        raise InputError(f"{LABELS_NAME} has a column twice; its columns may be {allowed}")


def _entry(row: Mapping[str, str | None], folder: PurePosixPath, line: int) -> Entry:
    path, name = ((row[column] or "").strip() for column in REQUIRED)
    group, split = ((row.get(column) or "").strip() for column in OPTIONAL)
    if not path or not name:
        raise InputError(f"{LABELS_NAME} has no {'label' if path else 'path'} in line {line}")
    try:
        plain = str(folder / member_name(path.removeprefix("./").replace("\\", "/")))
        check_label(name)
    except InputError as error:
        raise InputError(f"{LABELS_NAME} {error}, in line {line}") from error
    if split and split.lower() not in SPLIT_FOLDERS:
        raise InputError(
            f"{LABELS_NAME} has the unknown split {split!r} in line {line}; may be train, validation, test"
        )
    return Entry(plain, SPLIT_FOLDERS.get(split.lower()), name, group)


def _by_folder(name: str, parts: tuple[str, ...]) -> Entry | None:
    """Return what an image's own folder says, or None where it lies in none."""
    if len(parts) > 2 and parts[0].lower() in SPLIT_FOLDERS:
        check_label(parts[1])
        return Entry(name, SPLIT_FOLDERS[parts[0].lower()], parts[1])
    if len(parts) > 1:
        check_label(parts[0])
        return Entry(name, None, parts[0])
    return None
