"""`finetune`, `probe`, and their network in PyTorch: the same photographs and machine, in turn, several seeds.

It reads data/split, of whatever photographs a person has split, and data/weights; `dvc repro weights` makes both. Two
more sets are made of CIFAR-10's images where CIFAR10_FOLDERS_ARCHIVE names them.
"""

import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy_race import percent
from benchmarks.photograph_sets import RECIPE, PhotographSet, cifar10_sets, own_set
from benchmarks.turns import required_torch_python
from benchmarks.workspace import ROOT, fill, run, stage, steps_recipe
from tasks.evaluation.metrics import confusion_matrix, macro_f1
from tasks.models.pretrained import FILE_NAME
from tasks.stage.files import read_json

SEEDS = (0, 1, 2)
PROBE = "probe"
TUNED = {  # in PyTorch, and whether the statistics of batch norm stay as they came
    "fine-tuned in PyTorch": False,
    "the same, batch norm's statistics as they came": True,
}


@dataclass(frozen=True)
class Finish:
    """What a training took, in seconds of its steps, and how its network answers the test images.

    `calibration_error` is None where only the best class was told.
    """

    seconds: float
    top1: float
    macro_f1: float
    calibration_error: float | None = None


def measure() -> str:
    """Train all sides with every seed, in turn, on each set; return the section for results.md.

    Raises:
        InputError: data/split or data/weights is not there; or torch is not.
    """
    python = required_torch_python()
    with cifar10_sets() as others:
        tables = [table(each, compete(each, python)) for each in (own_set(), *others)]
    return "\n\n".join(["## Photographs, against PyTorch", INTRODUCTION, *tables])


INTRODUCTION = f"""The same pretrained network, epochs and batches on both sides, in turn, {len(SEEDS)} seeds; mean
(smallest to largest). Median time of the training steps, or of features and solver. In PyTorch all layers are trained
from the start, and the best of its rows is what ours are compared with."""


def compete(photographs: PhotographSet, python: str) -> dict[str, list[Finish]]:
    """Return what each side makes of a set with every seed."""
    data = photographs.data
    tuned: dict[str, Callable[[int], Finish]] = {
        name: partial(tune_torch, python, data, frozen_norm=frozen) for name, frozen in TUNED.items()
    }
    sides: dict[str, Callable[[int], Finish]] = {
        f"`{RECIPE}`, ours": lambda seed: train_ours(RECIPE, data, seed),
        **tuned,
        f"`{PROBE}`, ours": lambda seed: train_ours(PROBE, data, seed),
        "frozen in PyTorch, logistic regression": lambda _: probe_torch(python, data),
    }
    finishes: dict[str, list[Finish]] = {name: [] for name in sides}
    for seed in SEEDS:
        for name, train in sides.items():
            finishes[name].append(train(seed))
            print(f"{photographs.title}: {name}, seed {seed}: {finishes[name][-1]}", flush=True)
    return finishes


def train_ours(recipe: str, data: Path, seed: int) -> Finish:
    """Run the stages train and evaluate in a folder of their own, where no feature is known from before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, recipe, seed, {}, data)
        for each in ("train", "evaluate"):
            run(stage(each), folder)
        metrics = read_json(folder / "evaluation" / "metrics.json")
        seconds = read_json(folder / "runtime" / "train.json")["seconds"]
        return Finish(seconds, metrics["top1"], metrics["macro_f1"], metrics["expected_calibration_error"])


def tune_torch(python: str, data: Path, seed: int, *, frozen_norm: bool) -> Finish:
    """Run benchmarks.sides.finetune for as many epochs, in batches of as many images."""
    recipe = steps_recipe(RECIPE)
    settings = {"epochs": int(recipe.epochs), "batch": recipe.batch_size, "frozen_norm": frozen_norm}
    arguments = [str(data / "split"), str(data / "weights" / FILE_NAME), str(seed), json.dumps(settings)]
    return _finish(run([python, "-m", "benchmarks.sides.finetune", *arguments], ROOT), data)


def probe_torch(python: str, data: Path) -> Finish:
    """Run benchmarks.sides.frozen."""
    arguments = [str(data / "split"), str(data / "weights" / FILE_NAME)]
    return _finish(run([python, "-m", "benchmarks.sides.frozen", *arguments], ROOT), data)


def _finish(output: str, data: Path) -> Finish:
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    labels: NDArray[np.int32] = np.load(data / "split" / "test_labels.npy")
    predicted = np.asarray(answer["predicted"], np.int32)
    confusion = confusion_matrix(predicted, labels, int(labels.max()) + 1)
    return Finish(answer["seconds"], float(np.mean(predicted == labels)), macro_f1(confusion))


def table(photographs: PhotographSet, sides: dict[str, list[Finish]]) -> str:
    """Return what a set's sides made of it: means, and the spread over seeds."""
    record = read_json(photographs.data / "split" / "split.json")
    counts = {name: record["counts"][name]["total"] for name in ("train", "test")}
    rows = [
        f"| {name} | {percent([each.top1 for each in side])} | {percent([each.macro_f1 for each in side])} | "
        f"{_calibration(side)} | {statistics.median(each.seconds for each in side):,.0f} s |"
        for name, side in sides.items()
    ]
    tuned, *in_torch, probed, torch_probed = sides.values()
    best = max(in_torch, key=lambda side: statistics.mean(each.top1 for each in side))
    size, digest = record["image_shape"][0], record["content_sha256"]["test"][:16]
    return "\n".join(
        [
            f"### {photographs.title[0].upper()}{photographs.title[1:]}",
            "",
            f"{counts['train']:,} photographs of {len(record['classes'])} classes at {size} pixels to train on, "
            f"{counts['test']:,} to test, sha256 of these `{digest}`. Time, ours over theirs: `{RECIPE}` "
            f"{_times(tuned, best)}, `{PROBE}` {_times(probed, torch_probed)}.",
            "",
            "| | top-1 | macro F1 | calibration error | time |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _calibration(side: list[Finish]) -> str:
    errors = [each.calibration_error for each in side if each.calibration_error is not None]
    return percent(errors) if errors else "–"


def _times(ours: list[Finish], theirs: list[Finish]) -> str:
    """Return the ratio of the seconds: median (smallest to largest)."""
    ratios = [mine.seconds / other.seconds for mine, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
