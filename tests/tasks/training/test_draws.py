from typing import Any

import numpy as np
import pytest

from tasks.params.recipe import AugmentParams
from tasks.training import draws as draws_module
from tasks.training.draws import Draws, draw_augmentation, draw_order

SHAPE = (8, 6, 3)
EVERYTHING: dict[str, Any] = {
    "crop": 4,
    "flip": "both",
    "cutout": 3,
    "resized_crop": [0.3, 1],
    "rotate": 20,
    "quarter_turns": True,
    "brightness": 0.2,
    "contrast": 0.3,
    "saturation": 0.4,
    "erase": {},
    "mixup": 0.4,
}


def drawn(count: int = 2000, shape: tuple[int, int, int] = SHAPE, epoch: int = 0, **values: Any) -> Draws:
    return draw_augmentation(AugmentParams.model_validate(values), count, shape, 1, epoch)


def linear(draws: Draws) -> np.ndarray:
    return draws.affine.reshape(-1, 2, 3)[:, :, :2].astype(np.float64)


def test_draws_are_a_function_of_seed_epoch_and_sample_alone() -> None:
    first, again, other = (drawn(50, epoch=epoch, **EVERYTHING) for epoch in (2, 2, 3))
    assert len(first.arrays()) == 11
    for name, array in vars(first).items():
        assert array.shape[0] == 50
        assert array.size
        np.testing.assert_array_equal(array, getattr(again, name))
        assert (array != getattr(other, name)).any()
    more = drawn(80, epoch=2, **EVERYTHING)
    for name in set(vars(first)) - {"partners"}:  # any sample may be a partner
        np.testing.assert_array_equal(getattr(first, name), getattr(more, name)[:50])


def test_what_runs_have_drawn_since_the_first_one_stays() -> None:
    def by_hand(purpose: int, low: int, high: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((1, 2, purpose))))
        return generator.integers(low, high + 1, 50, dtype=np.int32)

    order = np.random.Generator(np.random.Philox(np.random.SeedSequence((1, 2, 0)))).permutation(50)
    np.testing.assert_array_equal(draw_order(50, 1, 2), order)
    expected = {
        "rows": by_hand(1, -4, 4),
        "columns": by_hand(2, -4, 4),
        "flip": by_hand(3, 0, 1),
        "cutout_rows": by_hand(4, 0, 5),
        "cutout_columns": by_hand(5, 0, 3),
        "upside_down": by_hand(6, 0, 1),
    }
    for values in (EVERYTHING, {"crop": 4, "flip": "both", "cutout": 3}):
        draws = drawn(50, epoch=2, **values)
        for name, array in expected.items():
            np.testing.assert_array_equal(getattr(draws, name), array)
    assert not any(array.size for array in draws.arrays()[6:])
    purposes = [value for name, value in vars(draws_module).items() if name.isupper() and isinstance(value, int)]
    assert sorted(purposes) == list(range(len(purposes)))


def test_alternating_flip_turns_every_image_over_every_epoch() -> None:
    flips = [drawn(500, epoch=epoch, flip="alternating").flip for epoch in range(4)]
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
    draws = drawn(flip="both")
    shares = [((draws.flip == flip) & (draws.upside_down == turned)).mean() for flip in (0, 1) for turned in (0, 1)]
    assert all(0.2 < share < 0.3 for share in shares)
    assert not drawn(flip="random").upside_down.any()


@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 30, 3)])
@pytest.mark.parametrize("area", [(0.25, 0.75), (0.5, 1.0)])
def test_a_resized_crop_is_a_window_of_the_area_and_ratio_asked_for(
    shape: tuple[int, int, int], area: tuple[float, float]
) -> None:
    draws = drawn(shape=shape, resized_crop=area)
    height, width, _ = shape
    window = np.einsum("nii->ni", linear(draws)) * (width, height)
    share = window.prod(axis=1) / (width * height)
    assert area[0] - 1e-6 < share.min() < area[0] + 0.01
    assert area[1] - 0.01 < share.max() < area[1] + 1e-6
    assert share.mean() == pytest.approx(sum(area) / 2, abs=0.02)
    ratio = window[:, 0] / window[:, 1]
    assert 3 / 4 - 1e-6 < ratio.min() < ratio.max() < max(4 / 3, width / height) + 1e-6
    if area[1] < 0.8:  # any of these ratios fits
        assert ratio.min() < 0.76
        assert ratio.max() > 1.32
    # The outer edges of the first and of the last pixel, from the middle of the first.
    a0, a1, a2, b0, b1, b2 = draws.affine.astype(np.float64).T
    assert not a1.any()
    assert not b0.any()
    for scale, shift, size in ((a0, a2, width), (b1, b2, height)):
        first, last = shift - scale / 2, shift + scale * (size - 1 / 2)
        assert first.min() > -1 / 2 - 1e-4
        assert last.max() < size - 1 / 2 + 1e-4
        assert (first > size / 20).any()


