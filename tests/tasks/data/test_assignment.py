"""No image in two splits, exact counts, one choice a seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.data.arrays import SPLITS, Arrays
from tasks.data.assignment import Rule, choose_tail, divide, largest_remainder
from tasks.data.duplicates import TEST, TRAIN, VALIDATION
from tasks.data.labelled import UNASSIGNED, LabelledImages
from tasks.stage.errors import InputError

FRACTIONS = st.floats(0.05, 0.4)


def data_set(
    labels: list[int], published: list[int] | None = None, pixels: list[int] | None = None, *, separate: bool = True
) -> LabelledImages:
    """Images of one pixel, all different unless `pixels` says which are equal."""
    values = np.arange(len(labels)) if pixels is None else np.array(pixels)
    images = np.stack([values // 256, values % 256, values * 0], axis=1).astype(np.uint8).reshape(-1, 1, 1, 3)
    assigned = np.full(len(labels), UNASSIGNED, np.int8) if published is None else np.array(published, np.int8)
    classes = tuple("abcdef"[: max(labels) + 1])
    return LabelledImages(Arrays(images, np.array(labels, np.int32)), classes, assigned, separate)


def per_class(data: LabelledImages, indices: NDArray[np.int64]) -> list[int]:
    return np.bincount(data.arrays.labels[indices], minlength=len(data.classes)).tolist()


@st.composite
def labelled(draw: st.DrawFn) -> list[int]:
    sizes = draw(st.lists(st.integers(20, 120), min_size=2, max_size=5))
    return draw(st.permutations([label for label, size in enumerate(sizes) for _ in range(size)]))


@given(labelled(), FRACTIONS, FRACTIONS, st.sampled_from(["stratified", "tail"]), st.integers(0, 9))
def test_every_image_is_in_exactly_one_split(
    labels: list[int], validation: float, test: float, method: str, seed: int
) -> None:
    try:
        assignment = divide(data_set(labels), Rule(method, validation, test, seed))
    except InputError as error:
        assert method == "tail"
        assert "no training image is left" in str(error)
        return
    together = np.concatenate([assignment.indices[name] for name in SPLITS])
    assert sorted(together) == list(range(len(labels)))
    assert all((np.diff(assignment.indices[name]) > 0).all() for name in SPLITS)


@given(labelled(), FRACTIONS, FRACTIONS, st.integers(0, 9))
def test_stratified_counts_are_exact(labels: list[int], validation: float, test: float, seed: int) -> None:
    data = data_set(labels)
    assignment = divide(data, Rule("stratified", validation, test, seed))
    held_out = len(assignment.indices["test"])
    rest = len(labels) - held_out
    assert held_out == round(test * len(labels))
    assert len(assignment.indices["validation"]) == round(validation * rest)
    left = np.bincount(labels) - per_class(data, assignment.indices["test"])
    for name, count, sizes in (("test", held_out, np.bincount(labels)), ("validation", round(validation * rest), left)):
        shares = np.array(per_class(data, assignment.indices[name])) - count * sizes / sizes.sum()
        assert (np.abs(shares) < 1).all()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20).filter(any), st.floats(0, 1))
def test_largest_remainder_adds_up_and_never_exceeds(sizes: list[int], share: float) -> None:
    count = int(share * sum(sizes))
    quotas = largest_remainder(np.array(sizes), count)
    assert quotas.sum() == count
    assert (quotas >= 0).all()
    assert (quotas <= np.array(sizes)).all()


def test_largest_remainder_by_hand() -> None:
    assert largest_remainder(np.array([7, 2, 1]), 4).tolist() == [3, 1, 0]
    assert largest_remainder(np.array([5, 5, 5]), 4).tolist() == [2, 1, 1]


def test_choice_is_the_seeds_and_stays_so() -> None:
    data = data_set([0, 1] * 50)
    chosen = {seed: divide(data, Rule("stratified", 0.1, 0.1, seed)).indices for seed in (0, 1)}
    again = divide(data, Rule("stratified", 0.1, 0.1, 0)).indices
    for name in SPLITS:
        np.testing.assert_array_equal(chosen[0][name], again[name])
    assert chosen[0]["validation"].tolist() != chosen[1]["validation"].tolist()
    assert chosen[0]["validation"].tolist() == [4, 36, 38, 62, 69, 73, 80, 91, 95]


def test_choice_is_no_prefix_of_the_class() -> None:
    assignment = divide(data_set([0, 1] * 500), Rule("stratified", 0.1, 0.1, 0))
    assert assignment.indices["test"].max() > 900
    assert assignment.indices["test"].min() < 100


@pytest.mark.parametrize(("total", "fraction", "first"), [(50_000, 0.1, 45_000), (1000, 0.25, 750), (10, 0.3, 7)])
def test_tail_begins_where_keras_cuts(total: int, fraction: float, first: int) -> None:
    assert choose_tail(np.arange(total), total, fraction).tolist() == list(range(first, total))


def test_tail_takes_test_last_and_validation_before_it() -> None:
    assignment = divide(data_set([0, 1] * 50), Rule("tail", 0.1, 0.2, 0))
    assert assignment.indices["test"].tolist() == list(range(80, 100))
    assert assignment.indices["validation"].tolist() == list(range(72, 80))


def test_tail_of_an_archive_in_class_order_is_refused() -> None:
    with pytest.raises(InputError, match="no training image is left for the class 'b'"):
        divide(data_set([0] * 80 + [1] * 20), Rule("tail", 0.1, 0.2, 0))


def test_splits_of_the_archive_are_honoured() -> None:
    published = [TRAIN] * 60 + [VALIDATION] * 20 + [TEST] * 20
    assignment = divide(data_set([0, 1] * 50, published), Rule("stratified", 0.5, 0.5, 0))
    assert assignment.indices["train"].tolist() == list(range(60))
    assert assignment.indices["validation"].tolist() == list(range(60, 80))
    assert assignment.indices["test"].tolist() == list(range(80, 100))


def test_missing_validation_comes_out_of_train_alone() -> None:
    published = [TRAIN] * 80 + [TEST] * 20
    assignment = divide(data_set([0, 1] * 50, published), Rule("stratified", 0.1, 0.5, 0))
    assert assignment.indices["test"].tolist() == list(range(80, 100))
    assert len(assignment.indices["validation"]) == 8


def test_fraction_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no image is left for validation of 20 in all"):
        divide(data_set([0, 1] * 10), Rule("stratified", 0.01, 0.2, 0))
    with pytest.raises(InputError, match="no image is left for train of 100 in all"):
        divide(data_set([0] * 50 + [1] * 50), Rule("stratified", 0.99, 0.98, 0))


@given(labelled(), st.randoms(use_true_random=False), st.integers(0, 9))
def test_chosen_images_have_no_copy_anywhere(labels: list[int], random: object, seed: int) -> None:
    stream = np.random.default_rng(seed)
    pixels = np.arange(len(labels))
    copies = stream.choice(len(labels), len(labels) // 10, replace=False)
    pixels[copies] = pixels[copies // 2]
    assignment = divide(data_set(labels, pixels=pixels.tolist()), Rule("stratified", 0.1, 0.1, seed))
    sets = {name: set(pixels[assignment.indices[name]]) for name in SPLITS}
    assert not sets["test"] & sets["train"]
    assert not sets["validation"] & sets["train"]
    assert not sets["validation"] & sets["test"]
    assert sum(len(assignment.indices[name]) for name in SPLITS) == len(labels)
    assert assignment.duplicates["dropped"] == {"train": 0, "validation": 0, "test": 0}


def test_class_of_copies_alone_is_refused() -> None:
    with pytest.raises(InputError, match="class 'b' has 0 images without a copy, and 5 are to be held out"):
        divide(data_set([0] * 50 + [1] * 50, pixels=[*range(50)] + [99] * 50), Rule("stratified", 0.1, 0.1, 0))


def test_copies_in_published_splits_are_dropped_and_counted() -> None:
    labels = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    published = [TRAIN] * 4 + [VALIDATION] * 3 + [TEST] * 3
    pixels = [0, 1, 2, 3, 0, 5, 6, 3, 6, 9]  # 4 copies 0, 7 copies 3, 8 copies 6
    assignment = divide(data_set(labels, published, pixels), Rule("stratified", 0.1, 0.1, 0))
    assert assignment.indices["train"].tolist() == [0, 1, 2, 3]
    assert assignment.indices["validation"].tolist() == [5]
    assert assignment.indices["test"].tolist() == [8, 9]
    assert assignment.duplicates["across"] == {"train+validation": 1, "train+test": 1, "validation+test": 1}
    assert assignment.duplicates["dropped"] == {"train": 0, "validation": 2, "test": 1}
    assert assignment.duplicates["conflicting_labels"] == 0


def test_copies_under_two_labels_measure_nothing() -> None:
    labels = [0, 1, 0, 1, 0, 1, 0, 1]
    published = [TRAIN] * 3 + [VALIDATION] * 2 + [TEST] * 3
    pixels = [0, 0, 2, 3, 4, 5, 6, 6]  # 0 and 1 in train, 6 and 7 in test
    assignment = divide(data_set(labels, published, pixels), Rule("stratified", 0.1, 0.1, 0))
    assert assignment.indices["train"].tolist() == [0, 1, 2]
    assert assignment.indices["test"].tolist() == [5]
    assert assignment.duplicates["conflicting_labels"] == 2
    assert assignment.duplicates["dropped"] == {"train": 0, "validation": 0, "test": 2}
    assert assignment.duplicates["within"] == {"train": 1, "validation": 0, "test": 1}


def test_published_benchmark_is_counted_but_left_whole() -> None:
    published = [TRAIN] * 40 + [TEST] * 10
    pixels = [*range(40), *range(10)]
    assignment = divide(data_set([0, 1] * 25, published, pixels, separate=False), Rule("tail", 0.1, 0.1, 0))
    assert [len(assignment.indices[name]) for name in SPLITS] == [36, 4, 10]
    assert assignment.duplicates["across"]["train+test"] == 10
    assert assignment.duplicates["dropped"] == {"train": 0, "validation": 0, "test": 0}
