"""Achieved FLOP/s of training steps as a share of what this machine's matrix products reach at the same precision."""

import math
import statistics
import sys

import keras

from benchmarks.sides.matmul import OPERATIONS
from benchmarks.sides.ours import build_trainer
from benchmarks.training_speed import CASES, Case
from benchmarks.turns import rates, spread, take_turns

ROUNDS = 9
PASSES = 3  # forward, and the gradients of inputs and of weights, each as many operations


def measure() -> str:
    """Measure every case of training_speed against matrix products; return the section for results.md."""
    rows = []
    for case in CASES:
        rows.append(row(case))
        print(rows[-1], flush=True)
    table = "\n".join(rows)
    return f"""## Share of the machine's arithmetic

Operations are those of convolutions and matrices, {PASSES} × forward, two a multiplication and addition, counted from
the layers' shapes. The peak is that of large square matrix products by TensorFlow at the same precision, in turns with
the steps, up to {ROUNDS} rounds. Median (quartiles).

| network | GFLOP an image | steps, GFLOP/s | matrix products, GFLOP/s | share |
|---|---|---|---|---|
{table}"""


def row(case: Case) -> str:
    """Measure a case; return its row of the table."""
    facts = case.facts()
    an_image = PASSES * forward_operations(build_trainer({**facts, "steps": 1}).model)
    sides = {
        "steps": ("ours", facts, sys.executable),
        "matmul": ("matmul", {"precision": case.precision}, sys.executable),
    }
    measured = take_turns(sides, ROUNDS)
    steps = rates(measured["steps"], case.images * an_image / 1e9)
    products = rates(measured["matmul"], OPERATIONS / 1e9)
    share = statistics.median(mine / peak for mine, peak in zip(steps, products, strict=True))
    return f"| {case.name} | {an_image / 1e9:.2f} | {spread(steps)} | {spread(products)} | {100 * share:.0f} % |"


def forward_operations(model: keras.Model) -> int:
    """Return the operations of one image's way through the model's convolutions and matrices; padding counts."""
    total = 0
    for layer in model.layers:
        kernels = [weight for weight in layer.weights if weight.name.endswith("kernel")]
        # A dense layer's kernel is used once; a convolution's at every pixel of its output.
        pixels = math.prod(layer.output.shape[1:-1]) if kernels and len(layer.output.shape) == 4 else 1
        total += sum(2 * math.prod(kernel.shape) * pixels for kernel in kernels)
    return total
