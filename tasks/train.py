"""Train the recipe's model on every chosen device: data/split → model.

`python -m tasks.train`, with the sections `train` and `recipes` of params.yaml.
"""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from dvclive import Live

from tasks.quiet_tensorflow import keras, tf
from tasks.data.arrays import Arrays, SplitRecord, load_arrays, load_split_record
from tasks.errors import InputError, run_command
from tasks.files import replaced_folder, sha256_of, write_json
from tasks.models.build import build_model, whiten
from tasks.models.files import save_model
from tasks.models.whitening import PixelStatistics, pixel_statistics
from tasks.params import Recipe, TrainParams, load_params
from tasks.progress import Progress
from tasks.reporting.architecture import draw_architecture, write_summary
from tasks.runtime import write_runtime
from tasks.training.checkpoint import CheckpointFolder, fingerprint
from tasks.training.distribute import build_strategy
from tasks.training.feed import Samples
from tasks.training.precision import POLICIES, resolve_precision
from tasks.training.trainer import Result, Trainer

SPLIT_FOLDER = Path("data/split")
MODEL_FOLDER = Path("model")
CHECKPOINT_FOLDER = Path(".cache/checkpoints")
CODE_FOLDERS = ("models", "training")


def train(
    params: TrainParams, recipe: Recipe, split: Path, output: Path, checkpoints: Path = CHECKPOINT_FOLDER
) -> None:
    """Train a model on `split` and write it, its history and its pictures to the folder `output`.

    A run that was killed goes on from its last checkpoint; the finished run removes its checkpoints.

    Args:
        params: Recipe's name, seed and devices.
        recipe: The recipe that `params.recipe` names.
        split: Folder with split.json and the training and validation arrays, uint8 (N, H, W, 3) and int32 (N,).
        output: Folder that gets model.keras and what belongs to it; see the README's contracts.
        checkpoints: Folder of all runs' checkpoints.

    Raises:
        InputError: A device is not there, the replicas do not divide the batch size, the data do not fit, or the
            loss became infinite.
    """
    record = load_split_record(split)
    training, validation = load_arrays(split, "train"), load_arrays(split, "validation")
    strategy = build_strategy(params.devices)
    _check_batch_size(params, recipe, strategy)
    precision = resolve_precision(recipe.precision)
    keras.utils.set_random_seed(params.seed)
    keras.config.set_dtype_policy(POLICIES[precision])
    statistics = pixel_statistics(training.images)
    with strategy.scope():
        model = _initial_model(recipe, record, training, statistics)
    _say_what_starts(params, recipe, precision, strategy, model, len(training.labels))
    folder = CheckpointFolder(checkpoints, _fingerprint(params, recipe, precision, record))
    with replaced_folder(output) as temporary:
        with Live(str(temporary / "dvclive"), dvcyaml=None, save_dvc_exp=False) as live:
            trainer = _trainer(model, recipe, params.seed, strategy, (training, validation), statistics, live)
            result = _fit(trainer, folder, params.checkpoint_every_epochs)
        final = _in_float32(trainer, record, statistics)
        save_model(final, temporary / "model.keras")
        write_summary(final, temporary)
        draw_architecture(final, temporary / "architecture.png")
        _write_facts(temporary, final, result, (params, recipe, precision), record)
    _write_runtime(result, strategy)
    folder.remove()


class HistoryWriter(keras.callbacks.Callback):
    """Passes every epoch's metrics on to DVCLive, a resumed run's earlier epochs included."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live
        self._live.step = 1  # epochs count from 1 wherever a person sees them

    def write(self, logs: dict[str, float]) -> None:
        """Log one epoch."""
        for name, value in sorted(logs.items()):
            if name != "epoch":
                self._live.log_metric(name, value)
        self._live.next_step()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Log the epoch that has just ended."""
        self.write(logs or {})


def _check_batch_size(params: TrainParams, recipe: Recipe, strategy: tf.distribute.Strategy) -> None:
    replicas = strategy.num_replicas_in_sync
    if recipe.batch_size % replicas:
        raise InputError(
            f"recipes.{params.recipe}.batch_size = {recipe.batch_size} is global and is not divisible by "
            f"the {replicas} replicas of train.devices = {params.devices!r}"
        )


def _initial_model(recipe: Recipe, record: SplitRecord, training: Arrays, statistics: PixelStatistics) -> keras.Model:
    model = build_model(recipe.model, record.image_shape, len(record.classes), statistics)
    whiten(model, recipe.model, training.images, statistics)
    return model


def _trainer(
    model: keras.Model,
    recipe: Recipe,
    seed: int,
    strategy: tf.distribute.Strategy,
    data: tuple[Arrays, Arrays],
    statistics: PixelStatistics,
    live: Live,
) -> Trainer:
    samples = [Samples(arrays.images, arrays.labels) for arrays in data]
    mean_pixel = tuple(round(value) for value in statistics.mean)
    return Trainer(model, recipe, seed, strategy, samples[0], samples[1], mean_pixel, [HistoryWriter(live)])


