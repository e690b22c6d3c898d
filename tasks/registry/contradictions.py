"""The images that the champion most confidently contradicts: a label may be wrong, or the picture is hard.

Of all splits, the training images among them: what a model cannot learn of those that it has seen is the more telling.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tasks.data.arrays import SPLITS, load_split_record
from tasks.registry.drift import MAX_ASKED, Asked, gathered, of_known_classes, sampled
from tasks.registry.manifest import Manifest
from tasks.registry.recorded_answers import CannotAnswerError, fetch_classes
from tasks.registry.store import Store


@dataclass(frozen=True)
class Contradiction:
    """An image that the champion takes for something else.

    Attributes:
        split: In which it is.
        place: Its place in that split's arrays.
        label: What people say that it shows.
        predicted: What the champion says.
        probability: How sure that is, from 0 to 1.
    """

    split: str
    place: int
    label: str
    predicted: str
    probability: float


def find_contradictions(
    bucket: Store, champion: Manifest, split: Path, ask: Asked, count: int
) -> tuple[Contradiction, ...]:
    """Return those of which the champion is surest, at most so many; none where it cannot be asked.

    Of more than MAX_ASKED images a sample is asked, of classes that the champion knows.

    Args:
        bucket: Where the champion is.
        champion: Its manifest.
        split: Folder that the stage split wrote.
        ask: Has it answer images.
        count: How many to return.

    Raises:
        InputError: The arrays or the champion are damaged, or the store refused.
    """
    record = load_split_record(split)
    with TemporaryDirectory(prefix="champion-") as name:
        theirs = fetch_classes(bucket, champion, Path(name))
    everything = {part: np.arange(record.counts[part]["total"], dtype=np.int64) for part in SPLITS}
    known, _ = of_known_classes(split, everything, record.classes, theirs)
    places = sampled(known, MAX_ASKED)
    images = gathered(split, places)
    if not len(images.labels):
        return ()
    try:
        answers = ask(champion, images, places, record)
    except CannotAnswerError:
        return ()
    where = [(part, int(place)) for part in SPLITS for place in places[part]]
    predicted, sure = answers.argmax(axis=1), answers.max(axis=1)
    wrong = [n for n in np.argsort(-sure, kind="stable") if theirs[predicted[n]] != record.classes[images.labels[n]]]
    return tuple(
        Contradiction(
            split=where[n][0],
            place=where[n][1],
            label=record.classes[images.labels[n]],
            predicted=theirs[predicted[n]],
            probability=float(sure[n]),
        )
        for n in wrong[:count]
    )
