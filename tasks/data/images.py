"""One encoded image to pixels, the same way for training data and for a person's own pictures."""

import contextlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from tasks.data.arrays import Fit, Images
from tasks.stage.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow's others start programs or are no pictures
PIXELS_LIMIT = 64 << 20
REDUCED_PIXELS_LIMIT = 256 << 20  # of a JPEG, which is decoded at an eighth of its size: phones make 200 million
LARGE_PIXELS = 4 << 20
# A picture may be made so that a few bytes of it cost minutes; what cameras, scanners and screens make is far from it.
MAX_PIXELS_PER_BYTE = 2_000  # of a large image; an empty page scanned in black and white has 1,000
MAX_SCANS = 200  # of a progressive JPEG; encoders make ten
START_OF_SCAN = b"\xff\xda"
BLACK_OF_16_BITS = 16  # of the upper eight bits; values of 12 bits reach no further
UNREAD_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS_OF_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf")
Bring = Callable[[Image.Image, int], Image.Image]  # makes an image of a size in pixels of another
Image.MAX_IMAGE_PIXELS = None  # our own limits are below, but for a JPEG of a telephone's 200 million
# These are decoded by one thread: the allocator keeps, for every thread that frees so much, what it freed.
_decoder_of_large_images = ThreadPoolExecutor(1, thread_name_prefix="large-image")


def decode_image(data: bytes, name: str, size: int, fit: Fit) -> Images:
    """Decode an image upright, in RGB, at the size asked for.

    EXIF orientation is applied, transparency laid over white, and an image of another size is resized (bicubic,
    antialiased) as `fit` says. An image of that size keeps its exact pixels. Metadata that cannot be read are left
    alone.

    Args:
        data: The file's bytes.
        name: What to call it in an error.
        size: Height and width in pixels.
        fit: `crop` scales the shorter side to the size and cuts out the middle of the longer one; `pad` scales the
            longer side and puts the image in the middle of black; `squash` scales each side by itself.

    Returns:
        uint8 (size, size, 3).

    Raises:
        InputError: It is damaged, not an image in a known format, has 16 bits a channel of which the upper eight are
            all but black, has more than 64 Mi pixels (256 Mi in a JPEG), or costs more than its bytes can be worth.
    """
    return _decode(data, name, size, partial(_fitted, fit=fit))


def decode_thumbnail(data: bytes, name: str, side: int) -> Images:
    """Decode an image as decode_image does, for people: at its own proportions, and never enlarged.

    Args:
        data: The file's bytes.
        name: What to call it in an error.
        side: Height and width in pixels that it may have at most.

    Returns:
        uint8 (H, W, 3).

    Raises:
        InputError: As decode_image.
    """
    return _decode(data, name, side, _reduced)


def _decode(data: bytes, name: str, size: int, bring: Bring) -> Images:
    try:
        image = _opened(data, name)
        pixels = image.width * image.height
        limit = REDUCED_PIXELS_LIMIT if isinstance(image, JpegImageFile) else PIXELS_LIMIT
        if pixels > limit:
            raise InputError(f"{name} has {image.width}×{image.height} pixels, more than {limit:,} in all")
        if pixels > max(LARGE_PIXELS, MAX_PIXELS_PER_BYTE * len(data)):
            raise InputError(
                f"{name} has {image.width}×{image.height} pixels in {len(data):,} bytes, which no camera makes"
            )
        if isinstance(image, JpegImageFile) and data.count(START_OF_SCAN) > MAX_SCANS:
            raise InputError(f"{name} has more than {MAX_SCANS} scans, which no camera makes")
        if pixels > PIXELS_LIMIT or bring is _reduced:  # of a JPEG that people look at, the last bits do not matter
            image.draft("RGB", (4 * size, 4 * size))
        if pixels > LARGE_PIXELS:
            return _decoder_of_large_images.submit(_decoded, image, size, bring).result()
        return _decoded(image, size, bring)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise InputError(f"{name} is not an image that can be read: {_reason(error)}") from error


def _opened(data: bytes, name: str) -> Image.Image:
    if data[4:8] == b"ftyp" and (kind := UNREAD_BRANDS.get(data[8:12])):
        raise InputError(f"{name} is {kind}, which is not read here; convert it to JPEG or PNG")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except ValueError:  # a comment or a colour profile too large for Pillow
        if not data.startswith(PNG_START):
            raise
        return Image.open(io.BytesIO(_without_texts(data)), formats=FORMATS)


def _without_texts(data: bytes) -> bytes:
    """Return a PNG with the chunks alone of which its pixels are made."""
    kept, start = [PNG_START], len(PNG_START)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] in PNG_CHUNKS_OF_PIXELS:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _decoded(image: Image.Image, size: int, bring: Bring) -> Images:
    has_16_bits = any("16" in str(tile.args) or "65535" in str(tile.args) for tile in getattr(image, "tile", ()))
    _set_upright(image)
    image = _rgb(image)
    if has_16_bits:
        _refuse_black(image)
    return np.asarray(bring(image, size))


def _fitted(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    """Bring an image to a square as decode_image says; one of that size stays as it is."""
    if image.size == (size, size):
        return image
    return _padded(image, size) if fit == "pad" else _filled(image, size, fit)


def _reduced(image: Image.Image, side: int) -> Image.Image:
    image.thumbnail((side, side))
    return image


def _filled(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    """Resize the middle of an image, or with `squash` all of it, to a square; what is cut off is not computed."""
    width, height = (min(image.size),) * 2 if fit == "crop" else image.size
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def _padded(image: Image.Image, size: int) -> Image.Image:
    """Return an image as large as fits into a square, in the middle of it.

    The rest is black, as with tf.image.resize_with_pad and Pillow's ImageOps.pad: one colour around all images,
    whatever they show, and zeros were seen to cost no accuracy (Hashemi 2019, J. Big Data 6:98).
    """
    longer = max(image.size)
    width, height = (max(1, round(length / longer * size)) for length in image.size)
    square = Image.new("RGB", (size, size))
    place = (round((size - width) * 0.5), round((size - height) * 0.5))
    square.paste(image.resize((width, height), Image.Resampling.BICUBIC), place)
    return square


def _set_upright(image: Image.Image) -> None:
    """Turn an image as its EXIF orientation says; one whose EXIF cannot be read stays as it lies."""
    image.load()
    with contextlib.suppress(Exception):  # Pillow's readers of EXIF raise many types, and the pixels are sound
        ImageOps.exif_transpose(image, in_place=True)


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


def _refuse_black(image: Image.Image) -> None:
    """Refuse what would be a black picture without a word: 12-bit values, or 8-bit ones, in 16 bits."""
    if np.asarray(image).max() < BLACK_OF_16_BITS:
        raise ValueError(
            f"its 16-bit values are below {BLACK_OF_16_BITS << 8:,} of 65,535, so that it would be all but black; "
            "save it with 8 bits, or with values over the whole range"
        )


def _reason(error: Exception) -> str:
    """Return what Pillow says, without the memory address of the buffer that it names."""
    if "cannot identify image file" in str(error):
        return "unknown format"
    return str(error) or type(error).__name__
