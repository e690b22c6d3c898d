"""What a release recorded of itself in the bucket: its answers to its test images, and what these were."""

import csv
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.data.hashes import FIT_HASHES, TEST_HASHES, Hashes, load_hashes
from tasks.registry.manifest import FileEntry, Manifest
from tasks.registry.releases import file_key
from tasks.registry.reload import PROBABILITIES, Probabilities
from tasks.registry.store import Store
from tasks.stage.errors import InputError
from tasks.stage.files import read_json
from tasks.stage.table import spreadsheet_cell

LABELS = "labels.json"
PREDICTIONS = "predictions.csv"

Labels = NDArray[np.int32]


class CannotAnswerError(Exception):
    """A model does not take the present test images, or knows other classes; the text says which."""


def load_probabilities(path: Path) -> Probabilities:
    """Memory-map recorded answers, float32 (N, C).

    Raises:
        InputError: The file is not such an array, or holds what is no number.
    """
    try:
        array: Probabilities = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path.name} is not a complete array: {error}") from error
    if array.dtype != np.float32 or array.ndim != 2 or not array.size:
        raise InputError(f"{path.name} holds {array.dtype} of shape {array.shape}, not float32 (images, classes)")
    if not np.isfinite(array).all():
        raise InputError(f"{path.name} holds answers that are NaN or infinite")
    return array


def fetch(bucket: Store, manifest: Manifest, name: str, folder: Path) -> Path:
    """Download one file of a release into a folder, verified.

    Raises:
        InputError: The release has no such file, or the store refused or holds other bytes.
    """
    entry = _entry(manifest, name)
    if entry is None:
        raise InputError(f"release {manifest.id} has no {name}, without which it cannot be judged")
    bucket.download(file_key(manifest, entry), folder / name, size=entry.size, sha256=entry.sha256)
    return folder / name


def fetch_probabilities(bucket: Store, manifest: Manifest, folder: Path) -> Probabilities:
    """Return a release's recorded answers, float32 (N, C); raises like fetch and load_probabilities."""
    return load_probabilities(fetch(bucket, manifest, PROBABILITIES, folder))


def fetch_hashes(bucket: Store, manifest: Manifest, folder: Path) -> tuple[Hashes | None, Hashes | None]:
    """Return the hashes of what a release trained on and chose by, uint64 (N,), and of its test images, uint64 (N, 2).

    None for both of a release that is older than they are.
    """
    names = (FIT_HASHES, TEST_HASHES)
    if any(_entry(manifest, name) is None for name in names):
        return None, None
    fit, tested = (load_hashes(fetch(bucket, manifest, name, folder)) for name in names)
    if fit.ndim != 1 or tested.ndim != 2:
        raise InputError(f"release {manifest.id} has hashes of its images in another form than split writes")
    return fit, tested


def known_hashes(bucket: Store, manifest: Manifest) -> Hashes | None:
    """Return the hashes of all images that a release knows, uint64 (N,), of which none came since; None likewise."""
    with tempfile.TemporaryDirectory(prefix="champion-") as name:
        fit, tested = fetch_hashes(bucket, manifest, Path(name))
    return None if fit is None or tested is None else np.concatenate([fit, tested.ravel()])


def fetch_classes(bucket: Store, manifest: Manifest, folder: Path) -> tuple[str, ...]:
    """Return the names of a release's classes, in label order; raises like fetch."""
    path = fetch(bucket, manifest, LABELS, folder)
    try:
        return tuple(str(name) for name in read_json(path))
    except (ValueError, TypeError) as error:
        raise InputError(f"{LABELS} of release {manifest.id} is not a list of names: {error}") from error


def fetch_labels(bucket: Store, manifest: Manifest, classes: tuple[str, ...], folder: Path) -> Labels:
    """Return the right classes that a release's predictions.csv names, int32 (N,); raises like fetch."""
    path = fetch(bucket, manifest, PREDICTIONS, folder)
    positions = {name: position for position, name in enumerate(classes)}  # so they stand in older releases
    positions |= {spreadsheet_cell(name): position for position, name in enumerate(classes)}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return np.array([positions[row["actual"]] for row in csv.DictReader(stream)], dtype=np.int32)
    except (KeyError, ValueError, csv.Error) as error:
        raise InputError(f"{path.name} is not what the stage evaluate writes: {error}") from error


def _entry(manifest: Manifest, name: str) -> FileEntry | None:
    return next((entry for entry in manifest.files if entry.path == name), None)
