"""Name what is in an image, with the published champion or a local model.

python -m tasks.predict cat.jpg                      the champion, fetched once and verified
python -m tasks.predict photos/ --csv photos.csv     every image of a folder
python -m tasks.predict photos/ --page photos.html   a page to look at, the least sure answers first
python -m tasks.predict cat.jpg --model candidate    another channel, or a release's id
python -m tasks.predict cat.jpg --model model        a model folder, a pulled release, or a .keras file
python -m tasks.predict cat.jpg --trusted-key release.key.pub    only if this key's owner signed it

A release that was evaluated with `evaluate.costs` answers by the least expected cost; the probabilities are the same.
"""

import argparse
import dataclasses
import heapq
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from tasks.data.arrays import SQUASH, Fit, Images
from tasks.data.images import decode_image, decode_thumbnail
from tasks.data.names import IMAGE_SUFFIXES, is_clutter
from tasks.evaluation.costs import least_cost
from tasks.evaluation.metrics import Floats
from tasks.registry.classifier import Classifier, Probabilities, Signer, load_local, load_release
from tasks.registry.signing import add_trust_options, chosen_trust
from tasks.registry.store import configured_place
from tasks.reporting.answers import Chance, margins
from tasks.reporting.photos_page import (
    MAX_CHANCES,
    MAX_PHOTOS,
    PHOTO_SIDE,
    Photo,
    PhotosPage,
    render_photos_page,
)
from tasks.reporting.pictures import thumbnail
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import replaced_file, write_text
from tasks.stage.progress import format_bytes
from tasks.stage.shown import printable
from tasks.stage.table import write_table

MAX_FILE = 256 << 20
IMAGES_AT_ONCE = 128
SHOWN = 10  # names in a sentence
PAGE_SUFFIXES = {".html", ".htm"}  # no photo is written over by a slip of the keyboard
UNREAD = {".heic", ".heif", ".avif"}
# A channel, an id, or an address as a run ends with: bucket, prefix and id.
RELEASE = re.compile(r"(?:s3://([^/]+)/(.+)/releases/)?(champion|candidate|best|[0-9a-f]{4,16})/?")


@dataclass(frozen=True)
class Prediction:
    """What a model answers for one image.

    Attributes:
        image: The file.
        probabilities: float32 (C,).
        answer: Position of the class of least expected cost; where all mistakes cost the same, of the most probable.
    """

    image: Path
    probabilities: Probabilities
    answer: int

    def top(self, labels: tuple[str, ...], count: int) -> list[tuple[str, float]]:
        """Return the answer, then the most probable other classes; among equals the first in label order."""
        order = np.argsort(-self.probabilities, kind="stable")
        order = np.concatenate([[self.answer], order[order != self.answer]])[:count]
        return [(labels[index], float(self.probabilities[index])) for index in order]

    def most_probable(self, labels: tuple[str, ...]) -> str:
        """Return the most probable class; among equals the first in label order."""
        return labels[self.probabilities.argmax()]

    @property
    def margin(self) -> float:
        """How far the most probable class is ahead of the next."""
        return float(margins(self.probabilities[None])[0])


class Unread(list[str]):
    """Why images could not be read, a sentence each, in the order in which they were met."""

    def refuse(self, images: int) -> None:
        """Raise InputError if there is any: the others were answered."""
        if self:
            more = f"; and {len(self) - SHOWN:,} more" if len(self) > SHOWN else ""
            those = f"{len(self):,} of {images:,} images were not answered: " if images > 1 else ""
            raise InputError(f"{those}{'; '.join(self[:SHOWN])}{more}")


def predict(classifier: Classifier, images: Iterable[Path], unread: Unread) -> Iterator[Prediction]:
    """Yield a prediction for every image that can be read, reading and answering a batch at a time.

    Args:
        classifier: Who answers.
        images: Files.
        unread: Gets a sentence for each of the others.
    """
    remaining = iter(images)
    while batch := tuple(itertools.islice(remaining, IMAGES_AT_ONCE)):
        read = [
            (path, pixels)
            for path in batch
            if (pixels := _read_or_note(path, classifier.size, classifier.fit, unread)) is not None
        ]
        if read:
            probabilities = classifier.answer(np.stack([pixels for _, pixels in read]))
            costs = classifier.cost_matrix
            answers = probabilities.argmax(axis=1) if costs is None else least_cost(probabilities, costs)
            for (path, _), row, answer in zip(read, probabilities, answers, strict=True):
                yield Prediction(path, row, int(answer))


