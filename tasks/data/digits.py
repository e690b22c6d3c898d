"""scikit-learn's bundled handwritten digits: real data on a machine without a network.

1,797 images of 8×8 pixels in 17 shades, from the UCI set "Optical Recognition of Handwritten Digits" (its test part).
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.data.arrays import Arrays
from tasks.data.labelled import UNASSIGNED, LabelledImages
from tasks.stage.errors import InputError

IMAGES = 1797
SIDE = 8
WHITE = 16
SCALED_SIDE = 32


def bundled_digits() -> Path:
    """Return scikit-learn's own file, found without the second that importing scikit-learn takes.

    Raises:
        InputError: scikit-learn is not installed.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise InputError("scikit-learn, whose bundled digits were asked for, is not installed")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def read_digits(archive: Path) -> LabelledImages:
    """Read the digits and scale them up to 32×32 RGB, bicubic.

    Raises:
        InputError: The file is damaged or is not the 1,797 digits.
    """
    try:
        with gzip.open(archive, "rt", encoding="ascii") as stream:
            rows = np.loadtxt(stream, delimiter=",", dtype=np.int32, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{archive} is not scikit-learn's file of digits: {error}") from error
    if rows.shape != (IMAGES, SIDE * SIDE + 1):
        raise InputError(f"{archive} holds {rows.shape[0]} rows of {rows.shape[1]} numbers, not {IMAGES} digits")
    pixels, labels = rows[:, :-1], rows[:, -1]
    if rows.min() < 0 or pixels.max() > WHITE or labels.max() > 9:
        raise InputError(f"{archive} has a pixel outside 0 to {WHITE} or a label outside 0 to 9")
    small = (pixels * 255 // WHITE).astype(np.uint8).reshape(-1, SIDE, SIDE)
    images = np.stack([_scaled_up(image) for image in small])
    published = np.full(IMAGES, UNASSIGNED, np.int8)
    classes = tuple(str(digit) for digit in range(10))
    return LabelledImages(Arrays(images, labels), classes, published, separate_duplicates=True)


def _scaled_up(image: np.ndarray) -> np.ndarray:
    """Return uint8 (32, 32, 3) for uint8 (8, 8)."""
    large = Image.fromarray(image).resize((SCALED_SIDE, SCALED_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(large.convert("RGB"))
