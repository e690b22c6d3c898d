from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.params.recipe import AugmentParams
from tasks.training.augment import augmented, laid_over
from tasks.training.draws import Draws, draw_augmentation
from tests.tasks.training.test_draws import EVERYTHING

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3), dtype=np.uint8)
SQUARES = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
MEAN_PIXEL = (1, 2, 3)


def seen(images: np.ndarray, seed: int = 0, epoch: int = 0, **values: Any) -> tuple[np.ndarray, Draws]:
    """All images as an epoch shows them, and its draws."""
    params = AugmentParams.model_validate(values)
    draws = draw_augmentation(params, len(images), images.shape[1:], seed, epoch)
    indices = tf.range(len(images))
    batch = augmented(tf.constant(images), indices, draws, params, MEAN_PIXEL)
    assert batch.dtype == tf.uint8
    assert batch.shape == images.shape
    return batch.numpy(), draws


def shade(level: int, count: int = 40) -> np.ndarray:
    return np.full((count, 8, 8, 3), level, np.uint8)


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
    draws = draw_augmentation(params, len(IMAGES), IMAGES.shape[1:], seed, epoch)
    indices = np.array([3, 0, 19, 3], np.int32)
    batch = augmented(tf.constant(IMAGES), tf.constant(indices), draws, params, MEAN_PIXEL)
    expected = [by_hand(IMAGES[index], draws, index, crop, cutout) for index in indices]
    np.testing.assert_array_equal(batch, expected)


def test_nothing_asked_for_is_nothing_done() -> None:
    np.testing.assert_array_equal(seen(IMAGES)[0], IMAGES)
    identity: dict[str, Any] = {"resized_crop": [1, 1], "erase": {"probability": 0}}
    np.testing.assert_array_equal(seen(SQUARES, **identity)[0], SQUARES)
    np.testing.assert_array_equal(seen(IMAGES, **identity)[0], IMAGES)
    ones = draw_augmentation(AugmentParams(brightness=1e-9, contrast=1e-9, saturation=1e-9), 20, (8, 6, 3), 0, 0)
    assert (ones.colours == 1).all()
    recoloured = seen(IMAGES, brightness=1e-9, contrast=1e-9, saturation=1e-9)[0]
    np.testing.assert_array_equal(recoloured, IMAGES)


def test_resampling_moves_and_mirrors_as_the_gather_does() -> None:
    moves: dict[str, Any] = {"crop": 2, "flip": "both"}
    gathered, resampled = seen(SQUARES, **moves)[0], seen(SQUARES, **moves, resized_crop=[1, 1])[0]
    # Past the edge one repeats it, and the other does not.
    np.testing.assert_array_equal(resampled[:, 2:-2, 2:-2], gathered[:, 2:-2, 2:-2])
    assert (resampled != gathered).any()


def test_a_quarter_turn_is_numpys() -> None:
    batch, draws = seen(SQUARES, flip="both", quarter_turns=True)
    turns = []
    for index, image in enumerate(batch):
        mirrored = by_hand(SQUARES[index], draws, index, 0, 0)
        (turn,) = (turn for turn in range(4) if np.array_equal(image, np.rot90(mirrored, turn)))
        turns.append(turn)
        # Which of them is in the map: a quarter turn counterclockwise reads a column's pixels from a row.
        a0, a1 = draws.affine[index, :2] * (-1 if draws.flip[index] else 1)
        assert (a0, a1) == [(1, 0), (0, -1), (-1, 0), (0, 1)][turn]
    assert set(turns) == set(range(4))


def test_pixels_lie_where_the_map_says() -> None:
    rows, columns = np.mgrid[:32, :32]
    ramp = np.repeat((3 * rows + 4 * columns + 10)[None, :, :, None], 3, axis=3).astype(np.uint8)
    batch, draws = seen(np.repeat(ramp, 20, axis=0), resized_crop=[0.3, 0.9], rotate=15, flip="both", crop=3)
    for image, (a0, a1, a2, b0, b1, b2) in zip(batch, draws.affine, strict=True):
        column, row = a0 * columns + a1 * rows + a2, b0 * columns + b1 * rows + b2
        inside = (np.minimum(row, column) >= 0) & (np.maximum(row, column) <= 31)
        assert inside.mean() > 0.5
        expected = 3 * row + 4 * column + 10
        # Bilinear interpolation is exact of a ramp: what is left is rounding.
        assert np.abs(image - expected[:, :, None])[inside].max() <= 0.51


def test_no_corner_is_left_empty() -> None:
    moved: dict[str, Any] = {"resized_crop": [0.05, 1], "rotate": 180, "quarter_turns": True, "crop": 4, "flip": "both"}
    np.testing.assert_array_equal(seen(shade(77), **moved)[0], shade(77))


