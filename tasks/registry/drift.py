"""How a champion does on what came since it was made: images that it has never seen, so the drift that counts.

`python -m tasks.registry drift` asks it, on the arrays of data/split; the flow does before it trains. What came is what
is neither among the images that the champion trained on or chose by, nor among its test images
(tasks/data/hashes.py). Two more figures decide nothing: whether the shares of the classes have changed (chi-squared
test), and whether the champion speaks of what came as it spoke of its own test images, class by class
(Kolmogorov-Smirnov on its probabilities with Bonferroni's correction: BBSDs of Rabanser et al. 2019, arXiv 1810.11953).
"""

import csv
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.data.arrays import (
    SPLITS,
    Arrays,
    Fit,
    Images,
    Indices,
    Labels,
    SplitRecord,
    load_arrays,
    load_split_record,
)
from tasks.data.hashes import Hashes, prefixes
from tasks.data.image_files import INDEX_NAME
from tasks.evaluation.metrics import wilson_interval
from tasks.params.data import SplitParams
from tasks.registry.champion_answers import CurrentTestSet
from tasks.registry.manifest import Manifest
from tasks.registry.other_size import images_at
from tasks.registry.recorded_answers import (
    CannotAnswerError,
    fetch,
    fetch_classes,
    fetch_probabilities,
    known_hashes,
)
from tasks.registry.reload import Probabilities
from tasks.registry.store import Store
from tasks.stage.errors import InputError
from tasks.stage.files import read_json
from tasks.stage.shown import percent

MAX_ASKED = 5_000  # images, held in memory; of more a sample, whose interval is three points wide at most
Places = dict[str, Indices]  # of images in the arrays of each split
Asked = Callable[[Manifest, Arrays, Places, SplitRecord], Probabilities]


