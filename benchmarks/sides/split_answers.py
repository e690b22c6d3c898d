"""`python -m benchmarks.sides.split_answers FOLDER`: what FOLDER/model answers on every split, as a line of JSON."""

import json
import sys
from pathlib import Path

import numpy as np

from tasks.stage.quiet_tensorflow import keras
from benchmarks.workspace import SPLIT
from tasks.data.arrays import load_arrays
from tasks.evaluation.answers import predict_all
from tasks.evaluation.metrics import binary_accuracy, top1
from tasks.model_files.files import load_model

BATCH = 500


def answers_on(network: keras.Model, split: str, views: str) -> dict[str, float]:
    """Return `top1` and `binary_accuracy` on a split, and `top1_augmented` where there are several views."""
    arrays = load_arrays(SPLIT, split)
    labels, answers = np.asarray(arrays.labels), predict_all(network, arrays.images, BATCH, views)
    found = {"top1": top1(answers.single, labels), "binary_accuracy": binary_accuracy(answers.single, labels)}
    return found if views == "none" else {**found, "top1_augmented": float(np.mean(answers.augmented == labels))}


def main() -> None:
    """Answer every split, the test images from six views."""
    network = load_model(Path(sys.argv[1]) / "model" / "model.keras")
    views = {"train": "none", "validation": "none", "test": "mirror_and_shift"}
    print(json.dumps({split: answers_on(network, split, chosen) for split, chosen in views.items()}))


if __name__ == "__main__":
    main()
