"""What the notebook's architecture reaches: by its own recipe (`seed`), and by ours for it (`vgg16`).

The real stages train one recipe after the other: accuracy is measured here, not time. It takes hours on two cores and
is run by its name, and not with the rest; stopped and started again, it goes on where it was, and what was trained with
the same parameters on the same images is not trained again.
"""

import json
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.workspace import ROOT, SPLIT, fill, run, stage
from tasks.params.params import PARAMS_FILE
from tasks.stage.files import read_json, write_json

EPOCHS = 15
# A row each: its recipe, and what differs from params.yaml there.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    # bfloat16 where the processor has it: the notebook names no precision.
    f"`seed`, {EPOCHS} epochs": ("seed", {"epochs": EPOCHS, "precision": "auto"}),
    f"`vgg16`, {EPOCHS} epochs": ("vgg16", {"epochs": EPOCHS}),
    "`vgg16`": ("vgg16", {}),
}
SPLITS = ("train", "validation", "test")
FOLDER = ROOT / ".cache" / "benchmarks"
ANSWERS = "answers.json"  # what a row's network answers, beside what it was trained with

Answers = dict[str, dict[str, float]]  # of a split: `top1` and `binary_accuracy`; of the test images `top1_augmented`


def measure() -> str:
    """Train and answer; return the section for results.md.

    Raises:
        InputError: data/split is not there, or a stage failed.
    """
    return section({name: finish(*row) for name, row in ROWS.items()})


def finish(recipe: str, changes: dict[str, Any]) -> Answers:
    """Train a recipe, or go on with it, in a folder of its own; return what its network answers on each split."""
    folder = folder_of(recipe, changes)
    fill(folder, recipe, 0, changes)
    trained_with = {"recipe": _recipe(folder, recipe), "split": read_json(SPLIT / "split.json")["content_sha256"]}
    known = read_json(folder / ANSWERS) if (folder / ANSWERS).exists() else {}
    if known.get("trained_with") != trained_with:
        run(stage("train"), folder)
        output = run([sys.executable, "-m", "benchmarks.sides.split_answers", str(folder)], ROOT)
        known = {"trained_with": trained_with, "answers": json.loads(output.splitlines()[-1])}
        write_json(folder / ANSWERS, known)
    answers: Answers = known["answers"]
    print(f"{folder.name}: {answers}", flush=True)
    return answers


def folder_of(recipe: str, changes: dict[str, Any]) -> Path:
    """Return where a recipe with these changes is trained."""
    return FOLDER / "-".join([recipe, *_words(changes)])


def _words(changes: dict[str, Any]) -> list[str]:
    return [
        f"{name}-{'-'.join(_words(value)) if isinstance(value, dict) else value}" for name, value in changes.items()
    ]


def _recipe(folder: Path, recipe: str) -> Any:
    return YAML(typ="safe").load((folder / PARAMS_FILE).read_text(encoding="utf-8"))["recipes"][recipe]


def section(answers: dict[str, Answers]) -> str:
    """Return the table: the notebook's figures, then each recipe's."""
    rows = [f"| {recipe} | {' | '.join(cells(found))} |" for recipe, found in answers.items()]
    return "\n".join(
        [
            "## The notebook's architecture",
            "",
            "By the notebook's recipe (`seed`, in bfloat16 where the processor has it), by ours (`vgg16`) in as many",
            "epochs, and by ours as it is in params.yaml; seed 0, a single view of every image, six views in brackets.",
            "The notebook's 98.40 % and 96.10 % are binary accuracy on its training and test images.",
            "",
            "| recipe | " + " | ".join(f"{split}, top-1 | binary" for split in SPLITS) + " |",
            "|---" * (1 + 2 * len(SPLITS)) + "|",
            "| the notebook | – | 98.40 % | – | – | – | 96.10 % |",
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