def test_a_rotation_keeps_sizes_and_stays_within_its_degrees() -> None:
    draws = drawn(rotate=20)
    rotations = linear(draws)
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(2), (2000, 2, 2)), atol=1e-6
    )
    angles = np.rad2deg(np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0]))
    assert -20 < angles.min() < -19
    assert 19 < angles.max() < 20
    assert abs(angles.mean()) < 1
    turned = linear(drawn(rotate=20, quarter_turns=True))
    quarters = np.rad2deg(np.arctan2(turned[:, 1, 0], turned[:, 0, 0])) - angles
    np.testing.assert_allclose(quarters / 90, np.rint(quarters / 90), atol=1e-4)
    shares = np.bincount(np.rint(quarters / 90).astype(int) % 4, minlength=4) / 2000
    assert all(0.2 < share < 0.3 for share in shares)


def test_factors_of_colour_are_spread_around_one() -> None:
    colours = drawn(brightness=0.2, saturation=0.5).colours
    np.testing.assert_allclose(colours.min(axis=0), [0.8, 1, 0.5], atol=0.01)
    np.testing.assert_allclose(colours.max(axis=0), [1.2, 1, 1.5], atol=0.01)
    assert abs(np.corrcoef(colours[:, 0], colours[:, 2])[0, 1]) < 0.1


def test_so_many_images_are_erased_and_so_much_of_each() -> None:
    draws = drawn(shape=(64, 64, 3), erase={"probability": 0.25, "area": [0.1, 0.3]})
    left, top, right, bottom = draws.erased.T
    width, height = right - left, bottom - top
    assert min(left.min(), top.min()) == 0
    assert max(right.max(), bottom.max()) == 64
    erased = width * height > 0
    assert 0.2 < erased.mean() < 0.3
    area = (width * height)[erased] / 64**2
    assert 0.09 < area.min() < 0.12
    assert 0.28 < area.max() < 0.32  # of whole pixels
    ratio = (width / np.maximum(height, 1))[erased]
    assert 0.25 < ratio.min() < 0.4
    assert 2.5 < ratio.max() < 4


def test_mixup_pairs_every_image_with_one_that_counts_for_less() -> None:
    draws = drawn(mixup=0.4)
    np.testing.assert_array_equal(np.sort(draws.partners), np.arange(2000))
    assert (draws.partners != np.arange(2000)).any()
    assert 0.5 <= draws.shares.min() < 0.52
    assert 0.999 < draws.shares.max() <= 1
    # The larger part of Beta(0.4, 0.4) has this mean; that of a uniform share has 0.75.
    assert draws.shares.mean() == pytest.approx(0.84, abs=0.01)


@pytest.mark.parametrize("mixup", [0, 0.4])
def test_a_windows_draws_are_those_of_its_samples(mixup: float) -> None:
    draws = drawn(50, **{**EVERYTHING, "mixup": mixup})
    indices = np.array([7, 3, 49, 3], np.int32)
    read, of_window = draws.among(indices)
    np.testing.assert_array_equal(read[:4], indices)
    for name in set(vars(draws)) - {"partners"}:
        np.testing.assert_array_equal(getattr(of_window, name)[:4], getattr(draws, name)[indices])
    if mixup:
        np.testing.assert_array_equal(read[of_window.partners[:4]], draws.partners[indices])
        np.testing.assert_array_equal(of_window.affine[of_window.partners[:4]], draws.affine[draws.partners[indices]])
    else:
        assert len(read) == 4
