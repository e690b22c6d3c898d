"""Pictures inside a page: PNG files as data URIs, no larger than they are looked at."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_PICTURE = 128  # pixels to which images are reduced where they are larger


def data_uri(png: bytes) -> str:
    """Return a PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def thumbnail(image: NDArray[np.uint8]) -> str:
    """Return an image, uint8 (H, W, 3), as the address of a small picture."""
    picture = Image.fromarray(np.asarray(image))
    picture.thumbnail((MAX_PICTURE, MAX_PICTURE))
    picture.save(stream := io.BytesIO(), format="PNG", optimize=True)
    return data_uri(stream.getvalue())
