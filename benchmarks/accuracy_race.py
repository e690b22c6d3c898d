"""Accuracy and time of `fast` and of airbench94 in PyTorch: the same images, the same machine, in turn, several seeds.

It reads data/split, and takes about as long as six trainings: it is run by its name, and not with the rest.
"""

import json
import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.turns import required_torch_python
from benchmarks.workspace import ROOT, SPLIT, prepared, run, stage
from tasks.stage.files import read_json

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Finish:
    """What a training took and what its network answers on the test images."""

    seconds: float
    top1: float
    top1_augmented: float


def measure() -> str:
    """Train both sides with every seed, in turn; return the section for results.md.

    Raises:
        InputError: data/split is not there; or torch is not.
    """
    python = required_torch_python()
    sides: dict[str, list[Finish]] = {"`fast`, ours": [], "airbench94, PyTorch": []}
    for seed in SEEDS:
        finishes = (train_ours("fast", seed), train_airbench(python, seed))
        for (name, side), finish in zip(sides.items(), finishes, strict=True):
            side.append(finish)
            print(f"{name}, seed {seed}: {finish}", flush=True)
    return section(sides)


def train_ours(recipe: str, seed: int) -> Finish:
    """Run the stages train and evaluate in a folder of their own."""
    with prepared(recipe, seed) as folder:
        for name in ("train", "evaluate"):
            run(stage(name), folder)
        metrics = read_json(folder / "evaluation" / "metrics.json")
        seconds = read_json(folder / "runtime" / "train.json")["seconds"]
        return Finish(seconds, metrics["top1"], metrics["top1_augmented"])


def train_airbench(python: str, seed: int) -> Finish:
    """Run airbench94 by benchmarks.sides.airbench."""
    output = run([python, "-m", "benchmarks.sides.airbench", "airbench94", str(SPLIT.resolve()), str(seed)], ROOT)
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return Finish(**answer)


def section(sides: dict[str, list[Finish]]) -> str:
    """Return the table: means, and the spread over seeds."""
    rows = [
        f"| {name} | {percent([each.top1 for each in side])} | {percent([each.top1_augmented for each in side])} | "
        f"{statistics.median(each.seconds for each in side):,.0f} s |"
        for name, side in sides.items()
    ]
    ours, theirs = sides.values()
    times = [mine.seconds / other.seconds for mine, other in zip(ours, theirs, strict=True)]
    return "\n".join(
        [
            "## Accuracy and time, against airbench94",
            "",
            f"Trained in turn on the same training images, {len(ours)} seeds; top-1 on all test images, mean (smallest "
            "to largest). Median time of the training steps; ours over airbench94's: "
            f"{statistics.median(times):.2f} ({min(times):.2f}–{max(times):.2f}).",
            "",
            "| | top-1, single view | six views | time |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def percent(shares: list[float]) -> str:
    """Return the mean and, of several, the smallest and the largest in brackets."""
    spread = f" ({100 * min(shares):.2f}–{100 * max(shares):.2f})" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.2f} %{spread}"
