"""Views of an image whose answers are averaged (airbench's mirror_translate, arXiv 2404.00498, section 3.6)."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics import Floats, Probabilities, log_probabilities

Images = NDArray[np.uint8]
View = Callable[[Images], Images]


def mirror(images: Images) -> Images:
    """Flip (N, H, W, C) left to right."""
    return images[:, :, ::-1]


def shift(images: Images, down_right: bool) -> Images:
    """Move (N, H, W, C) by one pixel along a diagonal; the edge that comes in is its neighbour, mirrored."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    start = 0 if down_right else 2
    return padded[:, start : start + height, start : start + width]


VIEWS: tuple[View, ...] = (
    lambda images: images,
    mirror,
    lambda images: shift(images, down_right=True),
    lambda images: mirror(shift(images, down_right=True)),
    lambda images: shift(images, down_right=False),
    lambda images: mirror(shift(images, down_right=False)),
)
# Of the first views; what sums to 1 is exact in binary.
WEIGHTS: dict[str, tuple[float, ...]] = {
    "none": (1.0,),
    "mirror": (1 / 2, 1 / 2),
    "mirror_and_shift": (1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8),
}


def views(augmentation: str) -> list[tuple[float, View]]:
    """Return each view with its weight; the first is the image itself, and the weights sum to 1.

    Args:
        augmentation: `none`, `mirror`, or `mirror_and_shift`: ½ mean(image, mirror) + ½ mean over two diagonal
            one-pixel shifts of mean(view, mirrored view).
    """
    return list(zip(WEIGHTS[augmentation], VIEWS, strict=False))


def average(answers: Iterable[tuple[float, Probabilities]]) -> Floats:
    """Return the weighted mean of the views' log-probabilities; float64 (N, C).

    ln p = z - ln Σ exp z, so for each view it is the logits z minus one number an image. The weighted mean over views
    is then the mean of the logits minus one number an image, which changes neither the argmax nor the softmax. Where
    float32 has underflowed (logits more than 87 below the highest) the clipped value stands in.
    """
    return np.sum([weight * log_probabilities(probabilities) for weight, probabilities in answers], axis=0)
