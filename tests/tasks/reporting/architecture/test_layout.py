"""Rows, lanes, wires and columns of any graph: nothing on top of anything else."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.reporting.architecture.layout import arrange, longest_paths

CHAIN = [[], *([index] for index in range(29))]
#       0 → 1 → 2 → 3 → 4, and 1 → 5 → 3: a branch with a box of its own beside the longest path
BRANCH = [[], [0], [1], [1], [2], [4, 3], [5]]


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    size = draw(st.integers(1, 25))
    choose = [st.sets(st.integers(max(0, box - 6), box - 1), min_size=1, max_size=3) for box in range(1, size)]
    return [[], *(sorted(draw(parents)) for parents in choose)]


def test_levels_are_longest_paths() -> None:
    assert longest_paths(BRANCH) == [0, 1, 2, 2, 3, 4, 5]


def test_a_chain_becomes_columns_of_equal_height() -> None:
    layout = arrange(CHAIN, aspect=1.45, row_height=0.58, lane_width=2.9)
    assert [len(column) for column in layout.columns] == [10, 10, 10]
    assert set(layout.lanes) == {0}
    assert layout.wires == {}


def test_a_branch_goes_beside_the_longest_path() -> None:
    layout = arrange(BRANCH, aspect=1.0, row_height=1.0, lane_width=1.0)
    assert layout.lanes == [0, 0, 0, 1, 0, 0, 0]
    assert layout.wires == {(3, 5): 1}


def test_a_skip_is_never_cut_by_a_column() -> None:
    skip = [[], [0], [1], [2], [3, 1], [4]]
    for aspect in (0.1, 1.0, 10.0):
        columns = arrange(skip, aspect=aspect, row_height=1.0, lane_width=1.0).columns
        assert any({1, 2, 3, 4} <= set(column) for column in columns)


@pytest.mark.parametrize("parents", [[[]], [[], []], [[], [0], [0]]])
def test_the_smallest_graphs(parents: list[list[int]]) -> None:
    arrange(parents, aspect=1.0, row_height=1.0, lane_width=1.0)


@given(graphs(), st.floats(0.2, 5))
def test_nothing_overlaps(parents: list[list[int]], aspect: float) -> None:
    layout = arrange(parents, aspect, row_height=1.0, lane_width=2.0)
    places = list(zip(layout.levels, layout.lanes, strict=True))
    assert len(set(places)) == len(places), "two boxes in one place"
    carried: dict[tuple[int, int], set[int]] = defaultdict(set)
    for (parent, child), lane in layout.wires.items():
        for level in range(layout.levels[parent] + 1, layout.levels[child]):
            assert (level, lane) not in places, "a wire through a box"
            carried[level, lane].add(parent)
    assert all(len(sources) == 1 for sources in carried.values()), "two boxes' wires in one track"
    assert [level for column in layout.columns for level in column] == list(range(max(layout.levels) + 1))


@given(graphs())
def test_one_wire_at_most_goes_from_column_to_column(parents: list[list[int]]) -> None:
    layout = arrange(parents, aspect=5.0, row_height=1.0, lane_width=1.0)
    column = {level: number for number, levels in enumerate(layout.columns) for level in levels}
    for number in range(1, len(layout.columns)):
        crossing = [
            (parent, child)
            for child, before in enumerate(parents)
            for parent in before
            if column[layout.levels[parent]] < number <= column[layout.levels[child]]
        ]
        assert len(crossing) == 1
