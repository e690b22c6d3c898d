"""Small SVG pictures as text: elements, linear axes, ticks. Colours come from the page's style sheet, by class."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Point = tuple[float, float]
Attribute = str | float | None


def element(name: str, content: str = "", /, **attributes: Attribute) -> Markup:
    """Return one element; text content and attribute values are escaped, `_` in names becomes `-`, `class_` class."""
    pairs = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(number(value) if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inside = escape(content)
    return Markup(f"<{name}{''.join(pairs)}>{inside}</{name}>" if inside else f"<{name}{''.join(pairs)}/>")  # noqa: S704


def join(parts: Iterable[Markup]) -> Markup:
    """Return markup after markup."""
    return Markup("").join(parts)


def picture(width: float, height: float, parts: Iterable[Markup], label: str) -> Markup:
    """Return a drawing that scales to its container; `label` is what a screen reader says."""
    view = f"0 0 {number(width)} {number(height)}"
    return element("svg", join(parts), viewBox=view, role="img", aria_label=label, class_="chart")


def line(points: Sequence[Point], class_: str) -> Markup:
    """Return a polyline."""
    path = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return element("path", d=path, class_=class_)


def text(x: float, y: float, content: str, class_: str = "label", anchor: str = "middle") -> Markup:
    """Return text with its baseline at y."""
    return element("text", content, x=x, y=y, class_=class_, text_anchor=anchor)


def number(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def shorten(name: str, letters: int) -> str:
    """Cut a name that is too long."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def round_ticks(low: float, high: float, count: int = 5, smallest: float = 0.0) -> list[float]:
    """Return about `count` multiples of 1, 2 or 5 × 10ⁿ, at least `smallest` apart, that enclose low and high.

    Where the two are equal up to rounding, zero is enclosed too.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):
        low, high = min(low, 0.0), max(high, 0.0)
    span = high - low if high - low > 1e-12 else 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= span / count * 0.999)
    step = max(step, smallest)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class Axes:
    """A rectangle in the picture and the range of values that it shows.

    Attributes:
        left, top, width, height: In the picture's units.
        x_ticks, y_ticks: Their ends are the range.
    """

    left: float
    top: float
    width: float
    height: float
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    def place(self, x: float, y: float) -> Point:
        """Return where a pair of values is in the picture."""
        across = (x - self.x_ticks[0]) / (self.x_ticks[-1] - self.x_ticks[0])
        up = (y - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def frame(self, x_format: str, y_format: str, x_title: str) -> list[Markup]:
        """Return grid lines, tick labels (formats as in `{:.0%}`) and the title below."""
        parts = []
        bottom, right = self.top + self.height, self.left + self.width
        for value in self.y_ticks:
            y = self.place(self.x_ticks[0], value)[1]
            parts.append(line([(self.left, y), (right, y)], "grid"))
            parts.append(text(self.left - 7, y + 4, y_format.format(value), anchor="end"))
        for value in self.x_ticks:
            x = self.place(value, self.y_ticks[0])[0]
            parts.append(text(x, bottom + 17, x_format.format(value)))
        parts.append(line([(self.left, bottom), (right, bottom)], "axis"))
        parts.append(text(self.left + self.width / 2, bottom + 35, x_title, "title"))
        return parts
