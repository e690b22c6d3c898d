"""The sets of photographs that are measured: a person's own, and two of CIFAR-10's images, one of them uneven.

Each comes out of the project's own stages, download, split and weights, in a folder of its own.
"""

import contextlib
import os
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from benchmarks.workspace import SPLIT, run, stage, write_params
from tasks.models.pretrained import FILE_NAME
from tasks.stage.errors import InputError

WEIGHTS = Path("data/weights")
ARCHIVE = "CIFAR10_FOLDERS_ARCHIVE"
RECIPE = "finetune"
CLASSES = 10
PIXELS = 96
IMAGE = ".jpg"
TEST_IMAGES = 200  # of each class
EVEN, RAREST = 200, 10  # training images of each class; of the rarest where they are uneven, 1 : 50
LARGEST = 500


@dataclass(frozen=True)
class PhotographSet:
    """Photographs that were split, and the weights to begin from.

    Attributes:
        title: How results.md calls it.
        data: Folder with `split` and `weights`.
    """

    title: str
    data: Path


def own_set() -> PhotographSet:
    """Return this repository's data/split; raises InputError where it or data/weights is not there."""
    for path, name in ((SPLIT / "split.json", "split"), (WEIGHTS / FILE_NAME, "weights")):
        if not path.is_file():
            raise InputError(f"{path} does not exist; make it with train.recipe={RECIPE}: dvc repro {name}")
    return PhotographSet("as data/split has them", SPLIT.parent.resolve())


@contextlib.contextmanager
def cifar10_sets() -> Iterator[list[PhotographSet]]:
    """Give 2,000 of CIFAR-10's images at 96 pixels, evenly many a class and then unevenly; none without its archive."""
    if not os.environ.get(ARCHIVE):
        print(f"{ARCHIVE} names no archive of CIFAR-10 as folders: two sets are left out", flush=True)
        yield []
        return
    counts = {
        f"CIFAR-10, {EVEN} images a class": [EVEN] * CLASSES,
        f"CIFAR-10, {LARGEST} to {RAREST} images a class": long_tail(LARGEST, RAREST, CLASSES),
    }
    with tempfile.TemporaryDirectory() as name:
        yield [_made(Path(name) / str(place), title, each) for place, (title, each) in enumerate(counts.items())]


def long_tail(largest: int, rarest: int, classes: int) -> list[int]:
    """Return how many images each class has, fewer by an equal factor each (Cui et al. 2019, arXiv 1901.05555)."""
    return [round(largest * (rarest / largest) ** (place / (classes - 1))) for place in range(classes)]


def _made(folder: Path, title: str, training: Sequence[int]) -> PhotographSet:
    """Pack a set of CIFAR-10's images and run the stages before train on it."""
    folder.mkdir()
    archive = folder / "photographs.zip"
    pack(Path(os.environ[ARCHIVE]), archive, training)
    download = {"dataset": "folders", "url": archive.as_uri(), "sha256": None}
    write_params(folder, RECIPE, 0, {}, {"download": download, "split": {"image_size": PIXELS}})
    for each in ("download", "split", "weights"):
        run(stage(each), folder)
    return PhotographSet(title, folder / "data")


def pack(source: Path, target: Path, training: Sequence[int]) -> None:
    """Write the first images of each class as `train/cat/1.jpg`; the first class has the first number of them."""
    taken: Counter[tuple[str, str]] = Counter()
    with tarfile.open(source) as tar:
        labels = sorted({PurePosixPath(name).parts[-2] for name in tar.getnames() if name.endswith(IMAGE)})
    wanted = dict(zip(labels, training, strict=True))
    with tarfile.open(source) as tar, zipfile.ZipFile(target, "w") as zipped:  # again from its start: gzip cannot seek
        for member in tar:
            if not member.name.endswith(IMAGE):
                continue
            split, label, name = PurePosixPath(member.name).parts[-3:]
            if taken[split, label] < (wanted[label] if split == "train" else TEST_IMAGES):
                taken[split, label] += 1
                stream = tar.extractfile(member)
                assert stream is not None
                zipped.writestr(f"{split}/{label}/{name}", stream.read())
