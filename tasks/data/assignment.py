"""Who trains, who validates, who tests: by a hash of each image, by a stratified choice, or the last as they lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.arrays import SPLITS, Indices, Labels
from tasks.data.duplicates import TEST, TRAIN, VALIDATION, count_duplicates, drop_duplicates, find_duplicates
from tasks.data.labelled import UNASSIGNED, LabelledImages
from tasks.data.stable import choose_stable, keys_of, positions
from tasks.stage.errors import InputError


@dataclass(frozen=True)
class Assignment:
    """The images of each split.

    Attributes:
        indices: For each of SPLITS the positions of its images in the archive's order, rising; int64.
        duplicates: What split.json says of byte-identical images.
    """

    indices: dict[str, Indices]
    duplicates: dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """How images are divided.

    Attributes:
        method: `stable`, `stratified` or `tail`.
        validation_fraction: Of the training images, where the archive has no validation images.
        test_fraction: Of all images, where the archive has no test images.
        seed: Of the choice.
        group: Of a stable choice: a regular expression on the file's name; who shares what it matches stays together.
    """

    method: str
    validation_fraction: float
    test_fraction: float
    seed: int
    group: str | None = None


def divide(data: LabelledImages, rule: Rule) -> Assignment:
    """Give every image to one split; a split that the archive itself has is taken as it is.

    Raises:
        InputError: A split would have no image, or a class no training image.
    """
    labels = data.arrays.labels
    groups = find_duplicates(data.pixel_sha256)
    assignment = np.where(data.published == UNASSIGNED, np.int8(TRAIN), data.published)
    wanted = {TEST: rule.test_fraction, VALIDATION: rule.validation_fraction}
    wanted = {split: share for split, share in wanted.items() if not (data.published == split).any()}
    if rule.method == "stable":
        _assign_stable(assignment, data, wanted, rule)
    else:
        _assign_exact(assignment, data, groups, wanted, rule)
    duplicates = {**count_duplicates(groups, labels, assignment), "dropped": dict.fromkeys(SPLITS, 0)}
    if data.separate_duplicates:
        kept = drop_duplicates(groups, labels, assignment)
        duplicates["dropped"] = {
            name: int((assignment != kept)[assignment == i].sum()) for i, name in enumerate(SPLITS)
        }
        assignment = kept
    _refuse_empty(assignment, data)
    return Assignment({name: np.flatnonzero(assignment == i) for i, name in enumerate(SPLITS)}, duplicates)


def _assign_stable(assignment: NDArray[np.int8], data: LabelledImages, wanted: dict[int, float], rule: Rule) -> None:
    """Give the splits that are wanted their images, each by its own hash."""
    places = positions(keys_of(data.group_names(rule.group), data.sha256), rule.seed)
    free = assignment == TRAIN
    tests, validates = choose_stable(places, wanted.get(TEST, 0.0), wanted.get(VALIDATION, 0.0))
    assignment[free & tests] = TEST
    assignment[free & validates] = VALIDATION


def _assign_exact(
    assignment: NDArray[np.int8], data: LabelledImages, groups: Indices, wanted: dict[int, float], rule: Rule
) -> None:
    """Give the splits that are wanted exactly their share of the images."""
    labels = data.arrays.labels
    eligible = (np.bincount(groups)[groups] == 1) | (not data.separate_duplicates)
    for split, fraction in wanted.items():
        pool = np.flatnonzero(assignment == TRAIN)
        total = len(labels) if split == TEST else len(pool)
        if rule.method == "tail":
            chosen = choose_tail(pool, total, fraction)
        else:
            count = round(fraction * total)
            chosen = choose_stratified(pool, labels, eligible, count, (rule.seed, split), data.classes)
        assignment[chosen] = split


def choose_tail(pool: Indices, total: int, fraction: float) -> Indices:
    """Return the last images of `pool`: a fraction of `total`, cut where Keras's `validation_split` cuts."""
    count = total - int(total * (1 - fraction))
    return pool[max(0, len(pool) - count) :]


def choose_stratified(
    pool: Indices,
    labels: Labels,
    eligible: NDArray[np.bool_],
    count: int,
    seed: tuple[int, int],
    classes: tuple[str, ...],
) -> Indices:
    """Choose exactly `count` images, each class by its share of the pool (largest remainder, ties to the first class).

    Args:
        pool: Positions to choose from, rising.
        labels: Of all images.
        eligible: Of all images: whether one may be chosen; those that may not still count in the shares.
        count: How many to choose in all.
        seed: Of the choice; each class has its own stream, so that one class's images do not change another's choice.
        classes: Names, for errors.

    Returns:
        The chosen positions, int64 (count,).

    Raises:
        InputError: A class has too few eligible images.
    """
    quotas = largest_remainder(np.bincount(labels[pool], minlength=len(classes)), count)
    chosen = []
    for label, quota in enumerate(quotas):
        candidates = pool[(labels[pool] == label) & eligible[pool]]
        if quota > len(candidates):
            raise InputError(
                f"class {classes[label]!r} has {len(candidates)} images without a copy, and {quota} are to be held out"
            )
        stream = np.random.RandomState([*seed, label])  # its stream is frozen for good (NEP 19), a Generator's is not
        chosen.append(stream.permutation(candidates)[:quota])
    return np.concatenate(chosen)


def largest_remainder(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Share `count` out in proportion to `sizes`, in whole numbers that add up to it exactly (Hamilton's method)."""
    whole = int(sizes.sum())
    quotas, remainders = np.divmod(sizes * count, whole)
    first = np.argsort(-remainders, kind="stable")[: count - int(quotas.sum())]
    quotas[first] += 1
    return quotas


def _refuse_empty(assignment: NDArray[np.int8], data: LabelledImages) -> None:
    """Raise InputError for a split without an image and for a class that cannot be learnt."""
    for position, split in enumerate(SPLITS):
        if not (assignment == position).any():
            raise InputError(f"no image is left for {split} of {len(assignment)} in all")
    trained = np.bincount(data.arrays.labels[assignment == TRAIN], minlength=len(data.classes))
    if not trained.all():
        raise InputError(f"no training image is left for the class {data.classes[int(np.argmin(trained))]!r}")
