"""Name what is in an image, with the published champion or a local model.

python -m tasks.predict cat.jpg                      the champion, fetched once and verified
python -m tasks.predict photos/ --csv photos.csv     every image of a folder
python -m tasks.predict cat.jpg --model model        a model folder, a pulled release, or a .keras file
python -m tasks.predict cat.jpg --trusted-key release.key.pub    only if this key's owner signed it
"""

import argparse
import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from tasks.data.arrays import Images
from tasks.data.images import decode_image
from tasks.registry.classifier import Classifier, Probabilities, Signer, load_champion, load_local
from tasks.registry.signing import add_trust_options, chosen_trust
from tasks.registry.store import configured_place
from tasks.stage.errors import InputError, printable, run_command
from tasks.stage.files import replaced_file
from tasks.stage.progress import format_bytes

SUFFIXES = {".png", ".jpg", ".jpeg"}
MAX_FILE = 256 << 20
IMAGES_AT_ONCE = 128


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
        if path.stat().st_size > MAX_FILE:
            raise InputError(f"{path} has more than the {format_bytes(MAX_FILE)} that an image may have")
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


def _print_top(classifier: Classifier, predictions: Iterable[Prediction], count: int) -> None:
    width = max(map(len, classifier.labels))
    for prediction in predictions:
        print(printable(str(prediction.image)))
        for label, probability in prediction.top(classifier.labels, count):
            print(f"  {printable(label):<{width}}  {100 * probability:6.2f} %")


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
    classifier = _chosen_classifier(arguments)
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


def _chosen_classifier(arguments: argparse.Namespace) -> Classifier:
    trust = chosen_trust(arguments)
    if arguments.model is None:
        return load_champion(arguments.bucket, arguments.prefix, trust)
    if trust is None:
        return load_local(arguments.model, arguments.sha256)
    bucket, prefix = configured_place(arguments.bucket, arguments.prefix)
    return load_local(arguments.model, arguments.sha256, Signer(trust, f"s3://{bucket}/{prefix}"))


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
    parser.add_argument("--sha256", metavar="HEX", help="of the model's bytes, where nothing beside it records them")
    add_trust_options(parser)
    arguments = parser.parse_args()
    run_command("predict", lambda: _run(arguments))


if __name__ == "__main__":
    main()
