"""Augmented images a second of the input path alone, against what the fastest training step asks for."""

import dataclasses
import sys

from benchmarks.training_speed import CASES
from benchmarks.turns import rates, ratio, spread, take_turns

ROUNDS = 11
STEPS = 32
BUDGETS = {"resident": 1.0, "streamed, memory for a third": 1 / 3}


def measure() -> str:
    """Measure the input path of the fastest case beside its steps; return the section for results.md."""
    case = CASES[-1]
    alone = dataclasses.replace(case, steps=STEPS)
    steps = {"steps": ("ours", case.facts(), sys.executable)}
    paths = {
        name: ("input_path", {**alone.facts(), "budget": budget}, sys.executable) for name, budget in BUDGETS.items()
    }
    measured = take_turns({**steps, **paths}, ROUNDS)
    demand = rates(measured["steps"], case.images)
    rows = []
    for name in BUDGETS:
        supply = rates(measured[name], alone.images)
        rows.append(f"| {name} | {spread(supply)} | {spread(demand)} | {ratio(supply, demand)} |")
        print(rows[-1], flush=True)
    table = "\n".join(rows)
    return f"""## The input path alone

Shuffled, cropped and flipped batches of {case.batch_size:,} images, {STEPS} a round, gathered and dropped, the draws of
the epoch included; beside them the steps of `{case.name}`, the fastest here; up to {ROUNDS} rounds. Median (quartiles).

| images | gathered a second | asked for a second | ratio |
|---|---|---|---|
{table}"""
