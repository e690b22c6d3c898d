"""One encoded image to pixels, the same way for training data and for a person's own pictures."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from tasks.data.arrays import Images
from tasks.stage.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow's others start programs or are no pictures
PIXELS_LIMIT = 64 << 20
LARGE_PIXELS = 4 << 20
# These are decoded by one thread: the allocator keeps, for every thread that frees so much, what it freed.
_decoder_of_large_images = ThreadPoolExecutor(1, thread_name_prefix="large-image")


def decode_image(data: bytes, name: str, size: int) -> Images:
    """Decode an image upright, in RGB, at the size asked for.

    EXIF orientation is applied, transparency laid over white, and an image of another size is resized (bicubic,
    antialiased; its aspect ratio is not kept, so nothing is cut off). An image of that size keeps its exact pixels.

    Args:
        data: The file's bytes.
        name: What to call it in an error.
        size: Height and width in pixels.

    Returns:
        uint8 (size, size, 3).

    Raises:
        InputError: It is damaged, not an image in a known format, or has more than 64 Mi pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            pixels = image.width * image.height
            if pixels > PIXELS_LIMIT:
                raise InputError(f"{name} has {image.width}×{image.height} pixels, more than {PIXELS_LIMIT:,} in all")
        if pixels > LARGE_PIXELS:
            return _decoder_of_large_images.submit(_decoded, image, size).result()
        return _decoded(image, size)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise InputError(f"{name} is not an image that can be read: {_reason(error)}") from error


def _decoded(image: Image.Image, size: int) -> Images:
    ImageOps.exif_transpose(image, in_place=True)
    image = _rgb(image)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}, whose range is unknown")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    """Return what Pillow says, without the memory address of the buffer that it names."""
    if "cannot identify image file" in str(error):
        return "unknown format"
    return str(error) or type(error).__name__
