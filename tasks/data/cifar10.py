"""CIFAR-10 from its official binary archive (https://www.cs.toronto.edu/~kriz/cifar.html, "binary version").

Each of five training batches and one test batch is 10,000 records of one label byte and 3,072 pixel bytes: 1,024 of
red, then green, then blue, row by row. Members are read in memory by their expected names and sizes.
"""

from pathlib import Path

import numpy as np

from tasks.data.archive import Member, members
from tasks.data.arrays import SPLITS, Arrays
from tasks.data.labelled import LabelledImages
from tasks.stage.errors import InputError

FOLDER = "cifar-10-batches-bin"
BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
NAMES = "batches.meta.txt"
IMAGES_PER_BATCH = 10_000
IMAGE_SHAPE = (32, 32, 3)
CLASSES = 10
RECORD_BYTES = 1 + 32 * 32 * 3
BATCH_BYTES = IMAGES_PER_BATCH * RECORD_BYTES
NAMES_BYTES_LIMIT = 1024


def read_cifar10(archive: Path) -> LabelledImages:
    """Read all 60,000 images: the training batches in order, then the test batch.

    Raises:
        InputError: The archive is damaged, or a member is missing, too long, too short or has a label above 9.
    """
    images = np.empty((len(BATCHES) * IMAGES_PER_BATCH, *IMAGE_SHAPE), np.uint8)
    labels = np.empty(len(images), np.int32)
    classes: tuple[str, ...] = ()
    missing = {f"{FOLDER}/{name}" for name in (*BATCHES, NAMES)}
    for member in members(archive):
        if member.name not in missing:
            continue
        missing.remove(member.name)
        name = member.name.removeprefix(f"{FOLDER}/")
        if name == NAMES:
            classes = _class_names(archive, member)
        else:
            position = slice(BATCHES.index(name) * IMAGES_PER_BATCH, (BATCHES.index(name) + 1) * IMAGES_PER_BATCH)
            images[position], labels[position] = _batch(archive, member)
    if missing:
        raise InputError(f"{archive} lacks the member {min(missing)}")
    published = np.full(len(images), SPLITS.index("train"), np.int8)
    published[-IMAGES_PER_BATCH:] = SPLITS.index("test")
    return LabelledImages(Arrays(images, labels), classes, published, separate_duplicates=False)


def _batch(archive: Path, member: Member) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch's images, uint8 (10000, 32, 32, 3), and labels, uint8 (10000,)."""
    if member.size != BATCH_BYTES:
        kind = "long" if member.size > BATCH_BYTES else "short"
        raise InputError(f"{archive}: {member.name} is too {kind}: {member.size:,} bytes instead of {BATCH_BYTES:,}")
    records = np.frombuffer(member.read(), np.uint8).reshape(IMAGES_PER_BATCH, RECORD_BYTES)
    labels = records[:, 0]
    if labels.max() >= CLASSES:
        position = int(np.argmax(labels >= CLASSES))
        raise InputError(f"{archive}: {member.name} gives image {position} the label {labels[position]}, above 9")
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _class_names(archive: Path, member: Member) -> tuple[str, ...]:
    """Return the ten names, one a line in label order."""
    if member.size > NAMES_BYTES_LIMIT:
        raise InputError(f"{archive}: {member.name} is too long: {member.size:,} bytes for {CLASSES} class names")
    try:
        names = tuple(member.read().decode().split())
    except UnicodeDecodeError as error:
        raise InputError(f"{archive}: {member.name} is not text") from error
    if len(names) != CLASSES or len(set(names)) != CLASSES:
        raise InputError(f"{archive}: {member.name} does not name {CLASSES} different classes")
    return names
