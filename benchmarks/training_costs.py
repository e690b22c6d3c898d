"""What checkpoints, synchronized batch norm and several replicas on one processor cost."""

import dataclasses
import statistics
import sys

from benchmarks.training_speed import CASES, Case
from benchmarks.turns import Round, rates, ratio, spread, take_turns

ROUNDS = 9
SAVE_SECONDS = 60  # train.checkpoint_every_seconds of params.yaml
SEED, FAST = dataclasses.replace(CASES[0], steps=8), CASES[-1]


def measure() -> str:
    """Measure the costs; return the section for results.md."""
    return f"""## What else costs time

Up to {ROUNDS} rounds in turns, median (quartiles). A checkpoint's copy stops the steps, its write runs beside them; the
share is that of both in the {SAVE_SECONDS} s between two saves.

| checkpoint of | copied in, s | written in, s | share of the time |
|---|---|---|---|
{checkpoint_row(SEED)}
{checkpoint_row(FAST)}

| `{FAST.name}` | images a second | against one replica, fused |
|---|---|---|
{variant_rows(FAST)}"""


def checkpoint_row(case: Case) -> str:
    """Measure the two parts of a save after each round of steps."""
    sides = {
        part: ("checkpoint", {**case.facts(), "steps": 1, "part": part}, sys.executable) for part in ("copy", "write")
    }
    seconds = {part: [each.seconds for each in rounds] for part, rounds in take_turns(sides, ROUNDS).items()}
    share = sum(statistics.median(values) for values in seconds.values()) / SAVE_SECONDS
    row = f"| {case.name} | {spread(seconds['copy'], 3)} | {spread(seconds['write'], 2)} | {100 * share:.1f} % |"
    print(row, flush=True)
    return row


def variant_rows(case: Case) -> str:
    """Measure the steps with one replica, with synchronized statistics, and with 2 and 4 replicas."""
    changes: dict[str, dict[str, str]] = {
        "one replica, fused batch norm": {},
        "one replica, the arithmetic of synchronized batch norm": {"normalization": "synchronized"},
        "2 replicas on this processor": {"devices": "cpu:2"},
        "4 replicas on this processor": {"devices": "cpu:4"},
    }
    sides = {name: ("ours", {**case.facts(), **change}, sys.executable) for name, change in changes.items()}
    measured: dict[str, list[Round]] = take_turns(sides, ROUNDS)
    speeds = {name: rates(rounds, case.images) for name, rounds in measured.items()}
    plain = next(iter(speeds.values()))
    rows = [f"| {name} | {spread(speed)} | {ratio(speed, plain)} |" for name, speed in speeds.items()]
    print("\n".join(rows), flush=True)
    return "\n".join(rows)
