"""What our pages are made of: templates that escape all they are given, and pictures inside the page."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL import Image

MAX_PICTURE = 128  # pixels to which images are reduced where they are larger
MAX_LOSSLESS = 64  # pixels of a picture whose every pixel is seen; of larger ones JPEG takes a tenth of PNG's bytes
JPEG_QUALITY = 85


def page_template(name: str, **filters: Callable[..., str]) -> Template:
    """Return a template of this folder in which every value is escaped, and a missing one an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


def data_uri(picture: bytes, kind: str = "png") -> str:
    """Return a picture file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def thumbnail(image: NDArray[np.uint8], side: int = MAX_PICTURE) -> str:
    """Return an image, uint8 (H, W, 3), as the address of a picture of at most `side` pixels; a small one is exact."""
    picture = Image.fromarray(np.asarray(image))
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    if max(picture.size) <= MAX_LOSSLESS:
        picture.save(stream, format="PNG", optimize=True)
        return data_uri(stream.getvalue())
    picture.save(stream, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return data_uri(stream.getvalue(), "jpeg")
