"""Name what is in an image, with the published champion or a local model.

python -m tasks.predict cat.jpg                      the champion, fetched once and verified
python -m tasks.predict photos/ --csv photos.csv     every image of a folder
python -m tasks.predict cat.jpg --model model        a model folder, a pulled release, or a .keras file
"""

import argparse
import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from tasks.data.arrays import Images, load_split_record
from tasks.data.images import decode_image
from tasks.errors import InputError, run_command
from tasks.files import read_json, replaced_file, sha256_of
from tasks.progress import format_bytes
from tasks.storage.bucket import configured_bucket
from tasks.storage.manifest import MANIFEST_NAME
from tasks.storage.pointers import resolve
from tasks.storage.releases import cached_release, verify_folder

SUFFIXES = {".png", ".jpg", ".jpeg"}
LARGEST_FILE = 256 << 20
IMAGES_AT_ONCE = 128
SPLIT_FOLDER = Path("data/split")

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Classifier:
    """A loaded model.

    Attributes:
        source: Where it came from, for the answer.
        labels: Names of the classes in the order of the outputs.
        size: Height and width in pixels of the images that it takes.
        answer: From uint8 (N, size, size, 3) images to float32 (N, C) probabilities.
    """

    source: str
    labels: tuple[str, ...]
    size: int
    answer: Callable[[Images], Probabilities]


@dataclass(frozen=True)
class Prediction:
    """The probabilities, float32 (C,), that a model gives one image."""

    image: Path
    probabilities: Probabilities

    def top(self, labels: tuple[str, ...], count: int) -> list[tuple[str, float]]:
        """Return the most probable classes, best first; among equals the first in label order."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(labels[index], float(self.probabilities[index])) for index in order]


def predict(classifier: Classifier, images: Iterable[Path]) -> Iterator[Prediction]:
    """Yield a prediction for every image, reading and answering a batch at a time.

    Raises:
        InputError: A file is missing, or is not an image that can be read.
    """
    remaining = iter(images)
    while batch := tuple(itertools.islice(remaining, IMAGES_AT_ONCE)):
        pixels = np.stack([read_image(path, classifier.size) for path in batch])
        yield from (Prediction(*pair) for pair in zip(batch, classifier.answer(pixels), strict=True))


def read_image(path: Path, size: int) -> Images:
    """Return an image file as uint8 (size, size, 3), decoded as the training images were; raises InputError."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path} has more than the {format_bytes(LARGEST_FILE)} that an image may have")
        return decode_image(path.read_bytes(), str(path), size)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Return files as they are given, and for a folder every PNG and JPEG below it, sorted.

    Raises:
        InputError: A path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not inside:
            raise InputError(f"{path} holds no PNG or JPEG")
        found.extend(inside)
    return found


def load_local(path: Path) -> Classifier:
    """Load a pulled release, a model folder or a `.keras` file; bytes are checked before any loader sees them.

    The sha256 comes from the release's manifest.json or from the training.json beside the model; the labels from the
    labels.json beside it, or else from data/split/split.json.

    Raises:
        InputError: There is no model, it was altered, or its labels are not known.
    """
    file = path / "model.keras" if path.is_dir() else path
    folder = file.parent
    if not file.is_file():
        raise InputError(f"{file} does not exist: --model wants a release, a model folder or a .keras file")
    if (folder / MANIFEST_NAME).exists():
        verify_folder(folder)
    elif file.name == "model.keras" and (folder / "training.json").exists():
        recorded = read_json(folder / "training.json").get("model_sha256")
        if sha256_of(file) != recorded:
            raise InputError(f"{file} was altered: its sha256 is not the one that train recorded in training.json")
    labels = folder / "labels.json"
    names = tuple(read_json(labels)) if labels.exists() else load_split_record(SPLIT_FOLDER).classes
    return _load(file, names)


def load_champion(bucket: str | None, prefix: str | None) -> Classifier:
    """Load the published champion, fetched once into the cache and verified every time."""
    store = configured_bucket(bucket, prefix)
    return load_local(cached_release(store, resolve(store, "champion")))


