"""An image given to predict, in any of the formats that are read."""

import io
from typing import get_args

import numpy as np
from PIL import Image

from tasks.data.arrays import Fit
from tasks.data.images import FORMATS, decode_image
from tasks.stage.errors import InputError

SIZE = 16


def check(data: bytes) -> bool:
    """Decode bytes; they give pixels of the size asked for, however they are fitted, or an InputError."""
    try:
        fitted = [decode_image(data, "image", SIZE, fit) for fit in get_args(Fit)]
    except InputError:
        return False
    assert {pixels.shape for pixels in fitted} == {(SIZE, SIZE, 3)}
    assert {pixels.dtype for pixels in fitted} == {np.dtype(np.uint8)}
    return True


def seeds() -> dict[str, bytes]:
    """Return one small image of every format, and a few modes that are converted in a way of their own."""
    colour = Image.fromarray(np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    made = {name.lower(): _encoded(colour, name) for name in FORMATS}
    return made | {
        "rotated.jpeg": _encoded(colour, "JPEG", exif=rotated),
        "transparent.png": _encoded(colour.convert("RGBA"), "PNG"),
        "palette.png": _encoded(colour.convert("P"), "PNG", transparency=1),
        "deep.png": _encoded(Image.fromarray(np.arange(20, dtype=np.uint16).reshape(4, 5) * 999), "PNG"),
        "two-level.tiff": _encoded(colour.convert("1"), "TIFF", compression="group4"),
        "deflated.tiff": _encoded(colour, "TIFF", compression="tiff_adobe_deflate"),
        "cmyk.jpeg": _encoded(colour.convert("CMYK"), "JPEG"),
        "lossless.webp": _encoded(colour.convert("RGBA"), "WEBP", lossless=True),
    }


def _encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


Image.init()  # all formats at once, not when the first image of each comes
