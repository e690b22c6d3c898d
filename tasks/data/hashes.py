"""What an image is known by in other data sets: 64 bits of its file's sha256, and 64 of its pixels'.

A release carries those of what it trained on and chose by, so that none is ever judged on what it has seen, whatever
became of the data set since. The file's tells an image at any size; the pixels' tells a copy that was saved anew.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.data.arrays import Indices
from tasks.stage.errors import InputError

FIT_HASHES = "fit_hashes.npy"  # of train and validation: uint64 (N,), each once, rising
TEST_HASHES = "test_hashes.npy"  # of test: uint64 (N, 2), in the arrays' order: the file's, the pixels'

Hashes = NDArray[np.uint64]


def write_hashes(
    folder: Path, sha256: Sequence[str], pixel_sha256: Sequence[str], indices: Mapping[str, Indices]
) -> None:
    """Write the hashes of who trains or validates, and of who tests, beside the arrays; equal images, equal bytes.

    Args:
        folder: Of the arrays.
        sha256: Of each image's file, in hexadecimal; of its pixels where it has none.
        pixel_sha256: Of its pixels.
        indices: For each split the positions of its images.
    """
    hashes = np.stack([prefixes(sha256), prefixes(pixel_sha256)], axis=1)
    fit = np.concatenate([indices["train"], indices["validation"]])
    for name, array in ((FIT_HASHES, np.unique(hashes[fit])), (TEST_HASHES, hashes[indices["test"]])):
        with (folder / name).open("wb") as stream:
            np.save(stream, array, allow_pickle=False)


def load_hashes(path: Path) -> Hashes:
    """Read hashes that write_hashes wrote.

    Raises:
        InputError: They are missing, or no such array.
    """
    try:
        hashes: Hashes = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run the stage split again") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path.name} is not a complete array: {error}") from error
    if hashes.dtype != np.uint64 or hashes.shape[1:] not in ((), (2,)):
        raise InputError(f"{path.name} holds {hashes.dtype} of shape {hashes.shape}, and no hashes of images")
    return hashes


def are_among(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Return of each image, bool (N,), whether its file or its pixels are among those that are known.

    Args:
        hashes: uint64 (N, 2).
        known: uint64, of any shape.
    """
    return np.asarray(np.isin(hashes, known).any(axis=1), np.bool_)


def prefixes(sha256: Sequence[str]) -> Hashes:
    """Return the first 64 bits of hashes in hexadecimal, uint64 (N,)."""
    return np.array([int(digest[:16], 16) for digest in sha256], np.uint64)