def _load(file: Path, labels: tuple[str, ...]) -> Classifier:
    """Load a model and let it answer once, so that TensorFlow has said all that it says of the machine."""
    from tasks.quiet_tensorflow import held_back_stderr, tf  # noqa: PLC0415  takes seconds: only once images were read

    with held_back_stderr():
        from tasks.models.files import load_model  # noqa: PLC0415

        tf.config.experimental.enable_tensor_float_32_execution(False)  # as evaluate does, for the same probabilities
        network = load_model(file)
        _, height, width, channels = network.input_shape
        classes = network.output_shape[-1]
        if height != width or channels != 3:
            raise InputError(f"{file} takes images of {height}×{width}×{channels}, not square ones in colour")
        if classes != len(labels):
            raise InputError(f"{file} has {classes} outputs, but {len(labels)} labels are known for it")
        signature = [tf.TensorSpec((None, height, width, channels), tf.uint8)]
        run = tf.function(lambda batch: network(batch, training=False), input_signature=signature)
        run(np.zeros((1, height, width, channels), np.uint8))
    return Classifier(str(file), labels, height, lambda batch: np.asarray(run(batch)))


def _print_top(classifier: Classifier, predictions: Iterable[Prediction], count: int) -> None:
    width = max(map(len, classifier.labels))
    for prediction in predictions:
        print(prediction.image)
        for label, probability in prediction.top(classifier.labels, count):
            print(f"  {label:<{width}}  {100 * probability:6.2f} %")


def _print_json(classifier: Classifier, predictions: Iterable[Prediction], count: int) -> None:
    answers = [
        {
            "image": str(prediction.image),
            "classes": [
                {"class": label, "probability": probability}
                for label, probability in prediction.top(classifier.labels, count)
            ],
        }
        for prediction in predictions
    ]
    print(json.dumps({"model": classifier.source, "predictions": answers}, indent=2, ensure_ascii=False))


def _write_csv(classifier: Classifier, predictions: Iterable[Prediction], stream: TextIO) -> None:
    """Write one row an image: its path, the best class, its probability, and every class's."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["image", "predicted", "confidence", *(f"p({label})" for label in classifier.labels)])
    for prediction in predictions:
        ((label, probability),) = prediction.top(classifier.labels, 1)
        writer.writerow([prediction.image, label, probability, *map(float, prediction.probabilities)])


def _run(arguments: argparse.Namespace) -> None:
    images = find_images(arguments.images)
    for image in images[:IMAGES_AT_ONCE]:
        read_image(image, size=1)  # says at once what cannot be read, before seconds are spent on the model
    classifier = load_local(arguments.model) if arguments.model else load_champion(arguments.bucket, arguments.prefix)
    predictions = predict(classifier, images)
    if arguments.json:
        _print_json(classifier, predictions, arguments.top)
    elif arguments.csv:
        with replaced_file(arguments.csv) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            _write_csv(classifier, predictions, stream)
        print(f"{len(images)} images are in {arguments.csv}")
    elif any(path.is_dir() for path in arguments.images):
        _write_csv(classifier, predictions, sys.stdout)
    else:
        _print_top(classifier, predictions, arguments.top)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main() -> None:
    """Parse the command line and predict."""
    parser = argparse.ArgumentParser(prog="python -m tasks.predict", description="Name what is in an image.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a PNG or JPEG, or a folder of them")
    parser.add_argument("--model", type=Path, help="a release, model folder or .keras file; else the champion")
    parser.add_argument("--top", type=_count, default=3, metavar="K", help="classes to show (3)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV; a folder's goes to standard output")
    parser.add_argument("--bucket", help="instead of publish.bucket in params.yaml")
    parser.add_argument("--prefix", help="instead of publish.prefix in params.yaml")
    arguments = parser.parse_args()
    run_command("predict", lambda: _run(arguments))


if __name__ == "__main__":
    main()