def _read_or_note(path: Path, size: int, fit: Fit, unread: Unread) -> Images | None:
    try:
        return read_image(path, size, fit)
    except InputError as error:
        unread.append(str(error))
        return None


def read_image(path: Path, size: int, fit: Fit) -> Images:
    """Return an image file as uint8 (size, size, 3), decoded as the training images were; raises InputError."""
    return decode_image(_content(path), str(path), size, fit)


def _content(path: Path) -> bytes:
    """Return the bytes of an image file; raises InputError."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise InputError(f"{path} has more than the {format_bytes(MAX_FILE)} that an image may have")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Return files as they are given, and for a folder every image below it, sorted, as training takes them.

    What a folder holds beside images and a system's clutter is named on stderr.

    Raises:
        InputError: A file does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise InputError(f"{path} does not exist")
            found.append(path)
            continue
        files = [file for file in sorted(path.rglob("*")) if not is_clutter(file.relative_to(path).as_posix())]
        inside = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
        others = [file for file in files if file.suffix.lower() not in IMAGE_SUFFIXES and file.is_file()]
        if others:
            names = ", ".join(str(file.relative_to(path)) for file in others[:SHOWN])
            more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
            unread = UNREAD & {file.suffix.lower() for file in others}
            why = "; HEIC and AVIF are not read here: convert them" if unread else ""
            print(printable(f"predict: left out, by their names no images: {names}{more}{why}"), file=sys.stderr)
        if not inside:
            raise InputError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        found.extend(inside)
    return found


def _print_top(classifier: Classifier, predictions: Iterable[Prediction], count: int) -> None:
    width = max(map(len, classifier.labels))
    for prediction in predictions:
        print(printable(str(prediction.image)))
        for place, (label, probability) in enumerate(prediction.top(classifier.labels, count)):
            rule = "  least expected cost" if classifier.costs and not place else ""
            print(f"  {printable(label):<{width}}  {100 * probability:6.2f} %{rule}")


def _print_json(classifier: Classifier, predictions: Iterable[Prediction], count: int) -> None:
    labels, costs = classifier.labels, classifier.costs
    answers = [
        {
            "image": str(prediction.image),
            **({"most_probable": prediction.most_probable(labels)} if costs else {}),
            "classes": [
                {"class": label, "probability": probability} for label, probability in prediction.top(labels, count)
            ],
        }
        for prediction in predictions
    ]
    facts = {"model": classifier.source, **({"costs": dict(costs)} if costs else {})}
    print(json.dumps({**facts, "predictions": answers}, indent=2, ensure_ascii=False))


def _write_csv(classifier: Classifier, predictions: Iterable[Prediction], stream: TextIO) -> None:
    """Write one row an image: its path, the answer, its probability, and every class's.

    Where mistakes cost differently the most probable class comes last, whether or not it is the answer.
    """
    labels, by_cost = classifier.labels, bool(classifier.costs)
    header = ["image", "predicted", "confidence", *(f"p({label})" for label in labels), *["most_probable"] * by_cost]
    rows = (
        [
            str(each.image),
            *each.top(labels, 1)[0],
            *map(float, each.probabilities),
            *[each.most_probable(labels)] * by_cost,
        ]
        for each in predictions
    )
    write_table(stream, header, rows)


def _write_page(
    classifier: Classifier,
    images: Sequence[Path],
    predictions: Iterable[Prediction],
    unread: Unread,
    arguments: argparse.Namespace,
) -> None:
    """Write the page of the photos of which the classifier is least sure, if any was answered; least sure first."""
    shown = heapq.nsmallest(MAX_PHOTOS, predictions, key=lambda each: _lead(each, classifier.cost_matrix))
    if not shown:
        return
    given = arguments.images
    folder = given[0] if len(given) == 1 and given[0].is_dir() else None
    photos = [
        Photo(
            name=str(each.image.relative_to(folder) if folder else each.image),
            picture=_picture(each.image),
            chances=[Chance(*pair) for pair in each.top(classifier.labels, min(arguments.top, MAX_CHANCES))],
        )
        for each in shown
    ]
    answered = len(images) - len(unread)
    page = PhotosPage(classifier.source, photos, answered, unread, by_cost=bool(classifier.costs))
    write_text(arguments.page, render_photos_page(page))
    which = (
        f"{len(photos):,} of {answered:,} images, the least sure," if len(photos) < answered else f"{answered:,} images"
    )
    print(printable(f"{which} are in {arguments.page}"))


def _lead(prediction: Prediction, costs: Floats | None) -> float:
    """Return how far an answer is ahead of the next: in probability, or in expected cost where costs decide."""
    if costs is None:
        return prediction.margin
    expected = np.sort(prediction.probabilities.astype(np.float64) @ costs)
    return float(expected[1] - expected[0])


def _picture(path: Path) -> str:
    """Return a photo as a page shows it; nothing where the file went after it was answered."""
    try:
        return thumbnail(decode_thumbnail(_content(path), str(path), PHOTO_SIDE), PHOTO_SIDE)
    except InputError:
        return ""


def _run(arguments: argparse.Namespace) -> None:
    images, unread = find_images(arguments.images), Unread()
    if len(images) <= IMAGES_AT_ONCE and all(_read_or_note(image, 1, SQUASH, unread) is None for image in images):
        unread.refuse(len(images))  # at once, before seconds are spent on the model
    unread.clear()
    classifier = _chosen_classifier(arguments)
    if arguments.ignore_costs:
        classifier = dataclasses.replace(classifier, costs={}, cost_matrix=None)
    predictions = predict(classifier, images, unread)
    if arguments.json:
        _print_json(classifier, predictions, arguments.top)
    elif arguments.csv:
        with replaced_file(arguments.csv) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            _write_csv(classifier, predictions, stream)
        print(f"{len(images) - len(unread)} images are in {arguments.csv}")
    elif arguments.page:
        _write_page(classifier, images, predictions, unread, arguments)
    elif any(path.is_dir() for path in arguments.images):
        _write_csv(classifier, predictions, sys.stdout)
    else:
        _print_top(classifier, predictions, arguments.top)
    unread.refuse(len(images))


def _chosen_classifier(arguments: argparse.Namespace) -> Classifier:
    trust = chosen_trust(arguments)
    model, released = Path(arguments.model or ""), RELEASE.fullmatch(arguments.model or "champion")
    if released and not (arguments.model and model.exists()):
        return load_release(released[3], arguments.bucket or released[1], arguments.prefix or released[2], trust)
    if trust is None:
        return load_local(model, arguments.sha256)
    bucket, prefix = configured_place(arguments.bucket, arguments.prefix)
    return load_local(model, arguments.sha256, Signer(trust, f"s3://{bucket}/{prefix}"))


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _page(text: str) -> Path:
    if Path(text).suffix.lower() not in PAGE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} does not end in .html")
    return Path(text)


def main() -> None:
    """Parse the command line and predict."""
    parser = argparse.ArgumentParser(prog="python -m tasks.predict", description="Name what is in an image.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="an image, or a folder of them")
    parser.add_argument("--model", help="a release's id or channel, a model folder or a .keras file; else the champion")
    parser.add_argument("--top", type=_count, default=3, metavar="K", help="classes to show (3)")
    parser.add_argument("--ignore-costs", action="store_true", help="answer the most probable class, whatever it costs")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV; a folder's goes to standard output")
    form.add_argument("--page", type=_page, metavar="FILE.html", help="write a page to look at, least sure first")
    parser.add_argument("--bucket", help="instead of publish.bucket in params.yaml")
    parser.add_argument("--prefix", help="instead of publish.prefix in params.yaml")
    parser.add_argument("--sha256", metavar="HEX", help="of the model's bytes, where nothing beside it records them")
    add_trust_options(parser)
    arguments = parser.parse_args()
    run_command("predict", lambda: _run(arguments))


if __name__ == "__main__":
    main()
