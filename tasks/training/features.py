"""Features of images from a frozen network: computed once an image, kept by the hash of its pixels.

An image's features have the same bits whatever is computed beside it. oneDNN cuts a batch into blocks whose edges
decide last bits, so each image goes through the network by itself, several at a time; and where TensorFlow has one
thread an operation, as the stage train gives it for this, on any number of cores.
"""

import hashlib
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tasks.stage.errors import ResumableError
from tasks.stage.files import replaced_file, sha256_of
from tasks.stage.progress import Progress
from tasks.training.machine import cores

IMAGES_AT_ONCE = 64
MAX_FILES = 16  # before those in use are put together in one
KEPT_NETWORKS = 3  # whose features stay, those used last

Features = NDArray[np.float32]


class FeatureStore:
    """The features that one network has given, by image, in files that are complete and never change.

    Args:
        root: Of all networks' features.
        network: What decides them all, as one hash: weights, architecture, size of images, code, machine.
        warn: Gets a sentence about a file that is left out.
    """

    def __init__(self, root: Path, network: str, warn: Callable[[str], None]) -> None:
        self._root, self.folder, self._warn = root, root / network[:16], warn
        self._known: dict[bytes, Features] = {}
        for path in sorted(self.folder.glob("*.npz")):
            self._read(path)

    def __contains__(self, name: bytes) -> bool:
        return name in self._known

    def add(self, names: Sequence[bytes], features: Features) -> None:
        """Keep the features (N, F) of images, complete or not at all; raises OSError where the disk refuses."""
        self._known.update(zip(names, features, strict=True))
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(b"".join(names) + features.tobytes()).hexdigest()
        with replaced_file(self.folder / f"{digest}.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, names=np.frombuffer(b"".join(names), np.uint8).reshape(-1, 32), features=features)

    def take(self, names: Sequence[bytes]) -> Features:
        """Return the features (N, F) of images that are all known."""
        return np.stack([self._known[name] for name in names])

    def tidy(self, names: Sequence[bytes]) -> None:
        """Put the features in use together where their files have become many; forget those of older networks."""
        old = list(self.folder.glob("*.npz"))
        if len(old) > MAX_FILES:
            used = sorted(set(names))
            self.add(used, self.take(used))
            for path in old:
                path.unlink(missing_ok=True)
        self.folder.touch()
        by_use = sorted(self._root.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for folder in by_use[:-KEPT_NETWORKS]:
            shutil.rmtree(folder, ignore_errors=True)

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                names, features = [row.tobytes() for row in stored["names"]], stored["features"]
            sound = hashlib.sha256(b"".join(names) + features.tobytes()).hexdigest() == path.stem
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            sound = False
        if not sound:
            self._warn(f"{path} is damaged: its images are computed again")
            return
        self._known.update(zip(names, features, strict=True))


def names_of(images: NDArray[np.uint8]) -> list[bytes]:
    """Return what each image (N, H, W, C) is kept by: the sha256 of its pixels."""
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]


def network_key(facts: Sequence[str], sources: Sequence[Path]) -> str:
    """Return what decides a network's features, facts and code, as one hash."""
    digest = hashlib.sha256("\n".join(facts).encode())
    for path in sorted(sources):
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def complete(
    store: FeatureStore,
    network: keras.Model,
    images: NDArray[np.uint8],
    names: Sequence[bytes],
    save_seconds: float,
    stop_requested: Callable[[], bool],
) -> int:
    """Compute the features of the images that the store does not know; return of how many.

    Args:
        store: Gets them, every `save_seconds` and at the end.
        network: uint8 (N, H, W, C) in, float32 (N, F) out.
        images: uint8 (N, H, W, C); they may be memory-mapped.
        names: From names_of.
        save_seconds: How much work a kill may cost.
        stop_requested: Asked every few images.

    Raises:
        ResumableError: The run was asked to stop; what was computed is kept.
    """
    first_of = {name: position for position, name in reversed(list(enumerate(names))) if name not in store}
    todo = sorted(first_of.values())
    if not todo:
        return 0
    feature, progress = _one_by_one(network, images.shape[1:]), Progress(len(todo), "images")
    unsaved: list[Features] = []
    saved_at = time.monotonic()
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(todo), IMAGES_AT_ONCE):
            chosen = todo[start : start + IMAGES_AT_ONCE]
            unsaved += pool.map(feature, images[chosen])
            done, stopping = start + len(chosen), stop_requested()
            progress.update(done, "features")
            if stopping or done == len(todo) or time.monotonic() - saved_at > save_seconds:
                store.add([names[position] for position in todo[done - len(unsaved) : done]], np.stack(unsaved))
                saved_at, unsaved = time.monotonic(), []
            if stopping:
                raise ResumableError(
                    f"stopped after the features of {done:,} images, which are kept; run it again to go on"
                )
    progress.close()
    return len(todo)


def _one_by_one(network: keras.Model, shape: tuple[int, ...]) -> Callable[[NDArray[np.uint8]], Features]:
    """Return a function from an image (H, W, C) to its features (F,), each image a batch of its own.

    With constants in place of variables TensorFlow folds batch norm into the kernels once, and not for every image.
    """
    traced = tf.function(
        lambda image: tf.cast(network(image, training=False)[0], tf.float32),
        input_signature=[tf.TensorSpec((1, *shape), tf.uint8)],
    )
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    device = network.weights[0].value.device

    def feature(image: NDArray[np.uint8]) -> Features:
        with tf.device(device):  # a thread has a device of its own
            features: Features = frozen(tf.constant(image[np.newaxis]))[0].numpy()
        return features

    return feature
