"""Order and augmentation of an epoch, as functions of (seed, epoch, sample index) and of nothing else.

They are drawn on the host once an epoch, at most 84 bytes a sample; tasks.training.augment applies them in the step.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.params.recipe import AugmentParams

# Part of the seed: a new purpose goes to the end, or every run's draws change.
ORDER, ROWS, COLUMNS, FLIP, CUTOUT_ROWS, CUTOUT_COLUMNS, UPSIDE_DOWN = range(7)
RESIZED_CROP, ROTATION, QUARTER_TURNS, COLOURS, ERASING, PARTNERS, SHARES = range(7, 14)

# Width over height.
CROP_RATIOS = (3 / 4, 4 / 3)
ERASING_RATIOS = (0.3, 1 / 0.3)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """What happens to each of N samples in one epoch; from `affine` on, (N, 0) of what the recipe does not ask for.

    Attributes:
        rows, columns: (N,) int32, offset of the crop, from -crop to +crop.
        flip: (N,) int32, 1 where the image is mirrored.
        upside_down: (N,) int32, 1 where its top and bottom change places.
        cutout_rows, cutout_columns: (N,) int32, first row and column of the square that is set to the mean.
        affine: (N, 6) float32, where an image's pixel in column x and row y is from: column a0 x + a1 y + a2, row
            b0 x + b1 y + b2. Crop and flips are in it.
        colours: (N, 3) float32, factors of brightness, contrast and saturation.
        erased: (N, 4) int32, the rectangle's first column and row, and the ones after its last.
        partners: (N,) int32, the sample that is laid over this one.
        shares: (N,) float32, how much of this one remains, at least half.
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    flip: NDArray[np.int32]
    upside_down: NDArray[np.int32]
    cutout_rows: NDArray[np.int32]
    cutout_columns: NDArray[np.int32]
    affine: NDArray[np.float32]
    colours: NDArray[np.float32]
    erased: NDArray[np.int32]
    partners: NDArray[np.int32]
    shares: NDArray[np.float32]

    @property
    def mixes(self) -> bool:
        """Whether samples have partners."""
        return self.partners.ndim == 1

    def among(self, indices: NDArray[np.int32]) -> tuple[NDArray[np.int32], "Draws"]:
        """Return which samples to read for `indices`, partners after them, and their draws, with partners by place."""
        read = np.concatenate([indices, self.partners[indices]]) if self.mixes else indices
        draws = {name: array[read] for name, array in vars(self).items()}
        if self.mixes:
            draws["partners"] = np.roll(np.arange(len(read), dtype=np.int32), len(indices))
        return read, replace(self, **draws)

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return the arrays in the order of their fields, for tf.nest."""
        return tuple(getattr(self, entry.name) for entry in fields(self))


@dataclass(frozen=True)
class _Chance:
    """The random numbers of an epoch over `count` samples; a sample's do not depend on how many follow it."""

    seed: int
    epoch: int
    count: int

    def generator(self, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, self.epoch, purpose))))

    def integers(self, purpose: int, low: int, high: int) -> NDArray[np.int32]:
        return self.generator(purpose).integers(low, high + 1, self.count, dtype=np.int32)

    def uniform(self, purpose: int, columns: int) -> Floats:
        return self.generator(purpose).random((self.count, columns))