@dataclass(frozen=True)
class Drift:
    """What a champion answers to what came since it was made.

    Attributes:
        champion: Its id.
        images: In all splits.
        came: Of them unknown to the champion.
        asked: Of them put to it, whose class it knows: all, or a sample.
        right: Of them answered rightly.
        own_images, own_top1: Of its own test images, when it was published.
        p_value: How likely so few right answers are if nothing has changed (Fisher's exact test, one-sided).
        classes_p_value: How likely the shares of the classes in what came are, if nothing has changed.
        answers_p_value: How likely its probabilities for what came are, likewise.
        problem: Why it could not be asked; empty where it was.
    """

    champion: str
    images: int
    came: int
    asked: int = 0
    right: int = 0
    own_images: int = 0
    own_top1: float = 0.0
    p_value: float = 1.0
    classes_p_value: float = 1.0
    answers_p_value: float = 1.0
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The same for people."""
        if not self.came:
            return f"the champion {self.champion} knows all of the {self.images:,} images"
        came = f"{self.came:,} of {self.images:,} images came since the champion {self.champion} was made"
        if self.problem:
            return f"{came}; {self.problem}"
        if not self.asked:
            return f"{came}, none of a class that it knows"
        low, high = wilson_interval(self.right, self.asked)
        top1 = f"{percent(self.right / self.asked)} (95 % interval {percent(low)} to {percent(high)})"
        sample = f" of {self.asked:,} of them" if self.asked < self.came else " of them"
        return f"{came}: it is right on {top1}{sample}, and was on {percent(self.own_top1)} of its own test images"


def measure_drift(bucket: Store, champion: Manifest, split: Path, ask: Asked) -> Drift | None:
    """Ask a champion what it has not seen; None where it is so old that it does not say what it has seen.

    Args:
        bucket: Where it is.
        champion: Its manifest.
        split: Folder that the stage split wrote.
        ask: Has it answer images.

    Raises:
        InputError: The arrays or the champion are damaged, or the store refused.
    """
    record = load_split_record(split)
    known = known_hashes(bucket, champion)
    if known is None:
        return None
    with tempfile.TemporaryDirectory(prefix="champion-") as name:
        folder = Path(name)
        parts = unknown_places(split, known)
        images = sum(record.counts[part]["total"] for part in SPLITS)
        drift = Drift(champion.id, images, sum(map(len, parts.values())))
        if not drift.came:
            return drift
        classes = fetch_classes(bucket, champion, folder)
        asked, counts = of_known_classes(split, parts, record.classes, classes)
        places = sampled(asked, MAX_ASKED)
        chosen = gathered(split, places)
        if not len(chosen.labels):
            return drift
        try:
            answers = ask(champion, chosen, places, record)
        except CannotAnswerError as error:
            return dataclasses.replace(drift, problem=str(error))
        own = fetch_probabilities(bucket, champion, folder)
        before = dict(read_json(fetch(bucket, champion, "split.json", folder)))["counts"]
    then = [sum(before[part]["per_class"].get(name, 0) for part in SPLITS) for name in classes]
    positions = np.array([classes.index(name) if name in classes else -1 for name in record.classes], np.int32)
    return _compared(drift, champion, answers, positions[chosen.labels], own, np.array([then, counts], np.int64))


def asked_through(bucket: Store, batch_size: int, params: SplitParams, raw: Path) -> Asked:
    """Return how a champion of a bucket is asked; its answers are kept (tasks/registry/champion_answers.py).

    Args:
        bucket: Where it is.
        batch_size: Images at once.
        params: Those by which the split was made.
        raw: What the stage download wrote: one of another image size or fit is asked about the images at its own.
    """

    def ask(champion: Manifest, images: Arrays, places: Places, record: SplitRecord) -> Probabilities:
        def prepared(pixels: int, fit: Fit) -> AbstractContextManager[Images]:
            return images_at(pixels, fit, record, places, images.labels, params, raw)

        named = dataclasses.replace(record, content_sha256=record.content_sha256 | {"test": _name(images)})
        return CurrentTestSet(named, images, bucket, batch_size, prepared).answers_of(champion)

    return ask


def unknown_places(split: Path, known: Hashes) -> Places:
    """Return of each split the places of its images that are not among the known ones, by their files or their pixels.

    Raises:
        InputError: index.csv and the arrays do not belong together.
    """
    files: dict[str, list[str]] = {part: [] for part in SPLITS}
    with (split / INDEX_NAME).open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            files[row["split"]].append(row["sha256"])
    return {part: _unknown(split, part, files[part], known) for part in SPLITS}


def _unknown(split: Path, part: str, files: Sequence[str], known: Hashes) -> Indices:
    places = np.flatnonzero(~np.isin(prefixes(files), known))
    images = load_arrays(split, part).images
    if len(files) != len(images):
        raise InputError(
            f"{split / INDEX_NAME} has {len(files)} {part} images, and the arrays {len(images)}; run split"
        )
    pixels = prefixes([hashlib.sha256(images[place].tobytes()).hexdigest() for place in places])
    return places[~np.isin(pixels, known)]


def sampled(places: Places, count: int) -> Places:
    """Return so many of some places, drawn with a fixed seed from all splits together; all where they are no more."""
    sizes = [len(places[part]) for part in SPLITS]
    chosen = np.sort(np.random.default_rng(0).permutation(sum(sizes))[:count])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return {
        part: places[part][chosen[(chosen >= start) & (chosen < end)] - start]
        for part, start, end in zip(SPLITS, starts[:-1], starts[1:], strict=True)
    }


def gathered(split: Path, places: Places) -> Arrays:
    """Return the images and labels at some places of all splits, in the order of SPLITS."""
    arrays = [load_arrays(split, part) for part in SPLITS]
    images = [each.images[places[part]] for each, part in zip(arrays, SPLITS, strict=True)]
    labels = [each.labels[places[part]] for each, part in zip(arrays, SPLITS, strict=True)]
    return Arrays(np.concatenate(images), np.concatenate(labels))


def of_known_classes(
    split: Path, places: Places, ours: tuple[str, ...], theirs: tuple[str, ...]
) -> tuple[Places, NDArray[np.int64]]:
    """Return the places whose class the champion knows, and how many images came of each of its classes."""
    positions = np.array([theirs.index(name) if name in theirs else -1 for name in ours], np.int32)
    labels = {part: positions[load_arrays(split, part).labels[places[part]]] for part in SPLITS}
    known = {part: places[part][labels[part] >= 0] for part in SPLITS}
    all_labels = np.concatenate(list(labels.values()))
    return known, np.bincount(all_labels[all_labels >= 0], minlength=len(theirs))


def _compared(
    drift: Drift,
    champion: Manifest,
    answers: Probabilities,
    labels: Labels,
    own: Probabilities,
    counts: NDArray[np.int64],
) -> Drift:
    """Return the drift with what the answers say; `counts`, int64 (2, C): of its classes then, and of what came."""
    from scipy.stats import chi2_contingency, fisher_exact, ks_2samp  # noqa: PLC0415  takes most of a second

    asked, right = len(labels), int((answers.argmax(axis=1) == labels).sum())
    own_images, own_right = len(own), round(champion.top1 * len(own))
    table = [[right, asked - right], [own_right, own_images - own_right]]
    seen = counts[:, counts.any(axis=0)]
    by_class = [float(ks_2samp(answers[:, place], own[:, place]).pvalue) for place in range(own.shape[1])]
    return dataclasses.replace(
        drift,
        asked=asked,
        right=right,
        own_images=own_images,
        own_top1=champion.top1,
        p_value=float(fisher_exact(table, alternative="less").pvalue),
        classes_p_value=float(chi2_contingency(seen).pvalue) if seen.shape[1] > 1 else 1.0,
        answers_p_value=min(1.0, min(by_class) * len(by_class)),
    )


def _name(images: Arrays) -> str:
    """Return a name for what is asked, by its bytes."""
    digest = hashlib.sha256(images.images.tobytes())
    digest.update(images.labels.tobytes())
    return digest.hexdigest()
