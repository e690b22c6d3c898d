"""What split and train would leave for a small data set: real arrays, and a small Keras model with its record."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tasks.data.arrays import SPLITS, Arrays, SplitRecord, save_arrays, save_split_record
from tasks.model_files.files import save_model
from tasks.stage.files import sha256_of, write_json

CLASSES = ("red", "green", "blue")
SHAPE = (12, 10, 3)
EPOCHS = 4


def build_small_model(shape: tuple[int, int, int] = SHAPE, classes: int = len(CLASSES)) -> keras.Model:
    """A convolutional network with a residual branch and random weights."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape, dtype="uint8", name="images")
    scaled = keras.layers.Rescaling(1 / 255, name="scaling")(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="convolution")(scaled)
    shortcut = keras.layers.Conv2D(8, 1, name="shortcut")(scaled)
    x = keras.layers.Add(name="add")([x, shortcut])
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    x = keras.layers.Dense(classes, kernel_initializer=keras.initializers.RandomNormal(stddev=4), name="logits")(x)
    return keras.Model(inputs, keras.layers.Softmax(name="probabilities")(x), name="small")


def write_split(folder: Path, images: int, dataset: str = "cifar10", classes: Sequence[str] = CLASSES) -> SplitRecord:
    """Write data/split with random images, the test split with exactly `images` of them."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(7)
    counts, content = {}, {}
    for split in SPLITS:
        labels = generator.integers(0, len(classes), images).astype(np.int32)
        arrays = Arrays(generator.integers(0, 256, (images, *SHAPE), dtype=np.uint8), labels)
        save_arrays(folder, split, arrays)
        content[split] = hashlib.sha256(arrays.images.tobytes() + labels.tobytes()).hexdigest()
        per_class = np.bincount(labels, minlength=len(classes)).tolist()
        counts[split] = {"total": images, "per_class": dict(zip(classes, per_class, strict=True))}
    record = SplitRecord(
        dataset=dataset,
        classes=tuple(classes),
        image_shape=SHAPE,
        method="stratified",
        seed=0,
        counts=counts,
        index_sha256=dict.fromkeys(SPLITS, "0" * 64),
        content_sha256=content,
        duplicates={"across": {"train+test": 2}, "within": dict.fromkeys(SPLITS, 0)},
    )
    save_split_record(folder, record)
    return record


def write_model(folder: Path, model: keras.Model) -> None:
    """Write model/ with everything that evaluate reads."""
    folder.mkdir(parents=True)
    save_model(model, folder / "model.keras")
    write_json(folder / "history.json", {"columns": small_history()})
    write_json(folder / "training.json", {**small_training(), "model_sha256": sha256_of(folder / "model.keras")})


def small_history(epochs: int = EPOCHS) -> dict[str, list[float]]:
    falling = [1.0 / (epoch + 1) for epoch in range(epochs)]
    return {
        "epoch": list(range(epochs)),
        "learning_rate": falling,
        "train_loss": falling,
        "train_top1": [1 - loss / 2 for loss in falling],
        "validation_loss": [loss + 0.1 for loss in falling],
        "validation_top1": [0.9 - loss / 2 for loss in falling],
        "validation_binary_accuracy": [0.95] * epochs,
    }


def small_training() -> dict[str, Any]:
    return {
        "recipe": "fast",
        "seed": 0,
        "precision": "float32",
        "epochs_run": EPOCHS,
        "best_epoch": 3,
        "steps": 40,
        "parameters": 283,
        "trainable_parameters": 283,
        "train": {"loss": 0.25, "top1": 0.875},
        "validation": {"loss": 0.35, "top1": 0.775, "binary_accuracy": 0.95},
        "data_sha256": {"train": "1" * 64, "validation": "2" * 64},
        "recipe_parameters": {"epochs": 4.0, "model": {"base": "airbench", "widths": [64, 256, 256]}},
        "model_sha256": "3" * 64,
    }
