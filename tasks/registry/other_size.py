"""The present test images at another size, or fitted to it otherwise: what a champion of that kind is asked instead.

They are read from the archive once more, so that no model sees pixels that were enlarged or shrunk twice.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tasks.data.arrays import Fit, Images, Labels, SplitRecord, index_hash
from tasks.data.assignment import Rule, divide
from tasks.data.reading import read_images
from tasks.params.data import SplitParams
from tasks.sources.source import load_source
from tasks.stage.errors import InputError


@contextmanager
def images_at(
    image_size: int, fit: Fit, record: SplitRecord, labels: Labels, params: SplitParams, raw: Path
) -> Iterator[Images]:
    """Give the images of the test set as another split would have them, uint8 (N, H, W, 3), in the same order.

    Args:
        image_size: Height and width in pixels.
        fit: How images are brought to it.
        record: What the present split says of itself.
        labels: Of its test images, int32 (N,).
        params: Those by which it was made.
        raw: What the stage download wrote.

    Raises:
        InputError: The archive is not there or is another, its images have one size only, or of these pixels other
            images would be held out for testing (copies of an image are told by their pixels).
    """
    source = load_source(raw)
    with tempfile.TemporaryDirectory(prefix=f"images-{image_size}-") as name:
        scratch = Path(name) / "decoded"
        data = read_images(source.dataset, source.archive, image_size, fit, scratch, params.max_quarantined)
        if data.arrays.images.shape[1:3] != (image_size, image_size):
            raise InputError(f"the images of {source.dataset} have one size only")
        rule = Rule(record.method, params.validation_fraction, params.test_fraction, params.seed, params.group)
        chosen = divide(data, rule)
        positions = chosen.indices["test"]
        same_positions = index_hash(positions) == record.index_sha256["test"]
        if not same_positions or not np.array_equal(data.arrays.labels[positions], labels):
            there, here = f"{image_size} pixels ({fit})", f"{record.image_shape[0]} ({record.fit})"
            raise InputError(f"{raw} holds other test images at {there} than at {here}")
        yield np.asarray(data.arrays.images[positions])