def test_brightness_multiplies() -> None:
    batch, draws = seen(shade(100), brightness=0.5)
    np.testing.assert_array_equal(batch, np.broadcast_to(batch[:, :1, :1, :1], batch.shape))
    np.testing.assert_allclose(batch[:, 0, 0, 0], 100 * draws.colours[:, 0], atol=0.51)
    assert batch.min() < 60
    assert batch.max() > 140
    batch, draws = seen(shade(250), brightness=1.0)
    np.testing.assert_allclose(batch[:, 0, 0, 0], np.minimum(250 * draws.colours[:, 0], 255), atol=0.51)


def test_contrast_moves_pixels_away_from_the_mean_grey() -> None:
    np.testing.assert_array_equal(seen(shade(90), contrast=1.0)[0], shade(90))
    halves = shade(80)
    halves[:, :4] = 120
    batch, draws = seen(halves, contrast=0.5)
    for level, part in ((120, batch[:, :4]), (80, batch[:, 4:])):
        expected = 100 + (level - 100) * draws.colours[:, 1]
        np.testing.assert_allclose(part, np.broadcast_to(expected[:, None, None, None], part.shape), atol=0.51)
    red = shade(0)
    red[..., 0] = 100
    # Its grey is 29.9, to which every channel comes closer where the factor is less than one.
    batch, draws = seen(red, contrast=1.0)
    factor = np.minimum(draws.colours[:, 1], 1)
    np.testing.assert_allclose(batch[:, 0, 0, 1], 29.9 * (1 - factor), atol=0.51)


def test_saturation_moves_pixels_away_from_their_own_grey() -> None:
    greys = np.repeat(SQUARES[..., :1], 3, axis=3)
    np.testing.assert_array_equal(seen(greys, saturation=1.0)[0], greys)
    batch, draws = seen(SQUARES, saturation=0.5)
    grey = SQUARES @ np.array([[0.299], [0.587], [0.114]])
    expected = np.clip(grey + (SQUARES - grey) * draws.colours[:, 2, None, None, None], 0, 255)
    np.testing.assert_allclose(batch, expected, atol=0.51)


def test_colours_change_in_a_fixed_order_before_anything_is_hidden() -> None:
    batch, draws = seen(SQUARES, brightness=0.3, contrast=0.3, saturation=0.3, cutout=3, erase={"probability": 0.5})
    brightness, contrast, saturation = draws.colours.astype(np.float64).T[:, :, None, None, None]
    luma = np.array([[0.299], [0.587], [0.114]])
    expected = np.rint(np.clip(SQUARES * brightness, 0, 255))
    mean = (expected @ luma).mean(axis=(1, 2), keepdims=True)
    expected = np.rint(np.clip(mean + (expected - mean) * contrast, 0, 255))
    grey = expected @ luma
    expected = np.clip(grey + (expected - grey) * saturation, 0, 255)
    for index, image in enumerate(expected):
        left, top, right, bottom = draws.erased[index]
        image[top:bottom, left:right] = MEAN_PIXEL
        top, left = draws.cutout_rows[index], draws.cutout_columns[index]
        image[top : top + 3, left : left + 3] = MEAN_PIXEL
    np.testing.assert_allclose(batch, expected, atol=1.6)  # a half rounded the other way, and what follows from it
    assert np.abs(batch - expected).mean() < 0.3
    assert 0.3 < (draws.erased[:, 2] > draws.erased[:, 0]).mean() < 0.7


def test_an_image_looks_the_same_wherever_in_whatever_batch_it_is() -> None:
    params = AugmentParams.model_validate(EVERYTHING)
    draws = draw_augmentation(params, len(SQUARES), SQUARES.shape[1:], 3, 4)
    whole = seen(SQUARES, 3, 4, **EVERYTHING)[0]
    assert (whole != SQUARES).any(axis=(1, 2, 3)).all()
    for indices in ([5], [39, 5, 0, 39], list(reversed(range(40)))):
        batch = augmented(tf.constant(SQUARES), tf.constant(indices), draws, params, MEAN_PIXEL)
        np.testing.assert_array_equal(batch, whole[indices])


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_another_image_is_laid_over_by_its_share(share: float) -> None:
    shares = tf.constant([share] * len(IMAGES))
    mixed = laid_over(tf.constant(IMAGES), tf.constant(IMAGES[::-1].copy()), shares)
    assert mixed.dtype == tf.uint8
    np.testing.assert_allclose(mixed, share * IMAGES + (1 - share) * IMAGES[::-1], atol=0.5)
