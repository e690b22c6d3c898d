"""Images a second of training steps: ours, plain Keras `fit`, and a plain PyTorch loop, in turns."""

import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.turns import NO_TORCH, rates, ratio, spread, take_turns, torch_python
from benchmarks.workspace import steps_recipe

ROUNDS = 15


@dataclass(frozen=True)
class Case:
    """One recipe's network at one batch size and precision, and how many steps a round takes."""

    recipe: str
    batch_size: int
    precision: str
    steps: int

    @property
    def name(self) -> str:
        """How the results call it."""
        return f"{self.recipe}, batch {self.batch_size}, {self.precision}"

    @property
    def images(self) -> int:
        """Images of a round."""
        return self.batch_size * self.steps

    def facts(self) -> dict[str, Any]:
        """Return what the sides read: the steps, and the recipe at this size and precision.

        Images are never shrunk and Muon is left to SGD, since neither other side has either: a network is compared.
        """
        recipe = steps_recipe(self.recipe)
        changes: dict[str, Any] = {"batch_size": self.batch_size, "precision": self.precision, "epochs": 1e6}
        changes["augment"] = recipe.augment.model_copy(update={"shrink": None})
        if recipe.optimizer.name == "muon":
            changes["optimizer"] = recipe.optimizer.model_copy(update={"name": "sgd"})
        return {"recipe": recipe.model_copy(update=changes).model_dump(mode="json"), "steps": self.steps}


CASES = (
    Case("seed", 16, "float32", 12),
    Case("seed", 16, "bfloat16", 16),
    Case("seed", 128, "float32", 2),
    Case("seed", 128, "bfloat16", 3),
    Case("fast", 1024, "bfloat16", 2),
)


def measure() -> str:
    """Measure every case; return the section for results.md."""
    rows = []
    for case in CASES:
        rows.append(row(case))
        print(rows[-1], flush=True)
    table = "\n".join(rows)
    return f"""## Training, images a second

Each side is a program of its own; they take turns of about two seconds, up to {ROUNDS} rounds. Ours includes
augmentation and Lookahead where the recipe has them; Keras `fit` (Keras's layers and optimizers, XLA off, timed from
its first step's start to its last one's end) and PyTorch (channels_last, bfloat16 autocast, fused optimizer) have
neither. Median (quartiles); a ratio is the median over the rounds of that round's ratio (quartiles), then that of the
fastest rounds. Other programs on the same cores slow PyTorch most: its threads wait for each other in every operation.

| network | ours | Keras `fit` | PyTorch | ours / Keras | ours / PyTorch |
|---|---|---|---|---|---|
{table}"""


def row(case: Case) -> str:
    """Measure a case; return its row of the table."""
    facts, torch = case.facts(), torch_python()
    sides = {"ours": ("ours", facts, sys.executable), "keras": ("keras_fit", facts, sys.executable)}
    if torch:
        sides["torch"] = ("torch_loop", facts, torch)
    speeds = {name: rates(rounds, case.images) for name, rounds in take_turns(sides, ROUNDS).items()}
    cells = [case.name, *(spread(speeds[name]) if name in speeds else NO_TORCH for name in ("ours", "keras", "torch"))]
    cells += [ratio(speeds["ours"], speeds[name]) if name in speeds else "–" for name in ("keras", "torch")]
    return f"| {' | '.join(cells)} |"
