"""Where boxes and wires go: rows by longest path, lanes side by side, and columns cut where one wire crosses."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

Parents = Sequence[Sequence[int]]
Edge = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Places on a grid; a column holds a run of levels, a lane is a vertical track within a column.

    Attributes:
        levels: For each box the length of the longest path to it.
        lanes: For each box its lane; 0 is the longest path through the model.
        wires: For each edge over more than one level the lane that it runs down in between.
        columns: The levels of each column, from top to bottom.
    """

    levels: list[int]
    lanes: list[int]
    wires: dict[Edge, int]
    columns: list[range]


def arrange(parents: Parents, aspect: float, row_height: float, lane_width: float) -> Layout:
    """Lay a graph out in layers (Sugiyama et al. 1981, without crossing reduction: branches here are few and short).

    Args:
        parents: For each box the boxes before it, all at lower positions.
        aspect: Width over height that the whole should come nearest to.
        row_height: Of a level, in any unit.
        lane_width: Of a lane that holds boxes, in the same unit.
    """
    levels = longest_paths(parents)
    lanes = _lanes(parents, levels, _spine(parents, levels))
    segments = _segments(parents, levels)

    def distance(columns: list[range]) -> float:
        used = sum(len({lane for level, lane in zip(levels, lanes, strict=True) if level in run}) for run in columns)
        return abs(used * lane_width / (max(map(len, columns)) * row_height) - aspect)

    lowest: dict[int, list[range]] = {}  # for each number of columns, the packing that needs the fewest rows
    for height in range(max(map(len, segments)), max(levels) + 2):
        columns = _pack(segments, height)
        lowest.setdefault(len(columns), columns)
    return Layout(levels, lanes, _wires(parents, levels, lanes), min(lowest.values(), key=distance))


def longest_paths(parents: Parents) -> list[int]:
    """Return for each box the number of edges on the longest path to it."""
    levels: list[int] = []
    for before in parents:
        levels.append(1 + max((levels[parent] for parent in before), default=-1))
    return levels


def _spine(parents: Parents, levels: list[int]) -> set[int]:
    """Return the boxes of one longest path."""
    box = levels.index(max(levels))
    spine = {box}
    while parents[box]:
        box = next(parent for parent in parents[box] if levels[parent] == levels[box] - 1)
        spine.add(box)
    return spine


def _lanes(parents: Parents, levels: list[int], spine: set[int]) -> list[int]:
    """Keep the longest path in lane 0 and a branch in one lane, the first that is free at each of its levels."""
    taken: dict[int, set[int]] = defaultdict(set)
    lanes = [0] * len(parents)
    for box, before in enumerate(parents):
        if box not in spine:
            wanted = [lanes[parent] for parent in before if parent not in spine]
            free = (lane for lane in (*wanted, *range(1, len(parents) + 1)) if lane not in taken[levels[box]])
            lanes[box] = next(free)
        taken[levels[box]].add(lanes[box])
    return lanes


def _wires(parents: Parents, levels: list[int], lanes: list[int]) -> dict[Edge, int]:
    """Give each edge that spans levels a lane that no box and no other box's wire uses there."""
    owner: dict[tuple[int, int], int] = dict.fromkeys(zip(levels, lanes, strict=True), -1)
    wires = {}
    edges = [(parent, box) for box, before in enumerate(parents) for parent in before]
    for parent, box in sorted(edges, key=lambda edge: levels[edge[1]] - levels[edge[0]]):
        between = range(levels[parent] + 1, levels[box])
        if not between:
            continue
        wanted = (lanes[parent], lanes[box], *range(1, len(parents) + len(edges) + 1))
        lane = next(x for x in wanted if all(owner.get((level, x), parent) == parent for level in between))
        wires[parent, box] = lane
        owner.update({(level, lane): parent for level in between})
    return wires


def _segments(parents: Parents, levels: list[int]) -> list[range]:
    """Cut the levels wherever a single edge crosses from one to the next."""
    crossing = [0] * (max(levels) + 1)
    for box, before in enumerate(parents):
        for parent in before:
            for level in range(levels[parent], levels[box]):
                crossing[level] += 1
    cuts = [level + 1 for level in range(max(levels)) if crossing[level] == 1]
    return [range(start, stop) for start, stop in zip([0, *cuts], [*cuts, max(levels) + 1], strict=True)]


def _pack(segments: list[range], height: int) -> list[range]:
    """Fill columns of at most `height` levels with whole segments, none of them higher."""
    columns: list[range] = []
    for segment in segments:
        if columns and len(columns[-1]) + len(segment) <= height:
            columns[-1] = range(columns[-1].start, segment.stop)
        else:
            columns.append(segment)
    return columns
