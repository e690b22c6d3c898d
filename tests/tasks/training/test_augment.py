import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.params.recipe import AugmentParams
from tasks.training.augment import Draws, draw_augmentation, draw_order, gather_augmented

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3), dtype=np.uint8)
SHAPE = (8, 6, 3)
MEAN_PIXEL = (1, 2, 3)


def by_hand(image: np.ndarray, draws: Draws, index: int, crop: int, cutout: int) -> np.ndarray:
    """The same augmentation as a person would write it: mirror, pad with reflection, cut a window, hide a square."""
    image = image[:, ::-1] if draws.flip[index] else image
    image = image[::-1] if draws.upside_down[index] else image
    padded = np.pad(image, ((crop, crop), (crop, crop), (0, 0)), mode="reflect") if crop else image
    # The gather reads the mirrored image from the other side, so its offset counts from the other side too.
    column = -draws.columns[index] if draws.flip[index] else draws.columns[index]
    row = -draws.rows[index] if draws.upside_down[index] else draws.rows[index]
    row, column = crop + row, crop + column
    window = padded[row : row + image.shape[0], column : column + image.shape[1]].copy()
    top, left = draws.cutout_rows[index], draws.cutout_columns[index]
    window[top : top + cutout, left : left + cutout] = MEAN_PIXEL
    return window


@settings(max_examples=25, deadline=None)
@given(
    crop=st.integers(0, 4),
    cutout=st.integers(0, 6),
    flip=st.sampled_from(["none", "random", "both", "alternating"]),
    seed=st.integers(0, 1000),
    epoch=st.integers(0, 20),
)
def test_gather_does_what_one_would_do_by_hand(crop: int, cutout: int, flip: str, seed: int, epoch: int) -> None:
    params = AugmentParams.model_validate({"crop": crop, "flip": flip, "cutout": cutout})
    draws = draw_augmentation(params, len(IMAGES), SHAPE, seed, epoch)
    indices = np.array([3, 0, 19, 3], np.int32)
    batch = gather_augmented(tf.constant(IMAGES), tf.constant(indices), draws, cutout, MEAN_PIXEL)
    expected = [by_hand(IMAGES[index], draws, index, crop, cutout) for index in indices]
    np.testing.assert_array_equal(batch, expected)


def test_draws_are_a_function_of_seed_epoch_and_sample_alone() -> None:
    params = AugmentParams(crop=4, flip="both", cutout=3)
    first, again = (draw_augmentation(params, 50, SHAPE, 1, 2) for _ in range(2))
    other = draw_augmentation(params, 50, SHAPE, 1, 3)
    for name in ("rows", "columns", "flip", "upside_down", "cutout_rows", "cutout_columns"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()


def test_alternating_flip_turns_every_image_over_every_epoch() -> None:
    params = AugmentParams(flip="alternating")
    flips = [draw_augmentation(params, 500, SHAPE, 7, epoch).flip for epoch in range(4)]
    np.testing.assert_array_equal(flips[0], flips[2])
    np.testing.assert_array_equal(flips[0], 1 - flips[1])
    np.testing.assert_array_equal(flips[1], flips[3])
    assert 0.4 < flips[0].mean() < 0.6


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_order_is_a_permutation_that_changes_with_seed_and_epoch(count: int) -> None:
    order = draw_order(count, seed=0, epoch=0)
    np.testing.assert_array_equal(np.sort(order), np.arange(count))
    if count > 7:
        assert (order != draw_order(count, seed=0, epoch=1)).any()
        assert (order != draw_order(count, seed=1, epoch=0)).any()


def test_a_photograph_may_stand_on_its_head_whether_or_not_it_is_mirrored() -> None:
    draws = draw_augmentation(AugmentParams(flip="both"), 2000, SHAPE, 0, 0)
    shares = [((draws.flip == flip) & (draws.upside_down == turned)).mean() for flip in (0, 1) for turned in (0, 1)]
    assert all(0.2 < share < 0.3 for share in shares)
    assert not draw_augmentation(AugmentParams(flip="random"), 2000, SHAPE, 0, 0).upside_down.any()
