"""Draw what the data set holds and what came: data/split, the champion → data/report.html, data/contradictions.csv.

`python -m tasks.data_report`, and the flow before it trains. It is for people to look at, and nothing is made of it:
what came depends on the champion and on when one looks, so that DVC does not track it.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks.data.arrays import SPLITS, SplitRecord, load_arrays, load_split_record
from tasks.data.image_files import INDEX_NAME
from tasks.data.index import QUARANTINE_NAME
from tasks.data.near_copies import COPIES_NAME
from tasks.download import CACHE, RAW
from tasks.params.params import Params, load_params
from tasks.registry.channels import read_channel
from tasks.registry.contradictions import Contradiction, find_contradictions
from tasks.registry.drift import Asked, Places, asked_through, measure_drift, sampled, unknown_places
from tasks.registry.manifest import Manifest
from tasks.registry.recorded_answers import known_hashes
from tasks.registry.store import Store, configured_bucket
from tasks.reporting.data_page import DataPage, Picture, render_data_page
from tasks.reporting.pictures import thumbnail
from tasks.sources.memory import Memory
from tasks.sources.source import load_source
from tasks.stage.errors import run_command
from tasks.stage.files import replaced_file, write_text
from tasks.stage.shown import DATASETS, percent
from tasks.stage.table import text_of_cell, write_table

SPLIT = Path("data/split")
PAGE = Path("data/report.html")
CONTRADICTIONS = Path("data/contradictions.csv")
OF_EACH_CLASS, SHOWN, LISTED = 10, 24, 500
SHOWN_CLASSES, SHOWN_SNAPSHOTS = 40, 8


@dataclass(frozen=True)
class Image:
    """A row of index.csv, and where its pixels are."""

    split: str
    place: int
    label: str
    path: str


class Rows:
    """index.csv, by split and place, and by path."""

    def __init__(self, split: Path) -> None:
        self._arrays = {part: load_arrays(split, part).images for part in SPLITS}
        self.images: dict[tuple[str, int], Image] = {}
        with (split / INDEX_NAME).open(encoding="utf-8", newline="") as stream:
            counts = dict.fromkeys(SPLITS, 0)
            for row in csv.DictReader(stream):
                part = row["split"]
                image = Image(part, counts[part], text_of_cell(row["label"]), text_of_cell(row["path"]))
                self.images[part, counts[part]] = image
                counts[part] += 1
        self.by_path = {image.path: image for image in self.images.values()}

    def picture(self, image: Image, *words: str) -> Picture:
        """Return the picture of an image, with words below it."""
        return Picture(thumbnail(self._arrays[image.split][image.place]), words)


def data_report(params: Params, split: Path, page: Path, contradictions: Path) -> None:
    """Write the page, and what the champion contradicts as a table of paths and labels that a person can correct.

    Raises:
        InputError: The arrays are missing or damaged, or the store refused.
    """
    record, rows = load_split_record(split), Rows(split)
    bucket = configured_bucket()
    champion = read_channel(bucket, "champion")
    doubts: tuple[Contradiction, ...] = ()
    came: Places = {}
    sentences = _unusual(record)
    if champion is not None and (known := known_hashes(bucket, champion)) is not None:
        came = unknown_places(split, known)
        ask = asked_through(bucket, params.evaluate.batch_size, params.split, RAW)
        sentences = [*_drift_sentences(bucket, champion, split, ask, params), *sentences]
        doubts = find_contradictions(bucket, champion, split, ask, LISTED)
    found = [rows.images[each.split, each.place] for each in doubts]
    source = load_source(RAW)
    write_text(
        page,
        render_data_page(
            DataPage(
                title=DATASETS.get(record.dataset, record.dataset),
                sentences=sentences,
                counts=_counts(record, rows, came),
                history=_history(params, source.sha256),
                classes=_classes(record, rows),
                came=[rows.picture(image, image.label, image.path) for image in _some(rows, came)],
                pairs=_pairs(split, rows),
                set_aside=[(path, why) for path, why in _table(split / QUARANTINE_NAME, ("path", "reason"))],
                contradictions=[
                    rows.picture(image, f"{doubt.predicted} {percent(doubt.probability, 0)}", doubt.label, image.path)
                    for doubt, image in list(zip(doubts, found, strict=True))[:SHOWN]
                ],
            )
        ),
    )
    if record.dataset == "folders":  # the images of others have no files, and nobody corrects them
        with replaced_file(contradictions) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            write_table(stream, ("path", "label"), ((image.path, image.label) for image in found))
    print(f"{page}: {len(rows.images):,} images, {sum(map(len, came.values())):,} came, {len(doubts):,} contradicted")


def _drift_sentences(bucket: Store, champion: Manifest, split: Path, ask: Asked, params: Params) -> list[str]:
    drift = measure_drift(bucket, champion, split, ask)
    if drift is None:
        return []
    found = [drift.sentence[0].upper() + drift.sentence[1:] + "."]
    significance = params.publish.significance
    if drift.asked and drift.p_value <= significance:
        found.append(f"That is significantly less (p = {drift.p_value:.3g}).")
    if drift.classes_p_value <= significance:
        found.append(
            f"The shares of the classes in what came are others than before (p = {drift.classes_p_value:.3g})."
        )
    if drift.answers_p_value <= significance:
        found.append(
            f"The champion answers what came otherwise than its own test images (p = {drift.answers_p_value:.3g}): the "
            "pictures may have changed."
        )
    return found


def _unusual(record: SplitRecord) -> list[str]:
    """Say what of the counts is worth a sentence."""
    found = []
    for part in SPLITS:
        absent = [name for name, count in record.counts[part]["per_class"].items() if not count]
        if absent:
            found.append(f"Without a {part} image: {', '.join(absent[:SHOWN_CLASSES])}.")
    sizes = [sum(record.counts[part]["per_class"][name] for part in SPLITS) for name in record.classes]
    if max(sizes) > 10 * max(1, min(sizes)):
        most, least = (record.classes[int(place(sizes))] for place in (np.argmax, np.argmin))
        found.append(f"{most} has {max(sizes):,} images, and {least} {min(sizes):,}.")
    if record.duplicates.get("conflicting_labels"):
        found.append(f"{record.duplicates['conflicting_labels']:,} images lie there under several labels.")
    return found


def _counts(record: SplitRecord, rows: Rows, came: Places) -> dict[str, tuple[int, ...]]:
    new = dict.fromkeys(record.classes, 0)
    for part, places in came.items():
        for place in places:
            new[rows.images[part, int(place)].label] += 1
    return {
        name: (*(record.counts[part]["per_class"][name] for part in SPLITS), new[name])
        for name in record.classes[:SHOWN_CLASSES]
    }


def _history(params: Params, present: str) -> list[tuple[str, dict[str, int]]]:
    """Return how many images each class had in the snapshots before, as this machine knows them; the oldest first."""
    if params.download.collection is None:
        return []
    with Memory(CACHE, params.download.collection) as memory:
        paths = sorted(memory.snapshot_path("").parent.glob("*.csv"), key=lambda path: path.stat().st_mtime_ns)
        found = []
        for path in [path for path in paths if path.stem != present][-SHOWN_SNAPSHOTS:]:
            labels: dict[str, int] = {}
            for row in memory.snapshot(path.stem) or ():
                labels[row.label] = labels.get(row.label, 0) + 1
            found.append((datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%d %b %H:%M"), labels))
    return found


def _classes(record: SplitRecord, rows: Rows) -> dict[str, list[Picture]]:
    """Return the first pictures of each class, of whichever split."""
    shown: dict[str, list[Picture]] = {name: [] for name in record.classes[:SHOWN_CLASSES]}
    for image in rows.images.values():
        if len(shown.get(image.label, range(OF_EACH_CLASS))) < OF_EACH_CLASS:
            shown[image.label].append(rows.picture(image, image.split))
    return shown


def _some(rows: Rows, places: Places) -> list[Image]:
    chosen = sampled(places, SHOWN) if places else {}
    return [rows.images[part, int(place)] for part, found in chosen.items() for place in found]


def _pairs(split: Path, rows: Rows) -> list[tuple[Picture, Picture]]:
    """Return the first pairs of copies.csv of which both pictures are in the arrays."""
    found: list[tuple[Picture, Picture]] = []
    for kind, path, other in _table(split / COPIES_NAME, ("kind", "path", "copy_of")):
        one, two = rows.by_path.get(path), rows.by_path.get(other)
        if one is not None and two is not None and len(found) < SHOWN:
            found.append((rows.picture(one, kind, f"{one.label}: {path}"), rows.picture(two, f"{two.label}: {other}")))
    return found


def _table(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return some columns of a table; nothing where there is none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [tuple(text_of_cell(row[column]) for column in columns) for row in csv.DictReader(stream)]


def main() -> None:
    """Draw the repository's own folders."""
    run_command("data_report", lambda: data_report(load_params(), SPLIT, PAGE, CONTRADICTIONS))


if __name__ == "__main__":
    main()