def _fit(trainer: Trainer, folder: CheckpointFolder, every_epochs: int) -> Result:
    """Train with a progress line, and say where a resumed run goes on."""
    checkpoint, problems = folder.load()
    for problem in problems:
        print(f"train: {problem}", file=sys.stderr)
    if checkpoint:
        print(f"resuming after epoch {checkpoint.epoch}, step {checkpoint.step}", flush=True)
        for logs in checkpoint.history:
            trainer.callbacks[0].write(logs)
    batch, per_epoch = trainer.recipe.batch_size, trainer.steps_per_epoch
    progress = Progress(trainer.total_steps * batch, "images", done=(checkpoint.step if checkpoint else 0) * batch)

    def report(step: int, steps: int, metrics: dict[str, float]) -> None:
        epoch, within = divmod(step - 1, per_epoch)
        text = f"epoch {epoch + 1}/{-(-steps // per_epoch)}, step {within + 1}/{per_epoch}"
        text += f", loss {metrics['train_loss']:.4f}, top-1 {100 * metrics['train_top1']:.2f} %"
        progress.update(step * batch, text)

    trainer.report = report
    result = trainer.fit(folder, every_epochs)
    progress.close()
    return result


def _in_float32(trainer: Trainer, record: SplitRecord, statistics: PixelStatistics) -> keras.Model:
    """Return the trained network as it is published: in float32, whatever it was trained in, on one device."""
    keras.config.set_dtype_policy("float32")
    final = build_model(trainer.recipe.model, record.image_shape, len(record.classes), statistics)
    final.set_weights([np.asarray(weight, np.float32) for weight in trainer.model.get_weights()])
    return final


def _write_facts(
    folder: Path,
    model: keras.Model,
    result: Result,
    decided: tuple[TrainParams, Recipe, str],
    record: SplitRecord,
) -> None:
    """Write history.json and training.json; `decided` are the parameters, the recipe and the precision."""
    params, recipe, precision = decided
    best = result.history[result.best_epoch]
    write_json(folder / "history.json", {"columns": {name: [row[name] for row in result.history] for name in best}})
    validation = {name: best[f"validation_{name}"] for name in ("loss", "top1", "binary_accuracy")}
    training = {
        "recipe": params.recipe,
        "recipe_parameters": recipe.model_dump(mode="json"),
        "seed": params.seed,
        "precision": precision,
        "epochs_run": len(result.history),
        "best_epoch": result.best_epoch + 1,
        "steps": result.steps,
        "parameters": model.count_params(),
        "trainable_parameters": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "train": {"loss": best["train_loss"], "top1": best["train_top1"]},
        "validation": validation,
        "data_sha256": {split: record.content_sha256[split] for split in ("train", "validation")},
        "model_sha256": sha256_of(folder / "model.keras"),
    }
    write_json(folder / "training.json", training)
    print(f"trained {len(result.history)} epochs; validation top-1 {100 * validation['top1']:.2f} %", flush=True)


def _write_runtime(result: Result, strategy: tf.distribute.Strategy) -> None:
    facts = {
        "seconds": round(result.seconds, 3),
        "images_per_second": round(result.images / max(result.seconds, 1e-9), 1),
        "devices": list(strategy.extended.worker_devices),
        "replicas": strategy.num_replicas_in_sync,
        "strategy": type(strategy).__name__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    write_runtime("train", facts)


def _fingerprint(params: TrainParams, recipe: Recipe, precision: str, record: SplitRecord) -> str:
    """Return what decides the run: not the devices, which a resumed run may change."""
    here = Path(__file__).parent
    sources = [Path(__file__)] + [file for folder in CODE_FOLDERS for file in (here / folder).glob("*.py")]
    facts: dict[str, Any] = {
        "data": record.content_sha256,
        "recipe": recipe.model_dump(mode="json"),
        "seed": params.seed,
        "precision": precision,
        "versions": [tf.__version__, keras.__version__, np.__version__],
    }
    return fingerprint(facts, sources)


def _say_what_starts(
    params: TrainParams,
    recipe: Recipe,
    precision: str,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    images: int,
) -> None:
    devices = [device.rpartition("device:")[2] for device in strategy.extended.worker_devices]
    print(
        f"recipe {params.recipe}: {model.count_params():,} parameters, {images:,} images, "
        f"up to {recipe.epochs:g} epochs, global batch size {recipe.batch_size}, {precision}, "
        f"{len(devices)} replica{'s' if len(devices) > 1 else ''} ({', '.join(devices)})",
        flush=True,
    )


def main() -> None:
    """Run the stage on the files that dvc.yaml names."""

    def command() -> None:
        params = load_params()
        train(params.train, params.recipe, SPLIT_FOLDER, MODEL_FOLDER)

    run_command("train", command)


if __name__ == "__main__":
    main()
