"""The input path alone: an epoch's augmented batches, gathered and dropped, resident or streamed from a file."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.stage.quiet_tensorflow import tf

# isort: split
import numpy as np

from benchmarks.sides.arrays import random_samples
from benchmarks.sides.serve import serve
from tasks.params.recipe import Recipe
from tasks.training.augment import augmented
from tasks.training.distribute import build_strategy
from tasks.training.draws import Draws
from tasks.training.feed import Samples, build_feed, draw_epoch


def make(case: dict[str, Any]) -> Callable[[], None]:
    """Return a round over all samples; a `budget` below 1 is the share of the images that fits in memory."""
    recipe = Recipe.model_validate(case["recipe"])
    images, labels = random_samples(recipe.batch_size * case["steps"])
    folder = tempfile.TemporaryDirectory()  # goes with this program
    memory = int(images.nbytes * case["budget"])
    if case["budget"] < 1:
        path = Path(folder.name, "images.npy")
        np.save(path, images)
        images = np.load(path, mmap_mode="r")
    strategy = build_strategy("auto" if tf.config.list_physical_devices("GPU") else "cpu:1")
    feed = build_feed(strategy, Samples(images, labels), memory)

    @tf.function(autograph=False)
    def gather_all(values: Any, steps: tf.Tensor) -> tf.Tensor:
        (pixels, _), (order, _, draws) = values

        def one(step: tf.Tensor, seen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = augmented(pixels, order[step], Draws(*draws), recipe.augment, (0, 0, 0))
            return step + 1, seen + tf.cast(batch[-1, -1, -1, -1], tf.int32)

        return tf.while_loop(lambda step, _: step < steps, one, (tf.constant(0), tf.constant(0)))[1]

    def run_round(_: object = folder) -> None:
        plan = draw_epoch(recipe, len(labels), images.shape[1:], 0, 0)
        for window in feed.windows(plan, 0, plan.steps):
            values = tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], window.values)
            gather_all(values, tf.constant(window.stop - window.start))

    return run_round


if __name__ == "__main__":
    serve(make)
