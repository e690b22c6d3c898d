"""The model as a table of layers, as text and as a picture of that text.

Written here and not with `model.summary()`: Keras 3 lays its table out by the terminal's width and locale.
"""

from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from tasks.reporting.architecture.graph import Box, read_graph
from tasks.stage.files import replaced_file, write_text

HEADINGS = ("Layer (type)", "Output shape", "Parameters", "Connected to")
FONT = "fonts/ttf/DejaVuSansMono.ttf"
FONT_SIZE, LINE_HEIGHT, MARGIN = 15, 21, 20  # pixels
INK, PAPER = "#1f2933", "#ffffff"


def write_summary(model: Any, folder: Path) -> None:
    """Write `summary.txt` and `summary.png` of a built model into an existing folder; equal models are equal bytes.

    Raises:
        ValueError: The model is a subclass whose graph Keras does not know.
    """
    text = summary_text(model)
    write_text(folder / "summary.txt", text)
    with replaced_file(folder / "summary.png") as temporary:
        _picture_of(text).save(temporary, format="PNG", optimize=True)


def summary_text(model: Any) -> str:
    """Return a line a layer (name, type, output shape, parameters, what feeds it) and the totals."""
    boxes = read_graph(model)
    rows = [HEADINGS, *(_row(box, position, boxes) for position, box in enumerate(boxes))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(
            text.rjust(width) if column == 2 else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "=" * max(map(len, lines))
    total, trainable = _count(model.weights), _count(model.trainable_weights)
    return "\n".join(
        [
            f"Model: {model.name}",
            rule,
            lines[0],
            rule,
            *lines[1:],
            rule,
            f"Parameters:     {total:>14,}",
            f"  trainable:    {trainable:>14,}",
            f"  not trainable:{total - trainable:>14,}",
            "",
        ]
    )


def _row(box: Box, position: int, boxes: list[Box]) -> tuple[str, str, str, str]:
    shape = " × ".join("?" if size is None else str(size) for size in box.shape)
    # The line above feeds most layers; naming only the others lets branches stand out.
    parents = "" if box.parents == (position - 1,) else ", ".join(boxes[parent].name for parent in box.parents)
    return f"{box.name} ({box.kind})", shape, f"{box.parameters:,}", parents


def _count(weights: list[Any]) -> int:
    sizes = []
    for weight in weights:
        size = 1
        for length in weight.shape:
            size *= int(length)
        sizes.append(size)
    return sum(sizes)


def _picture_of(text: str) -> Image.Image:
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / FONT), FONT_SIZE)
    lines = text.rstrip("\n").split("\n")
    width = round(max(font.getlength(line) for line in lines))
    picture = Image.new("RGB", (width + 2 * MARGIN, len(lines) * LINE_HEIGHT + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + number * LINE_HEIGHT), line, INK, font)
    return picture.quantize(16)
