"""The recipe `best`, to its end and on a shorter schedule: that of airbench95 in PyTorch, epoch for epoch beside it.

`best` is airbench96, published with 96.0 %, beside 95.0 % of airbench95 (arXiv 2404.00498). It crops and cuts out more,
for more epochs: on the short schedule it stands beside airbench95 as it is, and with airbench95's augmentation too; to
its end it must be above it. All four take two and a half hours on two cores: this is run by its name, and not with the
rest; stopped and started again, our side goes on where it was, and what was trained with the same parameters on the
same images is not trained again.
"""

import json
from typing import Any

from benchmarks.accuracy_race import percent
from benchmarks.recipe_accuracy import ANSWERS, FOLDER, finish, folder_of
from benchmarks.turns import required_torch_python
from benchmarks.workspace import ROOT, SPLIT, run
from tasks.stage.files import read_json, write_json

RECIPE, EPOCHS = "best", 15
REFERENCE = "airbench95"
# A row each of our side, and what differs from params.yaml there.
ROWS: dict[str, dict[str, Any]] = {
    f"`{RECIPE}`, {EPOCHS} epochs": {"epochs": EPOCHS},
    "the same, crop 2 and no cutout": {"epochs": EPOCHS, "augment": {"crop": 2, "flip": "alternating"}},
}


def measure() -> str:
    """Train all four, one after the other; return the section for results.md.

    Raises:
        InputError: data/split is not there; or torch is not.
    """
    python = required_torch_python()
    rows = {name: train_row(changes) for name, changes in ROWS.items()}
    rows[f"{REFERENCE}, PyTorch"] = train_reference(python)
    return section(rows, finish(RECIPE, {})["test"])


def train_row(changes: dict[str, Any]) -> dict[str, Any]:
    """Train our side; return its `top1` and `top1_augmented` on the test images, and `validation_top1` by epoch."""
    test = finish(RECIPE, changes)["test"]
    history = read_json(folder_of(RECIPE, changes) / "model" / "history.json")
    return {**test, "validation_top1": history["columns"]["validation_top1"]}


def train_reference(python: str) -> dict[str, Any]:
    """Run benchmarks.sides.airbench, unless it was run on these images before; return its answer."""
    known, split = FOLDER / REFERENCE / ANSWERS, read_json(SPLIT / "split.json")["content_sha256"]
    if not known.exists() or read_json(known)["split"] != split:
        command = [python, "-m", "benchmarks.sides.airbench", REFERENCE, str(SPLIT.resolve()), "0", "--curve"]
        answer = json.loads(run(command, ROOT).splitlines()[-1])
        known.parent.mkdir(parents=True, exist_ok=True)
        write_json(known, {"split": split, "answers": answer})
    answers: dict[str, Any] = read_json(known)["answers"]
    print(f"{REFERENCE}: {answers}", flush=True)
    return answers


def section(rows: dict[str, dict[str, Any]], whole: dict[str, float]) -> str:
    """Return the table: the curves, then what each answers on the test images; and what `best` answers at its end."""
    epochs = range(1, EPOCHS + 1)
    lines = [
        f"| {name} | {' | '.join(f'{100 * top1:.1f}' for top1 in found['validation_top1'])} | "
        f"{100 * found['top1']:.2f} | {100 * found['top1_augmented']:.2f} |"
        for name, found in rows.items()
    ]
    return "\n".join(
        [
            f"## `{RECIPE}` on the schedule of {REFERENCE}",
            "",
            "Top-1 in per cent, seed 0: on the validation images after every epoch, then on the test images, one view",
            f"and in six. Crop 2 without cutout is how {REFERENCE} augments; crop 4 with cutout is for the longer",
            f"schedule of `{RECIPE}`, which to its end has {percent([whole['top1']])}, six views "
            f"{percent([whole['top1_augmented']])}.",
            "",
            f"| | {' | '.join(map(str, epochs))} | test | six views |",
            "|---" * (EPOCHS + 3) + "|",
            *lines,
        ]
    )
