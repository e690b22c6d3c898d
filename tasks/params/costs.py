"""What each mistake costs, where one is worse than another: `evaluate.costs`, and its table for the classes."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.stage.errors import InputError

PAIR = " > "
HIGHEST = 1e6  # beside a probability in float32, more would be decided by its last bits
SHOWN = 20  # names in a sentence


# By a class, or by two as `actual > answered`. A class called 0 stands in quotes: DVC sorts keys, of one type alone.
Costs = dict[str, Annotated[float, Field(gt=0, le=HIGHEST)]]


def cost_matrix(
    costs: Mapping[str, float], classes: Sequence[str], source: str = "evaluate.costs"
) -> NDArray[np.float64]:
    """Return what it costs to answer class j (column) to an image of class i (row); float64 (C, C), 0 on the diagonal.

    Args:
        costs: By a class what any mistake about its images costs, by `actual > answered` what this one does; 1 where
            neither is there. Where both are, the pair counts.
        classes: Names in label order.
        source: Where the costs stand, for errors.

    Raises:
        InputError: A key names no class.
    """
    position = {name: index for index, name in enumerate(classes)}
    matrix = 1 - np.eye(len(classes))
    of_classes = {position[key]: cost for key, cost in costs.items() if key in position}
    of_pairs = {_pair(key, position, source): cost for key, cost in costs.items() if key not in position}
    for actual, cost in of_classes.items():
        matrix[actual] *= cost
    for pair, cost in of_pairs.items():
        matrix[pair] = cost
    return matrix


def _pair(key: str, position: Mapping[str, int], source: str) -> tuple[int, int]:
    """Return the positions of the two classes of a pair; a class's name may itself hold what parts two."""
    for actual in position:
        answered = key.removeprefix(actual + PAIR)
        if answered not in {key, actual} and answered in position:
            return position[actual], position[answered]
    more = f" and {len(position) - SHOWN:,} more" if len(position) > SHOWN else ""
    raise InputError(
        f"{source}: {key!r} is no class, and no two of them as 'actual{PAIR}answered'; the classes are "
        f"{', '.join(list(position)[:SHOWN])}{more}"
    )
