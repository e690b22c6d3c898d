"""The calibration error against values worked out by hand."""

import numpy as np
import pytest

from tasks.evaluation.calibration import calibration


def test_calibration_by_hand() -> None:
    # Bin (0.5, 0.75]: confidences 0.6 and 0.7, one right. Bin (0.75, 1]: 0.9 and 1.0, both right.
    probabilities = np.array([[0.6, 0.4], [0.3, 0.7], [0.9, 0.1], [0.0, 1.0]], np.float32)
    found = calibration(probabilities, np.array([0, 0, 0, 1], np.int32), bins=4)
    assert found.counts.tolist() == [0, 0, 2, 2]
    assert found.confidence == pytest.approx([0, 0, 0.65, 0.95])
    assert found.accuracy == pytest.approx([0, 0, 0.5, 1.0])
    assert found.expected_error == pytest.approx((2 * 0.15 + 2 * 0.05) / 4)


def test_calibration_bins_are_open_below_and_closed_above() -> None:
    probabilities = np.array([[0.5, 0.5]], np.float32)
    assert calibration(probabilities, np.array([0], np.int32), bins=2).counts.tolist() == [1, 0]


def test_calibration_counts_every_image() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), 400).astype(np.float32)
    labels = generator.integers(0, 5, 400).astype(np.int32)
    assert calibration(probabilities, labels, bins=15).counts.sum() == 400
