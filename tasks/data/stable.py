"""A place that never changes: each image's follows from a hash of its content, or of the group that it belongs to.

As in TensorFlow's retrain.py and TFX's hash buckets: the hash is compared with thresholds that are the same whatever
else is there, so that no arrival, removal or change of label moves another image. A class of few images may then have
none in a split, which is said; every rule that would give it one takes, after some removal, an image that was trained.
A copy under the name of another group, or of none, has that one's place as soon as its original is gone: what a release
trained on, the gate leaves out (tasks/registry/fair_comparison.py).
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Position = NDArray[np.float64]


def positions(keys: Sequence[str], seed: int) -> Position:
    """Return for each key its place in [0, 1), float64 (N,): the first 8 bytes of a sha256 of seed and key."""
    digests = (hashlib.sha256(f"{seed} {key}".encode()).digest() for key in keys)
    return np.array([int.from_bytes(digest[:8], "big") >> 11 for digest in digests], np.float64) / 2**53


def keys_of(groups: Sequence[str], sha256: Sequence[str]) -> list[str]:
    """Return what decides each image's place: its group where it has one, else its content.

    Args:
        groups: A name each, empty for none; not of its class or split, so that another label is no other group.
        sha256: Of the images' bytes; copies are always together.
    """
    return [f"group {name}" if name else f"content {digest}" for name, digest in zip(groups, sha256, strict=True)]


def group_of(path: str, group: str | None) -> str | None:
    """Return the name of the group that a path belongs to; None for none."""
    match = re.search(group, path) if group else None
    if match is None:
        return None
    return "\0".join(part or "" for part in match.groups()) if match.groups() else match[0]


def choose_stable(places: Position, test_fraction: float, validation_fraction: float) -> tuple[NDArray[np.bool_], ...]:
    """Return who tests and who validates, each bool (N,).

    Args:
        places: As `positions` gives them.
        test_fraction: Of all images; 0 where the archive has test images of its own.
        validation_fraction: Of those that do not test; 0 where the archive has validation images of its own.
    """
    tests = places < test_fraction
    return tests, ~tests & (places < test_fraction + (1 - test_fraction) * validation_fraction)
