"""Byte-identical images: found by hash, counted across splits, and kept out of what measures a model."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.arrays import SPLITS, Indices, Labels

DROPPED = -2
TRAIN, VALIDATION, TEST = range(3)
KEPT_FIRST = (TRAIN, TEST, VALIDATION)


def find_duplicates(pixel_sha256: Sequence[str]) -> Indices:
    """Return for each image, int64 (N,), the number of its group: images of one group are equal byte for byte."""
    groups: dict[str, int] = {}
    return np.array([groups.setdefault(digest, len(groups)) for digest in pixel_sha256])


def drop_duplicates(groups: Indices, labels: Labels, assignment: NDArray[np.int8]) -> NDArray[np.int8]:
    """Leave each set of equal images in one split only: train if it is there, else test, else validation.

    Equal images under different labels have no right answer, so they measure nothing: in validation and test all of
    them are dropped; in train they stay.

    Args:
        groups: As find_duplicates gives them.
        labels: int32 (N,).
        assignment: Position in SPLITS of each image's split.

    Returns:
        The assignment with DROPPED where an image is left out.
    """
    total = int(groups.max()) + 1
    present = _present(groups, assignment, total)
    kept = np.array(KEPT_FIRST)[np.argmax(present[:, list(KEPT_FIRST)], axis=1)]
    left_out = assignment != kept[groups]
    left_out |= _conflicting(groups, labels, total)[groups] & (assignment != TRAIN)
    return np.where(left_out, np.int8(DROPPED), assignment)


def count_duplicates(groups: Indices, labels: Labels, assignment: NDArray[np.int8]) -> dict[str, Any]:
    """Count equal images under an assignment to splits, before anything is dropped.

    Returns:
        `across`: for each pair of splits the different images found in both; `within`: for each split the images
        that only repeat another; `conflicting_labels`: the different images that appear under several labels.
    """
    total = int(groups.max()) + 1
    present = _present(groups, assignment, total)
    pairs = combinations(range(len(SPLITS)), 2)
    return {
        "across": {f"{SPLITS[a]}+{SPLITS[b]}": int((present[:, a] & present[:, b]).sum()) for a, b in pairs},
        "within": {
            split: int((assignment == position).sum() - present[:, position].sum())
            for position, split in enumerate(SPLITS)
        },
        "conflicting_labels": int(_conflicting(groups, labels, total).sum()),
    }


def _present(groups: Indices, assignment: NDArray[np.int8], total: int) -> NDArray[np.bool_]:
    """Return bool (groups, splits): whether a group has an image in a split."""
    present = np.zeros((total, len(SPLITS)), np.bool_)
    present[groups, assignment] = True
    return present


def _conflicting(groups: Indices, labels: Labels, total: int) -> NDArray[np.bool_]:
    """Return bool (groups,): whether a group's images have different labels."""
    lowest = np.full(total, np.iinfo(np.int32).max, np.int32)
    highest = np.full(total, -1, np.int32)
    np.minimum.at(lowest, groups, labels)
    np.maximum.at(highest, groups, labels)
    return lowest != highest
