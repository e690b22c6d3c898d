"""Which split and class each path of an archive of labelled images names: `[top/][split/]class/image`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.data.arrays import SPLITS
from tasks.stage.errors import InputError

SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
CLUTTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One image of the archive.

    Attributes:
        name: Its member's name.
        split: One of SPLITS, or None where the archive has no split folders.
        label: Name of its class.
    """

    name: str
    split: str | None
    label: str


def is_clutter(name: str) -> bool:
    """Tell a file that people did not mean to pack: hidden, `__MACOSX`, `Thumbs.db`."""
    return any(part in CLUTTER or part.startswith(".") for part in PurePosixPath(name).parts)


def read_layout(files: Sequence[str], folders: Sequence[str]) -> list[Entry]:
    """Return the images sorted by path.

    One folder around everything is taken off first. Then either every image lies in `<split>/<class>/`, or every one
    in `<class>/`. Files above the class folders that are not images (a README) are left alone.

    Args:
        files: Paths of the archive's files.
        folders: Paths of its folders, as far as it names them; they show classes that are empty.

    Raises:
        InputError: An image lies elsewhere, a class or split is empty, only one class is there, a class has no
            training image, or the folders `val` and `validation` are both there.
    """
    paths = {PurePosixPath(name).parts: name for name in sorted(files) if not is_clutter(name)}
    kept_folders = {parts for name in folders if not is_clutter(name) for parts in [PurePosixPath(name).parts] if parts}
    kept_folders |= {
        PurePosixPath(name).parent.parts for name in files if not is_clutter(str(PurePosixPath(name).parent))
    }
    top = _top_folder(paths)
    paths = {parts[len(top) :]: name for parts, name in paths.items() if parts[: len(top)] == top}
    kept_folders = {parts[len(top) :] for parts in kept_folders if parts[: len(top)] == top}
    has_splits = any(len(parts) == 3 and parts[0].lower() in SPLIT_FOLDERS for parts in paths)
    entries = [entry for parts, name in paths.items() if (entry := _entry(parts, name, has_splits)) is not None]
    _refuse_unusable(entries, kept_folders, has_splits)
    return sorted(entries, key=lambda entry: PurePosixPath(entry.name).parts)


def _top_folder(paths: Iterable[Parts]) -> Parts:
    """Return the one folder around everything, or nothing."""
    nested = [parts for parts in paths if len(parts) > 1]
    firsts = {parts[0] for parts in nested}
    if len(firsts) == 1 and max(map(len, nested)) > 2 and not firsts & SPLIT_FOLDERS.keys():
        return (firsts.pop(),)
    return ()


def _entry(parts: Parts, name: str, has_splits: bool) -> Entry | None:
    """Return what a path says, or None for a file beside the images, like a README."""
    depth = 3 if has_splits else 2
    if len(parts) < depth and PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
        return None
    split = SPLIT_FOLDERS.get(parts[0].lower()) if has_splits else None
    if len(parts) != depth or (has_splits and split is None) or (not has_splits and parts[0] in SPLIT_FOLDERS):
        wanted = "<split>/<class>/<image>" if has_splits else "<class>/<image>"
        raise InputError(f"the archive's file {name!r} does not lie in {wanted} like the others")
    if not parts[-2].isprintable():  # a terminal would obey it, wherever the class is named
        raise InputError(f"the archive's class folder {parts[-2]!r} has a character that cannot be printed")
    return Entry(name, split, parts[-2])


def _refuse_unusable(entries: list[Entry], folders: set[Parts], has_splits: bool) -> None:
    """Raise InputError for empty folders, a single class, or a class that cannot be learnt."""
    if not entries:
        raise InputError("the archive holds no image in a class folder")
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
    if {("val",), ("validation",)} <= {parts[:1] for parts in folders} and has_splits:
        raise InputError("the archive has both the folders 'val' and 'validation'")
    classes = {entry.label for entry in entries}
    if len(classes) < 2:
        raise InputError(f"the archive holds the one class {classes.pop()!r}; a classifier needs at least two")
    if has_splits:
        trained = {label for split, label in full if split == SPLITS[0]}
        if untrained := classes - trained:
            raise InputError(f"the archive's class {min(untrained)!r} has no image in 'train'")


def _named(parts: Parts, has_splits: bool) -> tuple[str | None, str]:
    return (SPLIT_FOLDERS.get(parts[0].lower()), parts[1]) if has_splits else (None, parts[0])
