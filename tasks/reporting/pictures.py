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


def data_uri(png: bytes) -> str:
    """Return a PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def thumbnail(image: NDArray[np.uint8]) -> str:
    """Return an image, uint8 (H, W, 3), as the address of a small picture."""
    picture = Image.fromarray(np.asarray(image))
    picture.thumbnail((MAX_PICTURE, MAX_PICTURE))
    picture.save(stream := io.BytesIO(), format="PNG", optimize=True)
    return data_uri(stream.getvalue())
