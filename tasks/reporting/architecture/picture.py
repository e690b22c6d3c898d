"""The model as a PNG: one box a layer, wires with residual branches, columns read from left to right."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tasks.reporting.architecture.graph import Box, read_graph
from tasks.reporting.architecture.layout import Layout, arrange
from tasks.stage.files import replaced_file

# Inches, at DOTS an inch.
DOTS = 120
BOX_WIDTH, BOX_HEIGHT, ROW = 2.55, 0.40, 0.58
WIRE_LANE, LANE_GAP, GUTTER, MARGIN = 0.16, 0.14, 0.34, 0.22
ASPECT = 1.45
LETTERS = 43  # of 6.6 point that a box holds on one line

INK, WIRE = "#1f2933", "#52606d"
FAMILIES = (
    (("Conv", "Whitening"), "#dbeafe", "#2b6cb0"),
    (("Norm", "Scaling", "Rescaling", "Normalization"), "#eceff3", "#7b8794"),
    (("Pool",), "#fde8d7", "#c05621"),
    (("Add", "Concatenate", "Multiply", "Average", "Subtract", "Maximum"), "#d8f3e3", "#21835a"),
    (("Dense",), "#ece2fb", "#6b46c1"),
    (("Softmax", "ReLU", "GELU", "Activation", "Sigmoid"), "#fdf3c7", "#a17c07"),
    (("Input",), "#ffffff", "#1f2933"),
)
OTHER = ("#f7f7f7", "#7b8794")
Point = tuple[float, float]


def draw_architecture(model: Any, path: Path) -> None:
    """Draw a built functional or sequential Keras model; equal models are equal bytes.

    Each box shows the layer's name, its type with the essential settings, its output shape without the batch, and
    its parameters.

    Raises:
        ValueError: The model is a subclass whose graph Keras does not know.
    """
    boxes = read_graph(model)
    layout = arrange([box.parents for box in boxes], ASPECT, ROW, BOX_WIDTH + GUTTER)
    grid = _Grid(boxes, layout)
    figure = Figure(figsize=(grid.width, grid.height), dpi=DOTS, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, grid.width), ylim=(grid.height, 0))
    axes.axis("off")
    for child, box in enumerate(boxes):
        for parent in box.parents:
            _draw_wire(axes, grid.route(parent, child))
    for position, box in enumerate(boxes):
        _draw_box(axes, box, grid.centre(position))
    with replaced_file(path) as temporary:
        canvas.print_png(temporary, metadata={"Software": None})


class _Grid:
    """Turns a layout's levels and lanes into inches, x to the right and y downwards."""

    def __init__(self, boxes: list[Box], layout: Layout) -> None:
        self._layout = layout
        self._column = {level: column for column, levels in enumerate(layout.columns) for level in levels}
        wide = {(self._column[level], lane) for level, lane in zip(layout.levels, layout.lanes, strict=True)}
        thin = {(self._column[layout.levels[parent] + 1], lane) for (parent, _), lane in layout.wires.items()} - wide
        lanes: dict[int, list[int]] = defaultdict(list)
        for column, lane in sorted(wide | thin):
            lanes[column].append(lane)
        self._x: dict[tuple[int, int], float] = {}
        x = MARGIN
        for column in range(len(layout.columns)):
            for lane in lanes[column]:
                width = BOX_WIDTH if (column, lane) in wide else WIRE_LANE
                self._x[column, lane] = x + width / 2
                x += width + LANE_GAP
            x += GUTTER - LANE_GAP
        self.width = x - GUTTER + MARGIN
        self.height = max(map(len, layout.columns)) * ROW - (ROW - BOX_HEIGHT) + 2 * MARGIN
        self._left = [self._x[column, lanes[column][0]] - BOX_WIDTH / 2 for column in range(len(layout.columns))]

    def centre(self, box: int) -> Point:
        return self._at(self._layout.levels[box], self._layout.lanes[box])

    def _at(self, level: int, lane: int) -> Point:
        column = self._column[level]
        row = level - self._layout.columns[column].start
        return self._x[column, lane], MARGIN + BOX_HEIGHT / 2 + row * ROW

    def route(self, parent: int, child: int) -> list[Point]:
        """Return the corners of the wire between two boxes; it leaves at the bottom and arrives at the top."""
        levels = self._layout.levels
        (x0, y0), (x1, y1) = self.centre(parent), self.centre(child)
        y0, y1 = y0 + BOX_HEIGHT / 2, y1 - BOX_HEIGHT / 2
        gap = ROW - BOX_HEIGHT
        if self._column[levels[parent]] != self._column[levels[child]]:
            aisle = self._left[self._column[levels[child]]] - GUTTER / 2
            below, above = y0 + gap * 0.4, y1 - gap * 0.55
            return [(x0, y0), (x0, below), (aisle, below), (aisle, above), (x1, above), (x1, y1)]
        if (parent, child) in self._layout.wires:
            x = self._at(levels[parent] + 1, self._layout.wires[parent, child])[0]
            below, above = y0 + gap * 0.35, y1 - gap * 0.65
            return [(x0, y0), (x0, below), (x, below), (x, above), (x1, above), (x1, y1)]
        middle = y0 + gap * 0.35
        return [(x0, y0), (x0, middle), (x1, middle), (x1, y1)]


def _draw_wire(axes: Any, corners: list[Point]) -> None:
    xs, ys = zip(*corners, strict=True)
    axes.plot(xs, ys, color=WIRE, linewidth=0.9, solid_joinstyle="round", zorder=1)
    x, y = corners[-1]
    axes.fill([x - 0.032, x + 0.032, x], [y - 0.075, y - 0.075, y], color=WIRE, linewidth=0, zorder=1)


def _draw_box(axes: Any, box: Box, centre: Point) -> None:
    fill, edge = next((colours for names, *colours in FAMILIES if any(name in box.kind for name in names)), OTHER)
    left, top = centre[0] - BOX_WIDTH / 2, centre[1] - BOX_HEIGHT / 2
    style = "round,pad=0,rounding_size=0.05"
    axes.add_patch(
        FancyBboxPatch((left, top), BOX_WIDTH, BOX_HEIGHT, style, facecolor=fill, edgecolor=edge, linewidth=0.9)
    )
    parameters = f"{box.parameters:,}" if box.parameters else ""
    shape = "×".join("?" if size is None else str(size) for size in box.shape)
    kind = f"{box.kind} {box.detail}".strip()
    rows = ((box.name, parameters, 0.31, "bold"), (kind, shape, 0.71, "normal"))
    for start, end, height, weight in rows:
        y = top + BOX_HEIGHT * height
        room = LETTERS - len(end) - (5 if weight == "bold" else 0)
        axes.text(left + 0.07, y, _shorten(start, room), fontsize=6.6, weight=weight, color=INK, va="center")
        axes.text(left + BOX_WIDTH - 0.07, y, end, fontsize=6.6, color=INK, va="center", ha="right")


def _shorten(text: str, letters: int) -> str:
    """Cut the middle out of a text that is too long: layer names differ at both ends."""
    if len(text) <= letters:
        return text
    half = (letters - 1) // 2
    return f"{text[: letters - 1 - half]}…{text[len(text) - half :]}"
