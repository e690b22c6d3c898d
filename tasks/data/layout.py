"""Which split and class each path of an archive of labelled images names: `[top/][split/]class/image`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.data.arrays import SPLITS
from tasks.data.names import IMAGE_SUFFIXES, is_clutter
from tasks.stage.errors import InputError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
SPLIT_FOLDERS = {name: split for split, names in SPLIT_NAMES.items() for name in names}

MAX_CLASS_NAME = 200  # characters; file systems end at 255 bytes

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One image of the archive.

    Attributes:
        name: Its member's name.
        split: One of SPLITS, or None where the archive has no split folders.
        label: Name of its class.
        group: Who belongs together, where labels.csv says it; else empty.
    """

    name: str
    split: str | None
    label: str
    group: str = ""


def read_layout(files: Sequence[str], folders: Sequence[str]) -> list[Entry]:
    """Return the images sorted by path.

    Folders around everything are taken off first. Then either every image lies in `<split>/<class>/`, or every one
    in `<class>/`, some perhaps in folders inside it. Files above the class folders that are not images (a README) are
    left alone.

    Args:
        files: Paths of the archive's files.
        folders: Paths of its folders, as far as it names them; they show classes that are empty.

    Raises:
        InputError: An image lies elsewhere, a class or split is empty, only one class is there, a class has no
            training image, or one split has folders of two names.
    """
    entries, kept_folders, has_splits = _classified(files, folders)
    _refuse_unusable(entries, kept_folders, has_splits)
    return sorted_by_path(entries)


def read_part(files: Sequence[str]) -> list[Entry]:
    """Return the images of a part of a set, in which a class or a split may be missing; raises as read_layout does."""
    return _classified(files, [])[0]


def sorted_by_path(entries: Iterable[Entry]) -> list[Entry]:
    """Return images in the order of their paths, folder by folder."""
    return sorted(entries, key=lambda entry: PurePosixPath(entry.name).parts)


def _classified(files: Sequence[str], folders: Sequence[str]) -> tuple[list[Entry], set[Parts], bool]:
    """Return the images, all folders, and whether there are folders of splits."""
    paths = {PurePosixPath(name).parts: name for name in sorted(files) if not is_clutter(name)}
    kept_folders = {parts for name in folders if not is_clutter(name) for parts in [PurePosixPath(name).parts] if parts}
    kept_folders |= {
        PurePosixPath(name).parent.parts for name in files if not is_clutter(str(PurePosixPath(name).parent))
    }
    depth = _folders_around(paths)
    top = next((parts[:depth] for parts in paths if len(parts) > depth), ())
    paths = {parts[depth:]: name for parts, name in paths.items() if parts[:depth] == top}
    kept_folders = {parts[depth:] for parts in kept_folders if parts[:depth] == top}
    has_splits = any(len(parts) == 3 and parts[0].lower() in SPLIT_FOLDERS for parts in paths)
    if not has_splits:
        _refuse_splits_without_classes(paths)
    depth = 3 if has_splits else 2
    classes = {parts[: depth - 1] for parts in paths if len(parts) == depth}
    _refuse_misplaced(paths, classes, depth)
    entries = [entry for parts, name in paths.items() if (entry := _entry(parts, name, has_splits)) is not None]
    return entries, kept_folders, has_splits


def _folders_around(paths: Iterable[Parts]) -> int:
    """Return how many folders lie one in the other around everything: `pets/pets/cat/1.png` has two."""
    depth = 0
    while True:
        nested = [parts[depth:] for parts in paths if len(parts) > depth + 1]
        firsts = {parts[0] for parts in nested}
        if len(firsts) != 1 or max(map(len, nested)) <= 2 or firsts & SPLIT_FOLDERS.keys():
            return depth
        depth += 1


def _refuse_splits_without_classes(paths: Iterable[Parts]) -> None:
    """Raise InputError where all folders are called as splits are; among others, `train` is a class like any."""
    firsts = {parts[0] for parts in paths if len(parts) == 2}
    if firsts and all(name.lower() in SPLIT_FOLDERS for name in firsts):
        raise InputError(
            f"the archive's images lie in {_listed(firsts)} without class folders; wanted are "
            "<split>/<class>/<image> or <class>/<image>"
        )