def draw_order(count: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Return a permutation of `count` sample indices, (count,) int32."""
    return _Chance(seed, epoch, count).generator(ORDER).permutation(count).astype(np.int32)


def draw_augmentation(
    params: AugmentParams, count: int, image_shape: tuple[int, int, int], seed: int, epoch: int
) -> Draws:
    """Draw what happens to each of `count` samples in an epoch."""
    chance = _Chance(seed, epoch, count)
    flip = upside_down = np.zeros(count, np.int32)
    if params.flip in ("random", "both"):
        flip = chance.integers(FLIP, 0, 1)
        upside_down = chance.integers(UPSIDE_DOWN, 0, 1) if params.flip == "both" else upside_down
    elif params.flip == "alternating":
        # A fixed random half in the first epoch, all turned over every epoch (airbench, section 3.6).
        flip = _Chance(seed, 0, count).integers(FLIP, 0, 1) ^ (epoch % 2)
    height, width, _ = image_shape
    rows, columns = (chance.integers(purpose, -params.crop, params.crop) for purpose in (ROWS, COLUMNS))
    moves, signs = np.stack([columns, rows], axis=1), 1 - 2 * np.stack([flip, upside_down], axis=1)
    return Draws(
        rows,
        columns,
        flip,
        upside_down,
        chance.integers(CUTOUT_ROWS, 0, max(height - params.cutout, 0)),
        chance.integers(CUTOUT_COLUMNS, 0, max(width - params.cutout, 0)),
        _affine(params, chance, (width, height), moves, signs).astype(np.float32),
        _colours(params, chance).astype(np.float32),
        _erased(params, chance, (width, height)).astype(np.int32),
        _partners(params, chance),
        _shares(params, chance).astype(np.float32),
    )


def _affine(
    params: AugmentParams, chance: _Chance, size: tuple[int, int], moves: NDArray[np.int32], signs: NDArray[np.int32]
) -> Floats:
    """Return Draws.affine of images (width, height), whose crop is `moves` and whose flips are `signs`, both (N, 2)."""
    if not params.interpolates:
        return np.empty((chance.count, 0))
    extent = np.array(size, np.float64)
    corner, window = _rectangles(chance.uniform(RESIZED_CROP, 4), size, params.resized_crop or (1, 1), CROP_RATIOS)
    angles = np.deg2rad(params.rotate) * (2 * chance.uniform(ROTATION, 1)[:, 0] - 1)
    turns = chance.integers(QUARTER_TURNS, 0, 3) if params.quarter_turns else np.zeros(chance.count, np.int32)
    # From the middle of the image: input = linear · output + shift.
    linear = (signs * window / extent)[:, :, None] * _rotations(angles, turns)
    shift = corner + (window - extent) / 2 + moves
    # From the middle of the first pixel.
    middle = (extent - 1) / 2
    shift = shift + middle - (linear * middle).sum(axis=2)
    return np.concatenate([linear, shift[:, :, None]], axis=2).reshape(-1, 6)


def _rotations(angles: Floats, turns: NDArray[np.int32]) -> Floats:
    """Return counterclockwise rotations (N, 2, 2) of columns and rows by radians and quarter turns, these exactly."""
    cosine, sine = np.cos(angles), np.sin(angles)
    cosine, sine = np.choose(turns, [cosine, -sine, -cosine, sine]), np.choose(turns, [sine, cosine, -sine, -cosine])
    return np.moveaxis(np.array([[cosine, -sine], [sine, cosine]]), 2, 0)


def _rectangles(
    uniform: Floats, size: tuple[int, int], shares: tuple[float, float], ratios: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Return corners and extents (N, 2), columns first, of rectangles anywhere within an image.

    Args:
        uniform: (N, 4), from 0 to 1.
        size: The image's width and height in pixels.
        shares: Smallest and largest share of its area.
        ratios: Smallest and largest width over height; of these only such are drawn with which the rectangle fits.
    """
    extent = np.array(size, np.float64)
    share = shares[0] + (shares[1] - shares[0]) * uniform[:, 0]
    image_ratio = size[0] / size[1]
    low, high = (np.log(np.clip(ratio, share * image_ratio, image_ratio / share)) for ratio in ratios)
    ratio = np.exp(low + (high - low) * uniform[:, 1])
    area = share * extent.prod()
    rectangle = np.minimum(np.sqrt(np.stack([area * ratio, area / ratio], axis=1)), extent)
    return uniform[:, 2:] * (extent - rectangle), rectangle


def _colours(params: AugmentParams, chance: _Chance) -> Floats:
    if not params.recolours:
        return np.empty((chance.count, 0))
    spread = np.array([params.brightness, params.contrast, params.saturation])
    return 1 + spread * (2 * chance.uniform(COLOURS, 3) - 1)


def _erased(params: AugmentParams, chance: _Chance, size: tuple[int, int]) -> Floats:
    if params.erase is None:
        return np.empty((chance.count, 0))
    uniform = chance.uniform(ERASING, 5)
    corner, rectangle = _rectangles(uniform[:, :4], size, params.erase.area, ERASING_RATIOS)
    rectangle *= uniform[:, 4:] < params.erase.probability
    return np.rint(np.concatenate([corner, corner + rectangle], axis=1))


def _partners(params: AugmentParams, chance: _Chance) -> NDArray[np.int32]:
    """Return a permutation: every sample is laid over one."""
    if not params.mixup:
        return np.empty((chance.count, 0), np.int32)
    return chance.generator(PARTNERS).permutation(chance.count).astype(np.int32)


def _shares(params: AugmentParams, chance: _Chance) -> Floats:
    if not params.mixup:
        return np.empty((chance.count, 0))
    share = chance.generator(SHARES).beta(params.mixup, params.mixup, chance.count)
    return np.maximum(share, 1 - share)
