"""People's own images: an archive or a snapshot with one folder a class, and perhaps one folder a split above them."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from tasks.data.archive import members
from tasks.data.arrays import SPLITS, Arrays, Fit, Images
from tasks.data.images import decode_image
from tasks.data.labelled import UNASSIGNED, LabelledImages
from tasks.data.labels import LABELS_NAME, label, labels_file, read_labels
from tasks.data.layout import Entry, read_layout, refuse_too_few
from tasks.data.shards import SHARDS_NAME, places, read_content
from tasks.data.snapshot import read_table
from tasks.stage.errors import InputError
from tasks.stage.progress import Progress
from tasks.stage.shown import printable

BYTES_AT_ONCE = 64 << 20
IMAGES_AT_ONCE = 512
SHOWN_PROBLEMS = 10

UNLABELLED = "it has no label"

Encoded = tuple[str, bytes]
Problem = tuple[str, str]  # a file, and why it is no part of the set


def read_folders(
    archive: Path, image_size: int, fit: Fit, scratch: Path, max_quarantined: float = 0.0
) -> LabelledImages:
    """Decode every image, sorted by path; classes sorted by name.

    Memory stays bounded: decoded images go to a file as they come, and are memory-mapped from there.

    Args:
        archive: The archive.
        image_size: Height and width in pixels to which images are brought.
        fit: How, as tasks.data.images has it.
        scratch: A file to be made for the decoded images; it must outlive the result.
        max_quarantined: What share of all images, and of each class's, may be set aside because they cannot be read.

    Raises:
        InputError: As tasks.data.archive and tasks.data.layout say, and as tasks.data.images does of more than may be
            set aside.
    """
    entries, left_out = _entries(archive)
    names = {entry.name for entry in entries}
    encoded = ((member.name, member.read()) for member in members(archive) if member.name in names)
    decoded = _decode_all(entries, encoded, image_size, fit, scratch)
    data = _labelled(archive, entries, decoded, scratch, max_quarantined)
    return replace(data, quarantine=tuple(sorted((*data.quarantine, *left_out))))


def read_snapshot(
    snapshot: Path, image_size: int, fit: Fit, scratch: Path, max_quarantined: float = 0.0
) -> LabelledImages:
    """Decode every image of a snapshot from the shards beside its table; else as read_folders.

    Raises:
        InputError: As tasks.data.snapshot, tasks.data.shards and tasks.data.images say.
    """
    rows = read_table(snapshot)
    shards = places(snapshot.parent / SHARDS_NAME)
    if missing := [row.path for row in rows if row.sha256 not in shards]:
        raise InputError(f"{snapshot.parent} lacks {len(missing):,} images, as {missing[0]!r}; run download again")
    entries = [Entry(row.path, row.split or None, row.label, row.group) for row in rows]
    # In the order in which they lie, not in that of their names: a shard is read from its start to its end.
    by_place = sorted(rows, key=lambda row: (shards[row.sha256].shard.name, shards[row.sha256].offset))
    encoded = ((row.path, read_content(shards[row.sha256], row.sha256)) for row in by_place)
    decoded = _decode_all(entries, encoded, image_size, fit, scratch)
    return _labelled(snapshot, entries, decoded, scratch, max_quarantined)


@dataclass(frozen=True)
class _Decoded:
    """What became of the files: the sha256 of each, at its sorted place, and why some could not be decoded."""

    digests: list[str]
    problems: dict[int, str]
    shape: tuple[int, int, int]
    fit: Fit


def _labelled(
    source: Path, entries: list[Entry], decoded: _Decoded, scratch: Path, max_quarantined: float
) -> LabelledImages:
    """Return the images of some entries, without those that could not be decoded, if these are few."""
    bad = decoded.problems
    if bad:
        _refuse_many(source, entries, bad, max_quarantined)
        _close_gaps(scratch, bad.keys(), len(entries), math.prod(decoded.shape))
    classes = tuple(sorted({entry.label for entry in entries}))
    quarantine = tuple((entries[place].name, reason) for place, reason in sorted(bad.items()))
    digests = [digest for place, digest in enumerate(decoded.digests) if place not in bad]
    entries = [entry for place, entry in enumerate(entries) if place not in bad]
    images: Images = np.memmap(scratch, np.uint8, mode="r", shape=(len(entries), *decoded.shape))
    positions = {name: position for position, name in enumerate(classes)}
    labels = np.array([positions[entry.label] for entry in entries], np.int32)
    published = [UNASSIGNED if entry.split is None else SPLITS.index(entry.split) for entry in entries]
    paths = tuple(entry.name for entry in entries)
    return LabelledImages(
        Arrays(images, labels),
        classes,
        np.array(published, np.int8),
        separate_duplicates=True,
        paths=paths,
        file_sha256=tuple(digests),
        groups=tuple(entry.group for entry in entries),
        quarantine=quarantine,
        fit=decoded.fit,
    )


def _refuse_many(source: Path, entries: list[Entry], bad: dict[int, str], max_quarantined: float) -> None:
    """Raise InputError where more images are bad than may be set aside, of all or of a class."""
    of_class = Counter(entry.label for entry in entries)
    bad_of_class = Counter(entries[place].label for place in bad)
    worst = max(bad_of_class, key=lambda label: bad_of_class[label] / of_class[label])
    share = bad_of_class[worst] / of_class[worst]  # the share of all is never larger
    if share > max_quarantined or share == 1:
        reasons = [bad[place] for place in sorted(bad)]
        more = f"; and {len(bad) - SHOWN_PROBLEMS:,} more" if len(bad) > SHOWN_PROBLEMS else ""
        allowed = f"{bad_of_class[worst]:,} of the {of_class[worst]:,} images of class {worst!r} cannot be read"
        raise InputError(
            f"{source}: {'; '.join(reasons[:SHOWN_PROBLEMS])}{more}; {allowed}, and split.max_quarantined = "
            f"{max_quarantined:g} is the share that may be set aside"
        )


def _close_gaps(scratch: Path, bad: Collection[int], count: int, size: int) -> None:
    """Move the decoded images of `size` bytes together over the places of those that could not be decoded."""
    with scratch.open("r+b") as stream:
        target = 0
        for place in range(count):
            if place in bad:
                continue
            if place != target:
                stream.seek(place * size)
                image = stream.read(size)
                stream.seek(target * size)
                stream.write(image)
            target += 1
        stream.truncate(target * size)


def _entries(archive: Path) -> tuple[list[Entry], tuple[Problem, ...]]:
    """Read the archive once for its names and labels: a bad layout is told before anything is decoded.

    Returns:
        Its images, and those that are left out, each with the reason.
    """
    files: list[str] = []
    folders: list[str] = []
    tables: dict[str, bytes] = {}
    for member in members(archive):
        (folders if member.is_folder else files).append(member.name)
        if not member.is_folder and PurePosixPath(member.name).name == LABELS_NAME:
            tables[member.name] = member.read()
    try:
        table = labels_file(files)
        if table is None:
            return read_layout(files, folders), ()
        folder = PurePosixPath(table).parent
        labelled = label(files, read_labels(tables[table], folder), folder)
        refuse_too_few(labelled.entries)
    except InputError as error:
        raise InputError(f"{archive}: {error}") from error
    for remark in labelled.remarks:
        print(printable(remark))
    return labelled.entries, tuple((name, UNLABELLED) for name in labelled.unlabelled)


def _decode_all(entries: list[Entry], encoded: Iterator[Encoded], image_size: int, fit: Fit, scratch: Path) -> _Decoded:
    """Write every image's pixels at its sorted place, in the order in which they come.

    Plain writes, not a memory map: a full disk is then an OSError, where a map would kill the process.
    """
    order = {entry.name: place for place, entry in enumerate(entries)}
    progress = Progress(len(entries), "images")
    done, problems, digests = 0, dict[int, str](), [""] * len(entries)
    with ThreadPoolExecutor(os.cpu_count()) as pool, scratch.open("wb") as stream:
        for batch in _batches(encoded):
            decoded = pool.map(lambda image: _decoded(image, image_size, fit), batch)
            for (name, data), image in zip(batch, decoded, strict=True):
                digests[order[name]] = hashlib.sha256(data).hexdigest()
                if isinstance(image, InputError):
                    problems[order[name]] = str(image)
                else:
                    stream.seek(order[name] * image.nbytes)
                    stream.write(image.tobytes())
            done += len(batch)
            progress.update(done, "decoding")
    progress.close()
    return _Decoded(digests, problems, (image_size, image_size, 3), fit)


def _decoded(encoded: Encoded, image_size: int, fit: Fit) -> Images | InputError:
    """Decode an image, or return why it cannot be: a set of 100,000 has dozens, which are named at once."""
    try:
        name, data = encoded
        return decode_image(data, name, image_size, fit)
    except InputError as error:
        return error


def _batches(encoded: Iterator[Encoded]) -> Iterator[list[Encoded]]:
    """Give the files' bytes in batches of bounded number and size."""
    batch: list[Encoded] = []
    size = 0
    for name, data in encoded:
        batch.append((name, data))
        size += len(data)
        if len(batch) == IMAGES_AT_ONCE or size >= BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
