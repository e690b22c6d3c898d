"""What checkpoints, streamed images, synchronized batch norm and several replicas on one processor cost."""

import dataclasses
import statistics
import sys
from typing import Any

from benchmarks.training_speed import CASES, Case
from benchmarks.turns import Round, rates, ratio, spread, take_turns
from benchmarks.workspace import object_store

ROUNDS = 9
SAVE_SECONDS = 60  # train.checkpoint_every_seconds of params.yaml
SEED, FAST = (dataclasses.replace(case, steps=8) for case in (CASES[0], CASES[-1]))


def measure() -> str:
    """Measure the costs; return the section for results.md."""
    return f"""## What else costs time

Up to {ROUNDS} rounds in turns, median (quartiles). A checkpoint's copy stops the steps, its write runs beside them; the
share is that of both in the {SAVE_SECONDS} s between two saves. With train.checkpoint_remote its upload runs beside the
steps too: its processor time, and what share that is of one core.

| checkpoint of | copied in, s | written in, s | share of the time | uploaded with, processor s | share |
|---|---|---|---|---|---|
{checkpoint_row(SEED)}
{checkpoint_row(FAST)}

| `{FAST.name}` | images a second | against one replica, fused, resident |
|---|---|---|
{variant_rows(FAST)}"""


def checkpoint_row(case: Case) -> str:
    """Measure the three parts of a save in turns."""
    parts = ("copy", "write", "upload")
    sides = {part: ("checkpoint", {**case.facts(), "steps": 1, "part": part}, sys.executable) for part in parts}
    with object_store():
        measured = take_turns(sides, ROUNDS)
    seconds = {part: [each.seconds for each in measured[part]] for part in ("copy", "write")}
    share = sum(statistics.median(values) for values in seconds.values()) / SAVE_SECONDS
    upload = [each.processor_seconds for each in measured["upload"]]
    row = (
        f"| {case.name} | {spread(seconds['copy'], 3)} | {spread(seconds['write'], 2)} | {100 * share:.1f} % | "
        f"{spread(upload, 2)} | {100 * statistics.median(upload) / SAVE_SECONDS:.1f} % |"
    )
    print(row, flush=True)
    return row


def variant_rows(case: Case) -> str:
    """Measure the steps with one replica, with streamed images, synchronized statistics, and 2 and 4 replicas."""
    changes: dict[str, dict[str, Any]] = {
        "one replica, fused batch norm, images resident": {},
        "images streamed, memory for a third of them": {"memory_share": 2 / 3},  # half of it is for validation
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
