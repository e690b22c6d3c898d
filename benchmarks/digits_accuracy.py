"""What the recipe `digits` reaches: seeds of the split and of the training, so on other test images each."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.accuracy_race import percent
from benchmarks.workspace import run, stage, write_params
from tasks.stage.files import read_json

SEEDS = (0, 1, 2)


def measure() -> str:
    """Train with every seed; return the section for results.md."""
    top1 = [train(seed) for seed in SEEDS]
    return f"""## The handwritten digits

`digits` on scikit-learn's 1,797 images, {len(SEEDS)} seeds of split and training, 270 test images each: top-1
{percent(top1)}, mean (smallest–largest)."""


def train(seed: int) -> float:
    """Run the stages from download to evaluate in a folder of their own; return top-1 on the test images."""
    with tempfile.TemporaryDirectory() as name:
        sections: dict[str, dict[str, Any]] = {"download": {"dataset": "digits"}, "split": {"seed": seed}}
        write_params(Path(name), "digits", seed, {}, sections)
        for each in ("download", "split", "train", "evaluate"):
            run(stage(each), Path(name))
        top1: float = read_json(Path(name) / "evaluation" / "metrics.json")["top1"]
    print(f"digits, seed {seed}: {top1}", flush=True)
    return top1
