"""What a finished run leaves besides its model: the history, the facts, and how fast it was."""

import math
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from dvclive import Live

from tasks.data.arrays import fit_entry
from tasks.stage.files import sha256_of, write_json
from tasks.stage.runtime import write_runtime
from tasks.stage.shown import percent
from tasks.training.run import Prepared
from tasks.training.temperature import Calibrated
from tasks.training.trainer import Result


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


def write_facts(
    folder: Path,
    model: keras.Model,
    result: Result,
    calibrated: Calibrated,
    run: Prepared,
) -> None:
    """Write history.json and training.json beside model.keras.

    Args:
        folder: The stage's output; it holds model.keras.
        model: What model.keras holds.
        result: From Trainer.fit, or of a probe.
        calibrated: From tasks.training.temperature.calibrate; the model has its temperature.
        run: What was trained.
    """
    best = result.history[result.best_epoch]
    write_json(folder / "history.json", {"columns": {name: [row[name] for row in result.history] for name in best}})
    names = ("loss", "top1", "binary_accuracy", "balanced_accuracy")  # the last where it is watched
    validation = {name: best[f"validation_{name}"] for name in names if f"validation_{name}" in best}
    training: dict[str, Any] = {
        "recipe": run.params.recipe,
        "recipe_parameters": run.recipe.model_dump(mode="json"),
        "seed": run.params.seed,
        "precision": run.precision,
        "pretrained": run.makings.facts["weights"],
        "epochs_run": len(result.history),
        "best_epoch": result.best_epoch + 1,
        "steps": result.steps,
        "parameters": model.count_params(),
        "trainable_parameters": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "train": {"loss": best["train_loss"], "top1": best["train_top1"]},
        "validation": validation,
        "calibration": calibrated.facts(),
        "data_sha256": {split: run.record.content_sha256[split] for split in ("train", "validation")},
        "model_sha256": sha256_of(folder / "model.keras"),
        **fit_entry(run.record.fit),
    }
    if "start" in run.makings.facts:
        training["start"] = run.makings.facts["start"]
    write_json(folder / "training.json", training)
    count = len(result.history)
    made = f"penalty {best['penalty']:g} is the best of {count}" if "penalty" in best else f"trained {count} epochs"
    print(f"{made}; validation top-1 {percent(validation['top1'])}")
    print(calibrated.sentence(), flush=True)


def write_speed(result: Result, strategy: tf.distribute.Strategy, hosts: int, machine: dict[str, str]) -> None:
    """Write runtime/train.json: what a clock or the machine decides, and no output may hold."""
    facts = {
        "seconds": round(result.seconds, 3),
        "epoch_seconds": [round(seconds, 3) for seconds in result.epoch_seconds],
        "images_per_second": round(result.images / max(result.seconds, 1e-9), 1),
        "hosts": hosts,
        "devices": list(strategy.extended.worker_devices),
        "replicas": strategy.num_replicas_in_sync,
        "strategy": type(strategy).__name__,
        "machine": machine,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    write_runtime("train", facts)
