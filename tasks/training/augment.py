"""What a step does to the images of its batch, as tasks.training.draws has drawn it; uint8 in, uint8 out."""

import tensorflow as tf

from tasks.params.recipe import AugmentParams
from tasks.training.draws import Draws


def augmented(
    images: tf.Tensor, indices: tf.Tensor, draws: Draws, params: AugmentParams, mean_pixel: tuple[int, ...]
) -> tf.Tensor:
    """Return the images of a batch: moved, recoloured, and with what is hidden set to the mean; an image by itself.

    Args:
        images: (N, H, W, 3) uint8, all samples.
        indices: (B,) int32, the samples of the batch.
        draws: As draw_augmentation made it from `params`, its arrays as tensors.
        params: What is asked for.
        mean_pixel: 3 values of 0 to 255.

    Returns:
        (B, H, W, 3) uint8.
    """
    move = _resampled if params.interpolates else _rearranged
    batch = move(images, indices, draws)
    if params.recolours:
        batch = _recoloured(batch, tf.gather(draws.colours, indices), params)
    hidden = []
    if params.cutout:
        first = tf.stack([tf.gather(draws.cutout_columns, indices), tf.gather(draws.cutout_rows, indices)], axis=1)
        hidden.append((first, first + params.cutout))
    if params.erase is not None:
        hidden.append(tf.split(tf.gather(draws.erased, indices), 2, axis=1))
    for first, stop in hidden:
        batch = _set_to(batch, first, stop, mean_pixel)
    return batch


def laid_over(batch: tf.Tensor, partners: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Return share · batch + (1 - share) · partners, (B, H, W, 3) uint8 all, the shares (B,) (mixup, equation 1)."""
    share = shares[:, None, None, None]
    return _as_pixels(share * tf.cast(batch, tf.float32) + (1 - share) * tf.cast(partners, tf.float32))


def _rearranged(images: tf.Tensor, indices: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Crop with reflection and mirror, in one gather of whole pixels."""
    count, height, width, channels = images.shape
    turned = tf.gather(draws.upside_down, indices)[:, None]
    down = tf.where(turned == 1, tf.range(height - 1, -1, -1), tf.range(height))
    rows = _reflected(down + tf.gather(draws.rows, indices)[:, None], height)
    mirrored = tf.gather(draws.flip, indices)[:, None]
    across = tf.where(mirrored == 1, tf.range(width - 1, -1, -1), tf.range(width))
    columns = _reflected(across + tf.gather(draws.columns, indices)[:, None], width)
    wide = tf.int64 if count * height * width > tf.int32.max else tf.int32
    row_starts = (tf.cast(indices, wide)[:, None] * height + tf.cast(rows, wide)) * width
    positions = row_starts[:, :, None] + tf.cast(columns, wide)[:, None, :]
    return tf.gather(tf.reshape(images, (-1, channels)), positions)


def _reflected(positions: tf.Tensor, size: int) -> tf.Tensor:
    """Fold positions outside 0 to size - 1 back, without repeating the edge."""
    positions = tf.abs(positions)
    return tf.minimum(positions, 2 * (size - 1) - positions)


def _resampled(images: tf.Tensor, indices: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Take every pixel from where the affine map says, bilinearly; past the edge the image is reflected, edge first."""
    found = tf.raw_ops.ImageProjectiveTransformV3(
        # In float32: of uint8 the operation would cut off what is after the point.
        images=tf.cast(tf.gather(images, indices), tf.float32),
        transforms=tf.pad(tf.gather(draws.affine, indices), ((0, 0), (0, 2))),
        output_shape=images.shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    return _as_pixels(found)


def _recoloured(batch: tf.Tensor, factors: tf.Tensor, params: AugmentParams) -> tf.Tensor:
    """Change brightness, contrast and saturation by factors (B, 3); each gives uint8 again, as torchvision's do."""
    brightness, contrast, saturation = tf.unstack(factors[:, :, None, None, None], axis=1)
    if params.brightness:
        batch = _as_pixels(tf.cast(batch, tf.float32) * brightness)
    if params.contrast:
        # A sum of whole numbers in float64 is exact in any order, and so the same in any part of a batch.
        total = tf.reduce_sum(tf.cast(batch, tf.float64), axis=(1, 2), keepdims=True)
        mean = _grey(total / (batch.shape[1] * batch.shape[2]))
        batch = _away_from(tf.cast(mean, tf.float32), batch, contrast)
    if params.saturation:
        batch = _away_from(_grey(tf.cast(batch, tf.float32)), batch, saturation)
    return batch


def _away_from(grey: tf.Tensor, batch: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _as_pixels(grey * (1 - factor) + tf.cast(batch, tf.float32) * factor)


def _grey(pixels: tf.Tensor) -> tf.Tensor:
    """Return the luma (…, 1) of red, green and blue (…, 3), as in ITU-R BT.601."""
    red, green, blue = tf.split(pixels, 3, axis=-1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _as_pixels(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(values), 0, 255), tf.uint8)


def _set_to(batch: tf.Tensor, first: tf.Tensor, stop: tf.Tensor, pixel: tuple[int, ...]) -> tf.Tensor:
    """Set a rectangle of each image to a colour; `first` and `stop` are (B, 2), columns before rows."""
    _, height, width, _ = batch.shape
    columns, rows = (
        (tf.range(size) >= first[:, axis, None]) & (tf.range(size) < stop[:, axis, None])
        for axis, size in enumerate((width, height))
    )
    hidden = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(hidden, tf.constant(pixel, tf.uint8), batch)
