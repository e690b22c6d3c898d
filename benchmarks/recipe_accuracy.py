"""What the notebook's architecture reaches: by his own recipe (`seed`), and by ours for it (`vgg16`), as many epochs.

Both train at once with the real stages: accuracy is measured here, not time. It takes more than an hour on two cores
and is run by its name, and not with the rest; stopped and started again, it goes on where it was.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.workspace import ROOT, fill, run, stage

EPOCHS = 15
# bfloat16 where the processor has it: the notebook names no precision.
RECIPES: dict[str, dict[str, Any]] = {"seed": {"epochs": EPOCHS, "precision": "auto"}, "vgg16": {"epochs": EPOCHS}}
SPLITS = ("train", "validation", "test")
FOLDER = ROOT / ".cache" / "benchmarks"

Answers = dict[str, dict[str, float]]  # of a split: `top1` and `binary_accuracy`; of the test images `top1_augmented`


def measure() -> str:
    """Train and answer; return the section for results.md.

    Raises:
        InputError: data/split is not there, or a stage failed.
    """
    with ThreadPoolExecutor() as pool:
        return section(dict(zip(RECIPES, pool.map(finish, RECIPES), strict=True)))


def finish(recipe: str) -> Answers:
    """Train a recipe, or go on with it, in a folder of its own; return what its network answers on each split."""
    folder = FOLDER / recipe
    fill(folder, recipe, 0, RECIPES[recipe])
    run(stage("train"), folder)
    output = run([sys.executable, "-m", "benchmarks.sides.split_answers", str(folder)], ROOT)
    answers: Answers = json.loads(output.splitlines()[-1])
    print(f"{recipe}: {answers}", flush=True)
    return answers


def section(answers: dict[str, Answers]) -> str:
    """Return the table: the author's figures, then each recipe's."""
    rows = [f"| {recipe} | {' | '.join(cells(found))} |" for recipe, found in answers.items()]
    return "\n".join(
        [
            "## The notebook's architecture",
            "",
            f"{EPOCHS} epochs by the notebook's recipe (`seed`, in bfloat16 where the processor has it) and by ours",
            "(`vgg16`), seed 0, a single view of every image; six views in brackets. The author's 98.40 % and 96.10 %",
            "are binary accuracy on his training and test images.",
            "",
            "| recipe | " + " | ".join(f"{split}, top-1 | binary" for split in SPLITS) + " |",
            "|---" * (1 + 2 * len(SPLITS)) + "|",
            "| the author | – | 98.40 % | – | – | – | 96.10 % |",
            *rows,
        ]
    )


def cells(answers: Answers) -> list[str]:
    """Return top-1 and binary accuracy of each split."""
    texts = []
    for split in SPLITS:
        found = answers[split]
        six = f" ({100 * found['top1_augmented']:.2f} %)" if "top1_augmented" in found else ""
        texts += [f"{100 * found['top1']:.2f} %{six}", f"{100 * found['binary_accuracy']:.2f} %"]
    return texts
