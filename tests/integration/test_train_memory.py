"""Memory: bounded by the budget where a data set is larger, and steady however long a run is."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.fixtures.nursery import Nursery

BUDGET = 32 << 20
TIMES = 6  # the set's size, in budgets
NOISE = 64 << 20  # two runs of the same differ by so much: how many of the allocator's arenas threads come to use
SIDE = 96
BATCH = 32


def write_images(path: Path, count: int, side: int) -> Path:
    """Write `count` images of noise, one hundred of them over and over."""
    noise = np.random.default_rng(0).integers(0, 256, (100, side, side, 3), dtype=np.uint8)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, side, side, 3))
    for start in range(0, count, len(noise)):
        images[start : start + len(noise)] = noise[: count - start]
    images.flush()
    return path


def measured(nursery: Nursery, images: Path, memory: int, launches: int) -> dict[str, Any]:
    arguments = (str(images), str(memory), str(launches))
    run = nursery.start(images.parent, *arguments, module="tests.fixtures.streamed_memory")
    run.wait()
    facts: dict[str, Any] = json.loads(run.out.splitlines()[-1])
    print(facts)
    return facts


def test_a_set_of_six_times_the_budget_stays_within_it(nursery: Nursery, tmp_path: Path) -> None:
    steps = TIMES * BUDGET // (BATCH * SIDE * SIDE * 3)
    launches = steps // 8  # of the epoch: six windows of an eighth of the budget
    # What the set costs, and not what any training comes to hold after its first steps: both run for as many.
    small = measured(nursery, write_images(tmp_path / "small.npy", 2 * BATCH, SIDE), BUDGET, launches)
    large = measured(nursery, write_images(tmp_path / "large.npy", steps * BATCH, SIDE), BUDGET, launches)
    assert large["launches"] == launches
    assert large["peak"] <= small["peak"] + BUDGET + NOISE


def test_memory_is_steady_over_many_launches(nursery: Nursery, tmp_path: Path) -> None:
    facts = measured(nursery, write_images(tmp_path / "images.npy", 300 * BATCH, 32), 1 << 30, 300)
    assert facts["launches"] == 300
    # A leak adds to every fifth of the launches, and the allocator's arenas, which threads come to use, to some.
    growth = np.diff(facts["fifths"])
    assert growth.min() < 1 << 20, growth.tolist()
