"""Near-copies: one picture that was saved anew, at another size or with other marks, so that its bytes are others.

Told by a perceptual hash, the DCT hash of Zauner 2010 ("Implementation and Benchmarking of Perceptual Image Hash
Functions") as the library imagehash has it, and by a second look at the pixels. They are said and not moved: of
pictures of one kind, as of parts in a factory, two that look alike may well be two.
"""

from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from tasks.data.arrays import SPLITS, Images, Indices
from tasks.data.assignment import Assignment
from tasks.data.labelled import LabelledImages
from tasks.stage.table import write_table

COPIES_NAME = "copies.csv"
COLUMNS = ("kind", "split", "label", "path", "copy_of")
LEFT_OUT = "left out"
MAX_DIFFERENCE = 8.0  # of 255, the mean of all pixels: JPEG at quality 75 changes a photo by about 3

MAX_ALIKE = 20  # pictures of one hash with which another is compared: thousands of blank pages share one


def find_near_copies(images: Images, groups: Indices) -> Indices:
    """Return for each image, int64 (N,), the first one that looks like it: itself where none before it does.

    Args:
        images: uint8 (N, H, W, 3); they may be memory-mapped.
        groups: The number of each image's group of equal ones, int64 (N,).
    """
    firsts = np.unique(groups, return_index=True)[1]
    first_of_hash: dict[str, list[int]] = {}
    looks_like = np.empty(len(firsts), np.int64)
    for group, place in enumerate(firsts):
        alike = first_of_hash.setdefault(str(imagehash.phash(Image.fromarray(images[place]))), [])
        same = next((other for other in alike if _difference(images[other], images[place]) <= MAX_DIFFERENCE), None)
        looks_like[group] = place if same is None else same
        if same is None and len(alike) < MAX_ALIKE:
            alike.append(int(place))
    return looks_like[np.searchsorted(np.unique(groups), groups)]


def write_copies(folder: Path, data: LabelledImages, assignment: Assignment) -> int:
    """Write which images show what another shows, how, and where they are; return how many are near-copies.

    A row is a `copy` (equal pixels), a `near copy`, or either `under another label`, which no model can learn.
    """
    firsts = {name: place for place, name in reversed(list(enumerate(data.pixel_sha256)))}
    equal = np.array([firsts[name] for name in data.pixel_sha256], np.int64)
    alike = find_near_copies(data.arrays.images, equal)
    places = np.full(len(equal), -1, np.int8)
    for position, split in enumerate(SPLITS):
        places[assignment.indices[split]] = position
    rows = []
    for place in np.flatnonzero(alike != np.arange(len(alike))):
        first = equal[place] if equal[place] != place else alike[place]
        kind = "copy" if equal[place] != place else "near copy"
        labels = data.arrays.labels[[place, first]]
        words = kind if labels[0] == labels[1] else f"{kind} under another label"
        split = SPLITS[places[place]] if places[place] >= 0 else LEFT_OUT
        rows.append((words, split, data.classes[labels[0]], data.paths[place], data.paths[first]))
    with (folder / COPIES_NAME).open("w", encoding="utf-8", newline="") as stream:
        write_table(stream, COLUMNS, rows)
    return sum(kind.startswith("near") for kind, *_ in rows)


def _difference(one: Images, other: Images) -> float:
    """Return the mean difference of two images, in grey levels."""
    return float(np.abs(one.astype(np.int16) - other).mean())
