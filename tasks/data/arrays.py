"""The arrays between the stages: `{train,validation,test}_{images,labels}.npy` and `split.json` in one folder."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from tasks.stage.errors import InputError
from tasks.stage.files import read_json, write_json

SPLITS = ("train", "validation", "test")
RECORD_NAME = "split.json"
IMAGES_AT_ONCE = 1024

# How an image is brought to a square (tasks/data/images.py). A record without the entry means SQUASH: so it was done
# before there was a choice, and one that says nothing new has the bytes that it had.
Fit = Literal["crop", "pad", "squash"]
SQUASH: Fit = "squash"

Images = NDArray[np.uint8]
Labels = NDArray[np.int32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Arrays:
    """Labelled images of one split.

    Attributes:
        images: uint8 (N, H, W, 3), RGB.
        labels: int32 (N,), positions in the record's `classes`.
    """

    images: Images
    labels: Labels


@dataclass(frozen=True)
class SplitRecord:
    """What split.json says of the arrays beside it.

    Attributes:
        dataset: `cifar10`, `folders` or `digits`.
        classes: Names in label order.
        image_shape: (height, width, 3).
        method: `stable`, `stratified` or `tail`.
        seed: Of the choice.
        counts: For each split `{"total": n, "per_class": {class: n}}`.
        index_sha256: For each split the sha256 of its images' positions in the archive's order (little-endian int64).
        content_sha256: For each split the sha256 of its images' bytes, then of its labels' bytes.
        duplicates: Byte-identical images across and within splits, and what was done about them.
        fit: How images of `folders` were brought to their size; SQUASH for the others, which have it.
    """

    dataset: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    method: str
    seed: int
    counts: dict[str, dict[str, Any]]
    index_sha256: dict[str, str]
    content_sha256: dict[str, str]
    duplicates: dict[str, Any]
    fit: Fit = SQUASH


def fit_entry(fit: Fit) -> dict[str, Any]:
    """Return what a record of images says of their fit: nothing of SQUASH."""
    return {} if fit == SQUASH else {"fit": fit}


def recorded_fit(record: Mapping[str, Any], source: str) -> Fit:
    """Return how the images that a record is of were brought to their size.

    Args:
        record: split.json, or training.json.
        source: What to call it in an error.

    Raises:
        InputError: It names a way that is not known here.
    """
    fit = record.get("fit", SQUASH)
    if fit not in get_args(Fit):
        raise InputError(f"{source} says fit = {fit!r}: known are {', '.join(get_args(Fit))}")
    return cast(Fit, fit)


def index_hash(indices: Indices) -> str:
    """Return the sha256 of positions in the archive's order, as split.json has it."""
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()


def images_path(folder: Path, split: str) -> Path:
    """Return where the images of a split are."""
    return folder / f"{split}_images.npy"


def labels_path(folder: Path, split: str) -> Path:
    """Return where the labels of a split are."""
    return folder / f"{split}_labels.npy"


def load_arrays(folder: Path, split: str) -> Arrays:
    """Memory-map one split's arrays, read-only.

    Raises:
        InputError: A file is missing, cut short, not an array, or of another shape or dtype than the format's.
    """
    images = _load(images_path(folder, split), np.dtype(np.uint8), dimensions=4)
    labels = _load(labels_path(folder, split), np.dtype("<i4"), dimensions=1)
    if images.shape[3] != 3:
        raise InputError(f"{images_path(folder, split)} has {images.shape[3]} channels instead of 3")
    if len(images) != len(labels):
        raise InputError(f"{folder} has {len(images)} {split} images but {len(labels)} {split} labels")
    return Arrays(images, labels)


def check_arrays(arrays: Arrays, split: str, record: SplitRecord, folder: Path) -> None:
    """Refuse arrays that are not the ones split.json describes: whatever is made of them names them by their hash.

    Args:
        arrays: As load_arrays gives them; every byte is read once.
        split: One of SPLITS.
        record: What split.json says.
        folder: Where both are, for errors.

    Raises:
        InputError: There is no image, they have other bytes, or a label is no class.
    """
    if not len(arrays.labels):
        raise InputError(f"{folder} has no {split} images")
    digest = hashlib.sha256()
    for start in range(0, len(arrays.images), IMAGES_AT_ONCE):
        digest.update(arrays.images[start : start + IMAGES_AT_ONCE].data)
    digest.update(arrays.labels.data)
    if digest.hexdigest() != record.content_sha256[split]:
        raise InputError(f"the {split} arrays in {folder} are not the ones that split.json records; run split again")
    if arrays.labels.min() < 0 or arrays.labels.max() >= len(record.classes):
        raise InputError(f"{folder} has {split} labels outside its {len(record.classes)} classes")


def save_arrays(folder: Path, split: str, arrays: Arrays) -> None:
    """Write one split's arrays into an existing folder; equal arrays are equal bytes."""
    save_selected(folder, split, arrays, np.arange(len(arrays.images), dtype=np.int64))


def save_selected(folder: Path, split: str, source: Arrays, indices: Indices) -> str:
    """Write the images at `indices` as one split, a thousand at a time, so that memory stays bounded.

    Plain writes, not a memory map: a full disk is then an OSError, where a map would kill the process.

    Args:
        folder: An existing folder.
        split: One of SPLITS.
        source: All images; they may be memory-mapped.
        indices: Which of them, in the order in which they are written; int64 (N,).

    Returns:
        The split's content hash: sha256 of the images' bytes, then of the labels' bytes.
    """
    digest = hashlib.sha256()
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(indices), *source.images.shape[1:])}
    with images_path(folder, split).open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(indices), IMAGES_AT_ONCE):
            part = source.images[indices[start : start + IMAGES_AT_ONCE]].tobytes()
            stream.write(part)
            digest.update(part)
    labels = source.labels[indices].astype("<i4")
    with labels_path(folder, split).open("wb") as stream:
        np.save(stream, labels, allow_pickle=False)
    digest.update(labels.tobytes())
    return digest.hexdigest()


def save_split_record(folder: Path, record: SplitRecord) -> None:
    """Write split.json into a folder."""
    values = asdict(record)
    del values["fit"]
    write_json(folder / RECORD_NAME, values | fit_entry(record.fit))


def load_split_record(folder: Path) -> SplitRecord:
    """Read split.json.

    Raises:
        InputError: It is missing, not JSON, or has other fields than SplitRecord; `fit` alone may be absent.
    """
    path = folder / RECORD_NAME
    try:
        values = read_json(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run the stage split first") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    names = {field.name for field in fields(SplitRecord)} - {"fit"}
    if not isinstance(values, dict) or set(values) - {"fit"} != names:
        raise InputError(f"{path} does not have exactly the fields {', '.join(sorted(names))}")
    values["classes"], values["image_shape"] = tuple(values["classes"]), tuple(values["image_shape"])
    return SplitRecord(**{**values, "fit": recorded_fit(values, str(path))})


def _load(path: Path, dtype: np.dtype[Any], dimensions: int) -> NDArray[Any]:
    """Memory-map an array and check what its header says."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run the stage split first") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is not a complete array: {error}") from error
    if array.dtype != dtype or array.ndim != dimensions or not array.flags.c_contiguous:
        raise InputError(
            f"{path} holds {array.dtype} of shape {array.shape} instead of {dtype} with {dimensions} axes in C order"
        )
    return array
