"""Images of the present split at another size or fit: what a champion of that kind is asked instead.

They are read from the archive once more, so that no model sees pixels that were enlarged or shrunk twice.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np

from tasks.data.arrays import SPLITS, Fit, Images, Indices, Labels, SplitRecord, index_hash
from tasks.data.assignment import Rule, divide
from tasks.data.reading import read_images
from tasks.params.data import SplitParams
from tasks.sources.source import load_source
from tasks.stage.errors import InputError


@contextmanager
def images_at(
    image_size: int,
    fit: Fit,
    record: SplitRecord,
    places: Mapping[str, Indices],
    labels: Labels,
    params: SplitParams,
    raw: Path,
) -> Iterator[Images]:
    """Give images of the present split as another split would have them, uint8 (N, H, W, 3), in the same order.

    Args:
        image_size: Height and width in pixels.
        fit: How images are brought to it.
        record: What the present split says of itself.
        places: Which images, in the order of SPLITS: their places in the arrays of each split.
        labels: Of these images, int32 (N,).
        params: Those by which the split was made.
        raw: What the stage download wrote.

    Raises:
        InputError: The archive is not there or is another, its images have one size only, or of these pixels other
            images would be in those splits (copies of an image are told by their pixels).
    """
    source = load_source(raw)
    with tempfile.TemporaryDirectory(prefix=f"images-{image_size}-") as name:
        scratch = Path(name) / "decoded"
        with redirect_stdout(sys.stderr):  # a command's standard output is its answer, which programs read
            data = read_images(source.dataset, source.archive, image_size, fit, scratch, params.max_quarantined)
        if data.arrays.images.shape[1:3] != (image_size, image_size):
            raise InputError(f"the images of {source.dataset} have one size only")
        rule = Rule(record.method, params.validation_fraction, params.test_fraction, params.seed, params.group)
        chosen = divide(data, rule).indices
        same = all(index_hash(chosen[part]) == record.index_sha256[part] for part in places)
        positions = np.concatenate([chosen[part][places[part]] for part in SPLITS if part in places]) if same else None
        if positions is None or not np.array_equal(data.arrays.labels[positions], labels):
            there, here = f"{image_size} pixels ({fit})", f"{record.image_shape[0]} ({record.fit})"
            raise InputError(f"{raw} is divided otherwise at {there} than at {here}")
        yield np.asarray(data.arrays.images[positions])
