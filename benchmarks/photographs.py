"""`finetune`, `probe`, and their network in PyTorch: the same photographs and machine, in turn, several seeds.

It reads data/split, of whatever photographs a person has split, and data/weights; `dvc repro weights` makes both.
"""

import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy_race import percent
from benchmarks.turns import required_torch_python
from benchmarks.workspace import ROOT, SPLIT, fill, run, stage, steps_recipe
from tasks.evaluation.metrics import confusion_matrix, macro_f1
from tasks.models.pretrained import FILE_NAME
from tasks.stage.errors import InputError
from tasks.stage.files import read_json

SEEDS = (0, 1, 2)
RECIPE, PROBE = "finetune", "probe"
WEIGHTS = Path("data/weights")


@dataclass(frozen=True)
class Finish:
    """What a training took, in seconds of its steps, and how its network answers the test images."""

    seconds: float
    top1: float
    macro_f1: float


def measure() -> str:
    """Train both sides with every seed, in turn; return the section for results.md.

    Raises:
        InputError: data/split or data/weights is not there; or torch is not.
    """
    python = required_torch_python()
    if not (WEIGHTS / FILE_NAME).is_file():
        raise InputError(f"{WEIGHTS / FILE_NAME} does not exist; make it with train.recipe={RECIPE}: dvc repro weights")
    sides: dict[str, Callable[[int], Finish]] = {
        f"`{RECIPE}`, ours": lambda seed: train_ours(RECIPE, seed),
        "fine-tuned in PyTorch": lambda seed: train_torch(python, seed),
        f"`{PROBE}`, ours": lambda seed: train_ours(PROBE, seed),
        "frozen in PyTorch, logistic regression": lambda _: probe_torch(python),
    }
    finishes: dict[str, list[Finish]] = {name: [] for name in sides}
    for seed in SEEDS:
        for name, train in sides.items():
            finishes[name].append(train(seed))
            print(f"{name}, seed {seed}: {finishes[name][-1]}", flush=True)
    return section(finishes)


def train_ours(recipe: str, seed: int) -> Finish:
    """Run the stages train and evaluate in a folder of their own, where no feature is known from before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, recipe, seed, {})
        (folder / WEIGHTS).symlink_to(WEIGHTS.resolve())
        for each in ("train", "evaluate"):
            run(stage(each), folder)
        metrics = read_json(folder / "evaluation" / "metrics.json")
        seconds = read_json(folder / "runtime" / "train.json")["seconds"]
        return Finish(seconds, metrics["top1"], metrics["macro_f1"])


def train_torch(python: str, seed: int) -> Finish:
    """Run benchmarks.sides.finetune for as many epochs, in batches of as many images."""
    recipe = steps_recipe(RECIPE)
    arguments = [str(SPLIT.resolve()), str((WEIGHTS / FILE_NAME).resolve()), str(seed)]
    arguments += [f"{recipe.epochs:.0f}", str(recipe.batch_size)]
    return _finish(run([python, "-m", "benchmarks.sides.finetune", *arguments], ROOT))


def probe_torch(python: str) -> Finish:
    """Run benchmarks.sides.frozen."""
    arguments = [str(SPLIT.resolve()), str((WEIGHTS / FILE_NAME).resolve())]
    return _finish(run([python, "-m", "benchmarks.sides.frozen", *arguments], ROOT))


def _finish(output: str) -> Finish:
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    labels: NDArray[np.int32] = np.load(SPLIT / "test_labels.npy")
    predicted = np.asarray(answer["predicted"], np.int32)
    confusion = confusion_matrix(predicted, labels, int(labels.max()) + 1)
    return Finish(answer["seconds"], float(np.mean(predicted == labels)), macro_f1(confusion))


def section(sides: dict[str, list[Finish]]) -> str:
    """Return the table: means, and the spread over seeds."""
    record = read_json(SPLIT / "split.json")
    counts = {name: record["counts"][name]["total"] for name in ("train", "test")}
    rows = [
        f"| {name} | {percent([each.top1 for each in side])} | {percent([each.macro_f1 for each in side])} | "
        f"{statistics.median(each.seconds for each in side):,.0f} s |"
        for name, side in sides.items()
    ]
    tuned, torch_tuned, probed, torch_probed = sides.values()
    return "\n".join(
        [
            "## Photographs, against PyTorch",
            "",
            f"{counts['train']:,} photographs of {len(record['classes'])} classes at {record['image_shape'][0]} pixels "
            f"to train on, {counts['test']:,} to test, sha256 of these `{record['content_sha256']['test'][:16]}`. The "
            f"same pretrained network, epochs and batches on both sides, in turn, {len(tuned)} seeds; mean (smallest "
            "to largest). Median time of the training steps, or of features and solver; ours over theirs: "
            f"`{RECIPE}` {_times(tuned, torch_tuned)}, `{PROBE}` {_times(probed, torch_probed)}.",
            "",
            "| | top-1 | macro F1 | time |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _times(ours: list[Finish], theirs: list[Finish]) -> str:
    """Return the ratio of the seconds: median (smallest to largest)."""
    ratios = [mine.seconds / other.seconds for mine, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
