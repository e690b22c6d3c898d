"""Our side: an epoch of tasks.training.trainer's steps over random images, augmentation and Lookahead included."""

from typing import Any

from tasks.stage.quiet_tensorflow import keras, tf

# isort: split
from benchmarks.sides.arrays import CLASSES, random_samples
from benchmarks.sides.serve import serve
from tasks.models.build import build_model, whiten
from tasks.models.layers import BatchNormalization
from tasks.models.whitening import pixel_statistics
from tasks.params.recipe import Recipe
from tasks.training.distribute import build_strategy
from tasks.training.feed import DEFAULT_MEMORY, Samples
from tasks.training.precision import POLICIES, resolve_precision
from tasks.training.trainer import Trainer


class SynchronizedArithmetic(BatchNormalization):
    """Batch norm that computes on one replica as it does on several, to measure what that costs."""

    def _fused(self, inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        mean, variance = self._synchronized_moments(inputs, tf.distribute.get_replica_context())
        return self._normalize(inputs, mean, variance, gamma, beta), mean, variance


def build_trainer(case: dict[str, Any]) -> Trainer:
    """Return a trainer for the case's recipe over as many random images as its round takes."""
    recipe = Recipe.model_validate(case["recipe"])
    images, labels = random_samples(recipe.batch_size * case["steps"])
    statistics = pixel_statistics(images)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(POLICIES[resolve_precision(recipe.precision)])
    strategy = build_strategy(case.get("devices", "auto" if tf.config.list_physical_devices("GPU") else "cpu:1"))
    with strategy.scope():
        model = build_model(recipe.model, images.shape[1:], CLASSES, statistics)
        if case.get("normalization") == "synchronized":
            for layer in model.layers:
                if isinstance(layer, BatchNormalization):
                    layer.__class__ = SynchronizedArithmetic
        whiten(model, recipe.model, images, statistics)
    memory = int(case.get("memory_share", 0) * images.nbytes) or DEFAULT_MEMORY
    training, validation = Samples(images, labels), Samples(images[:1], labels[:1])
    return Trainer(model, recipe, 0, strategy, training, validation, memory=memory)


def main() -> None:
    def make(case: dict[str, Any]) -> Any:
        trainer = build_trainer(case)
        return lambda: (trainer.train_one_epoch(), None)[1]

    serve(make)


if __name__ == "__main__":
    main()
