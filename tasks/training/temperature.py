"""The temperature: the one number by which a trained network's logits are divided, so that its confidence is true.

Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599, section 4.2. It is fitted on validation
images, after training and in float32. No class becomes more probable than another by it: top-1 stays as it was.
"""

from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.evaluation.calibration import calibration
from tasks.stage.shown import percent
from tasks.training.feed import Samples

# Answers are all but even above, and all but certain below: a minimum further out is that of no useful network.
LOWEST, HIGHEST = 0.05, 20.0
HALVINGS = 50  # of the range's logarithm, 6: what is left is within a float64's last bits
LEAST_IMAGES = 20  # what fits fewer is chance: on 20 it is often off by a third already, in the simulations below
MOST_IMAGES = 10_000  # on so many it is off by a percent or two
IMAGES_AT_ONCE = 100
BINS = 15  # as Guo et al. have them
# The weight of an imagined image, beside those of 1. Without it a network that is right on all of few images would
# be fitted to be certain, and each mistake on others cost it dearly. In simulations of 20 to 300 images of 2 and 10
# classes, 73 to 99.7 % of them answered rightly, the log loss on others was, with a tenth, within 0.04 of the best
# weight's everywhere, and without it up to 0.47 more.
IMAGINED = 0.1

Logits = NDArray[np.float32]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Fit:
    """How well probabilities fit the images that the temperature was fitted on.

    Attributes:
        log_loss: Mean of -ln(probability of the label), in nats.
        expected_calibration_error: In 15 bins of equal width.
    """

    log_loss: float
    expected_calibration_error: float


@dataclass(frozen=True)
class Calibrated:
    """What became of a calibration.

    Attributes:
        temperature: By what logits are to be divided; 1 where none was fitted.
        images: Validation images that it was, or would have been, fitted on.
        before, after: How well temperature 1 and the fitted one do there; None where none was fitted.
        reason: Why none was fitted.
    """

    temperature: float
    images: int
    before: Fit | None = None
    after: Fit | None = None
    reason: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return it for training.json, without what was not measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def sentence(self) -> str:
        """Return what a person reads of it."""
        if self.before is None or self.after is None:
            return f"not calibrated: {self.reason}"
        losses = f"log loss {self.before.log_loss:.4f} → {self.after.log_loss:.4f}"
        errors = [percent(fit.expected_calibration_error) for fit in (self.before, self.after)]
        return (
            f"calibrated on {self.images:,} validation images: temperature {self.temperature:.3f}; there {losses}, "
            f"expected calibration error {' → '.join(errors)}"
        )


def calibrate(network: keras.Model, validation: Samples) -> Calibrated:
    """Fit the temperature of a network on validation images; on one device, without asking other hosts.

    Args:
        network: uint8 (N, H, W, C) in, float32 logits (N, classes) out.
        validation: Of more than 10,000 images so many are looked at, evenly spread: folders lie class by class.
    """
    count = min(len(validation.labels), MOST_IMAGES)
    positions = np.linspace(0, len(validation.labels) - 1, count).round().astype(np.int64)
    labels = np.asarray(validation.labels[positions])
    if count < LEAST_IMAGES:
        return Calibrated(1.0, count, reason=f"{count} validation images are too few, {LEAST_IMAGES} are needed")
    if len(np.unique(labels)) < 2:
        return Calibrated(1.0, count, reason="all validation images are of one class")
    logits = _logits(network, validation.images, positions)
    temperature = fit_temperature(logits, labels)
    return Calibrated(temperature, count, fit_of(logits, labels, 1.0), fit_of(logits, labels, temperature))


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature T, of 0.05 to 20, that minimises the mean log loss of softmax(logits / T).

    The mean is over the images and an imagined one of weight 0.1, whose loss is the mean over all images and classes:
    log loss against labels smoothed by 0.1 / (N + 0.1). It is convex in 1 / T, so halving finds the one minimum.

    Args:
        logits: (N, classes); a number added to a row changes nothing.
        labels: (N,).
    """
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    smoothing = IMAGINED / (len(labels) + IMAGINED)
    of_label = wide[np.arange(len(labels)), labels]
    wanted = float(np.mean((1 - smoothing) * of_label + smoothing * wide.mean(axis=1)))

    def slope(inverse: float) -> float:
        """Return the derivative of the mean log loss by 1 / T: the logit expected less the logit wanted."""
        powers = np.exp(inverse * wide)
        expected = (powers * wide).sum(axis=1) / powers.sum(axis=1)
        return float(np.mean(expected)) - wanted

    if slope(1.0) == 0:  # as where each image's logits are equal
        return 1.0
    low, high = -np.log(HIGHEST), -np.log(LOWEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(float(np.exp(middle))) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def fit_of(logits: Logits, labels: Labels, temperature: float) -> Fit:
    """Return how well softmax(logits / temperature), logits (N, classes), fits labels (N,)."""
    wide = logits.astype(np.float64) / temperature
    wide -= wide.max(axis=1, keepdims=True)
    logarithms = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    loss = -float(np.mean(logarithms[np.arange(len(labels)), labels]))
    return Fit(loss, calibration(np.exp(logarithms).astype(np.float32), labels, BINS).expected_error)


def _logits(network: keras.Model, images: NDArray[np.uint8], positions: NDArray[np.int64]) -> Logits:
    """Run a network over some images, in batches of one size, in full float32: the same bits after a resume."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
    signature = [tf.TensorSpec((None, *images.shape[1:]), tf.uint8)]
    run = tf.function(lambda batch: network(batch, training=False), input_signature=signature)
    starts = range(0, len(positions), IMAGES_AT_ONCE)
    return np.concatenate([run(images[positions[start : start + IMAGES_AT_ONCE]]).numpy() for start in starts])
