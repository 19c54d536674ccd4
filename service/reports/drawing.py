"""Pictures as trees of SVG elements, and the parts that figures have in common.

Marks have a class for each meaning, and the stylesheet says what it looks like; forms, sizes and
dashes differ too, so that no meaning hangs on a colour.  Many equal marks are one path, which keeps
a picture of thousands of trials small.

# x and y are in units of the picture, which is WIDTH wide; y grows downward
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement

from ridgeline.search.ranges import Value
from ridgeline.service.reports.axes import Axis

WIDTH = 460
"""A phone shows this width with letters of nearly their full size."""

LEFT, RIGHT, BELOW = 62, 14, 44
_LEGEND_ROW = 20
_CHARACTER = 7.2
"""Width of a letter, about: nothing here can measure text."""
_MOST_CHARACTERS = 12
"""Of the label of a tick."""
_MOST_OF_LEVELS = 8
"""Of the label of a tick at the left."""

Point = tuple[float, float]
Mark = Callable[[Element, float, float], object]
"""Draws what a legend explains, into a space that is 20 wide and centred on a point."""


def picture(height: float) -> Element:
    return Element("svg", viewBox=f"0 0 {WIDTH} {height:g}")


def text(parent: Element, x: float, y: float, words: str, look: str = "tick") -> None:
    """Words at a point; `look` is a class, or several."""
    SubElement(parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": look}).text = words


def line(parent: Element, points: Iterable[Point], look: str) -> None:
    """A line through points; none where there are fewer than two."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if " " in path:
        SubElement(parent, "polyline", {"points": path, "class": look})


def lines(parent: Element, many: Iterable[Sequence[Point]], look: str) -> None:
    """Lines of one look."""
    path = "".join(f"M{' '.join(f'{x:.0f} {y:.0f}' for x, y in points)}" for points in many)
    if path:
        SubElement(parent, "path", {"d": path, "class": look})


def dots(parent: Element, points: Iterable[Point], look: str) -> None:
    """Round dots, which are as large as the look's stroke is wide."""
    _marks(parent, points, "h0", look)


def crosses(parent: Element, points: Iterable[Point], look: str) -> None:
    shifted = ((x - 3, y - 3) for x, y in points)
    _marks(parent, shifted, "l6 6m0-6l-6 6", look)


def area(parent: Element, upper: Sequence[Point], lower: Sequence[Point], look: str) -> None:
    """What lies between two lines."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
    SubElement(parent, "polygon", {"points": path, "class": look})


def box(parent: Element, x: float, y: float, width: float, height: float, look: str) -> None:
    sizes = {"x": x, "y": y, "width": width, "height": height}
    SubElement(parent, "rect", {**{k: f"{v:.1f}" for k, v in sizes.items()}, "class": look})


def _marks(parent: Element, points: Iterable[Point], form: str, look: str) -> None:
    path = "".join(f"M{x:.1f} {y:.1f}{form}" for x, y in points)
    if path:
        SubElement(parent, "path", {"d": path, "class": look})


def steps(points: Sequence[Point]) -> list[Point]:
    """A line that keeps its height until the next point."""
    found = list(points[:1])
    for (_, level), (x, y) in pairwise(points):
        found += [(x, level), (x, y)]
    return found


@dataclass(frozen=True)
class Frame:
    """The space between two axes."""

    svg: Element
    x: Axis
    y: Axis
    top: float
    bottom: float

    def at(self, x: Value, y: Value) -> Point:
        """Where a point lies in the picture."""
        return self.at_places(self.x.place(x), self.y.place(y))

    def at_places(self, x: float, y: float) -> Point:
        """The same for its places on both axes."""
        return (
            LEFT + x * (WIDTH - LEFT - RIGHT),
            self.bottom - y * (self.bottom - self.top),
        )


def frame(x: Axis, y: Axis, legend: Sequence[tuple[str, Mark]], height: float = 230) -> Frame:
    """A picture with two axes, their ticks and titles, and a legend above."""
    num_rows = len(_rows_of(legend))
    top = num_rows * _LEGEND_ROW + 30
    svg = picture(top + height + BELOW)
    found = Frame(svg, x, y, top, top + height)
    draw_legend(svg, legend, 4)
    text(svg, 2, top - 12, y.title, "name")
    for place, label in y.ticks:
        level = found.bottom - place * height
        line(svg, [(LEFT, level), (WIDTH - RIGHT, level)], "grid")
        text(svg, LEFT - 6, level + 4, label[:_MOST_OF_LEVELS], "tick end")
    draw_ticks(svg, x, LEFT, WIDTH - RIGHT, found.bottom)
    text(svg, WIDTH - RIGHT, found.bottom + 37, x.title, "name end")
    return found


def draw_ticks(svg: Element, axis: Axis, left: float, right: float, level: float) -> None:
    """A line across with the ticks of an axis; labels that would lie on others are left out."""
    line(svg, [(left, level), (right, level)], "axis")
    taken = 0.0
    for place, label in axis.ticks:
        across = left + place * (right - left)
        line(svg, [(across, level), (across, level + 5)], "axis")
        words = label[:_MOST_CHARACTERS]
        width = len(words) * _CHARACTER
        start = min(max(across - width / 2, 0.0), WIDTH - width)
        if start >= taken:
            text(svg, start + width / 2, level + 18, words, "tick halo middle")
            taken = start + width + _CHARACTER


def draw_legend(svg: Element, legend: Sequence[tuple[str, Mark]], top: float) -> float:
    """What marks mean, row by row; returns where the rows end."""
    rows = _rows_of(legend)
    for index, row in enumerate(rows):
        left, middle = 2.0, top + index * _LEGEND_ROW + 9
        for label, mark in row:
            mark(svg, left + 11, middle)
            text(svg, left + 25, middle + 4, label)
            left += _width_of(label)
    return top + len(rows) * _LEGEND_ROW


def _rows_of(legend: Sequence[tuple[str, Mark]]) -> list[list[tuple[str, Mark]]]:
    rows: list[list[tuple[str, Mark]]] = []
    left = float(WIDTH)
    for label, mark in legend:
        if left + _width_of(label) > WIDTH:
            rows.append([])
            left = 0.0
        rows[-1].append((label, mark))
        left += _width_of(label)
    return rows


def _width_of(label: str) -> float:
    return 25 + len(label) * _CHARACTER + 14


def a_dot(look: str) -> Mark:
    return lambda svg, x, y: dots(svg, [(x, y)], look)


def a_cross(look: str) -> Mark:
    return lambda svg, x, y: crosses(svg, [(x, y)], look)


def a_line(look: str) -> Mark:
    return lambda svg, x, y: line(svg, [(x - 10, y), (x + 10, y)], look)


def an_area(look: str) -> Mark:
    return lambda svg, x, y: box(svg, x - 10, y - 5, 20, 10, look)