def _refuse_misplaced(paths: dict[Parts, str], classes: set[Parts], depth: int) -> None:
    """Raise InputError for images above the class folders, or below folders that hold no image themselves.

    Folders inside a class folder are a person's order of one class, where images lie in the class folder too; where
    none does, the folders inside may be the classes.
    """
    wanted = "<split>/<class>/<image>" if depth == 3 else "<class>/<image>"
    misplaced = [
        name
        for parts, name in paths.items()
        if (len(parts) < depth and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES)
        or (len(parts) > depth and parts[: depth - 1] not in classes)
    ]
    if misplaced:
        raise InputError(
            f"the archive's file {misplaced[0]!r} does not lie in {wanted} like the others"
            f"{f', nor do {len(misplaced) - 1:,} more' if len(misplaced) > 1 else ''}: move each up or down into its "
            "class's folder"
        )


def _entry(parts: Parts, name: str, has_splits: bool) -> Entry | None:
    """Return what a path says, or None for a file beside the images, like a README."""
    depth = 3 if has_splits else 2
    if len(parts) < depth:
        return None
    split = SPLIT_FOLDERS.get(parts[0].lower()) if has_splits else None
    if has_splits and split is None:
        known = "; ".join(f"{', '.join(names)}" for names in SPLIT_NAMES.values())
        raise InputError(f"the archive's folder {parts[0]!r} is not the name of a split; these are: {known}")
    label = parts[depth - 2]
    try:
        check_label(label)
    except InputError as error:
        raise InputError(f"the archive {error}") from error
    return Entry(name, split, label)


def check_label(label: str) -> None:
    """Refuse the name of a class that a terminal would obey, wherever it is shown, or that is as long as a page."""
    if not label.isprintable():
        raise InputError(f"has the class {label!r}, with a character that cannot be printed")
    if len(label) > MAX_CLASS_NAME:
        raise InputError(f"has the class {label[:40]!r}…, with a name of {len(label):,} characters")


def refuse_too_few(entries: Sequence[Entry]) -> None:
    """Raise InputError where no image has a class, or all have the same one."""
    if not entries:
        raise InputError("the archive holds no image in a class folder")
    classes = {entry.label for entry in entries}
    if len(classes) < 2:
        raise InputError(f"the archive holds the one class {classes.pop()!r}; a classifier needs at least two")


def _refuse_unusable(entries: list[Entry], folders: set[Parts], has_splits: bool) -> None:
    """Raise InputError for empty folders, a single class, or a class that cannot be learnt."""
    if not entries:
        refuse_too_few(entries)
    full = {(entry.split, entry.label) for entry in entries}
    for parts in sorted(folders):
        if len(parts) == (2 if has_splits else 1) and _named(parts, has_splits) not in full:
            raise InputError(f"the archive's class folder {'/'.join(parts)!r} holds no image")
        if (
            has_splits
            and len(parts) == 1
            and not any(SPLIT_FOLDERS.get(parts[0].lower()) == split for split, _ in full)
        ):
            raise InputError(f"the archive's folder {parts[0]!r} holds no class")
    if has_splits:
        _refuse_split_of_two_names({parts[0] for parts in folders if parts})
    refuse_too_few(entries)
    classes = {entry.label for entry in entries}
    if has_splits:
        trained = {label for split, label in full if split == SPLITS[0]}
        if untrained := classes - trained:
            raise InputError(f"the archive's class {min(untrained)!r} has no image in 'train'")


def _refuse_split_of_two_names(folders: set[str]) -> None:
    """Raise InputError where two folders, as `val` and `valid`, are one split: which of them is meant is not known."""
    for split in SPLITS:
        names = {name for name in folders if SPLIT_FOLDERS.get(name.lower()) == split}
        if len(names) > 1:
            raise InputError(f"the archive has several folders for {split}: {_listed(names)}")


def _listed(names: Iterable[str]) -> str:
    return " and ".join(map(repr, sorted(names)))


def _named(parts: Parts, has_splits: bool) -> tuple[str | None, str]:
    return (SPLIT_FOLDERS.get(parts[0].lower()), parts[1]) if has_splits else (None, parts[0])
