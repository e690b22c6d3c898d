"""Which views are worth averaging: decided on validation images, so that no test image decides how it is answered."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics import Floats, Labels
from tasks.stage.shown import percent

LEAST_IMAGES = 20  # what fewer show is chance
MOST_IMAGES = 2000  # on so many the gain that `fast` has on CIFAR-10 is seen
# By chance alone, views that change nothing on average are so much better once in 44 choices of one kind.
STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Measured:
    """A kind of views on the validation images.

    Attributes:
        log_loss: Mean of -ln(probability of the label), in nats.
        top1: Share of right answers.
        gain: How much lower the log loss is than that of the images alone, in nats.
        standard_error: Of the gain, from the differences image by image.
    """

    log_loss: float
    top1: float
    gain: float
    standard_error: float


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        augmentation: As in tasks.evaluation.tta.views.
        images: Validation images that it was chosen on.
        kinds: What was measured of each kind; nothing where the images are too few.
        reason: For a person.
    """

    augmentation: str
    images: int
    kinds: Mapping[str, Measured]
    reason: str

    def facts(self) -> dict[str, Any]:
        """Return it for views.json."""
        return asdict(self)


def chosen_images(count: int) -> NDArray[np.int64]:
    """Return the positions of the images to choose on: all, or 2,000 evenly spread: folders lie class by class."""
    return np.linspace(0, count - 1, min(count, MOST_IMAGES)).round().astype(np.int64)


def choose(averages: Mapping[str, Floats], labels: Labels) -> Choice:
    """Return the kind of views of the lowest log loss among those that are better than the image alone.

    Better is a log loss lower by two standard errors of the difference, paired by image, and a top-1 not lower.

    Args:
        averages: For each kind the weighted mean of its views' log-probabilities, float64 (N, C); `none` among them.
        labels: (N,).
    """
    count = len(labels)
    if count < LEAST_IMAGES:
        return Choice("none", count, {}, f"{count} validation images are too few, {LEAST_IMAGES} are needed")
    losses = {kind: _losses(average, labels) for kind, average in averages.items()}
    kinds = {
        kind: Measured(
            log_loss=float(of_kind.mean()),
            top1=float(np.mean(averages[kind].argmax(axis=1) == labels)),
            gain=float((losses["none"] - of_kind).mean()),
            standard_error=float((losses["none"] - of_kind).std(ddof=1) / np.sqrt(count)),
        )
        for kind, of_kind in losses.items()
    }
    better = [kind for kind, found in kinds.items() if _is_better(found, kinds["none"])]
    best = min(better, key=lambda kind: kinds[kind].log_loss, default="none")
    return Choice(best, count, kinds, _reason(best, kinds, count))


def _is_better(found: Measured, alone: Measured) -> bool:
    return found.gain > 0 and found.gain >= STANDARD_ERRORS * found.standard_error and found.top1 >= alone.top1


def _losses(average: Floats, labels: Labels) -> Floats:
    """Return the log loss of each image, (N,), from log-probabilities that need not be normalised, (N, C)."""
    shifted = average - average.max(axis=1, keepdims=True)
    losses: Floats = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return losses


def _reason(best: str, kinds: Mapping[str, Measured], count: int) -> str:
    alone = kinds["none"]

    def compared(kind: str) -> str:
        found = kinds[kind]
        return (
            f"{kind} log loss {alone.log_loss:.4f} → {found.log_loss:.4f} (standard error of the change "
            f"{found.standard_error:.4f}), top-1 {percent(alone.top1)} → {percent(found.top1)}"
        )

    shown = [best] if best != "none" else [kind for kind in kinds if kind != "none"]
    what = "better than the image alone" if best != "none" else "no average of views is better than the image alone"
    return f"on {count:,} validation images {what}: {'; '.join(map(compared, shown))}"
