"""The figures of a study's search: pictures made of trials, in the terms of `drawing`.

A trial's value is shown by its *fifth*: the best fifth of the shown trials, the next one, and so
on.  By size and by colour at once, and whatever the values are, a few huge ones among them too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from ridgeline.search.means import INTERVAL
from ridgeline.search.ranges import Value
from ridgeline.service.reports.axes import Axis
from ridgeline.service.reports.drawing import (
    LEFT,
    RIGHT,
    WIDTH,
    Frame,
    Mark,
    Point,
    a_cross,
    a_dot,
    a_line,
    an_area,
    area,
    box,
    crosses,
    dots,
    draw_legend,
    draw_ticks,
    frame,
    line,
    lines,
    picture,
    steps,
    text,
)

FIFTHS = ("best fifth", "second", "third", "fourth", "last fifth")
_ROW = 58
_INTERVAL_ROW = 40
_NAME_LINE, _MOST_OF_NAMES = 15, 52
"""The height of a line of a row's name, and how many letters of a usual width it has room for."""

_SIDE = 12
_HISTOGRAM_ROW, _BARS_HEIGHT = 84, 52
_BAR = 6


@dataclass(frozen=True)
class Histogram:
    """One of several histograms.

    Attributes:
        zeros: the share of what is 0 in words.
        bars: (start, end, share) of each bin on the axis.
    """

    name: str
    zeros: str
    zero_share: float
    bars: Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Curve:
    """A line of a metric by epoch.

    Attributes:
        look: its class: `best` or `other`, and `train` or `validation`.
        points: (epoch, value), in the order of the epochs.
        band: (epoch, lowest, highest) of several runs.
    """

    look: str
    points: Sequence[tuple[int, float]]
    band: Sequence[tuple[int, float, float]] = ()


def history(
    x: Axis,
    y: Axis,
    complete: Sequence[tuple[int, float]],
    pruned: Sequence[tuple[int, float]],
    best_so_far: Sequence[tuple[int, float]],
) -> Element:
    """Values of trials by number, and the best one until then; all as (number, value)."""
    legend: list[tuple[str, Mark]] = [
        ("complete trial", a_dot("trial")),
        ("best so far", a_line("best-so-far")),
    ]
    if pruned:
        legend.insert(1, ("pruned trial", a_cross("pruned")))
    plot = frame(x, y, legend)
    dots(plot.svg, _at(plot, complete), "trial")
    crosses(plot.svg, _at(plot, pruned), "pruned")
    line(plot.svg, steps(_at(plot, best_so_far)), "best-so-far")
    return plot.svg


def curves(
    x: Axis, y: Axis, shown: Sequence[Curve], names: Mapping[str, str], kept: Point | None = None
) -> Element:
    """Metrics by epoch.

    Args:
        shown: those drawn first lie below.
        names: what each look means, by look.
        kept: (epoch, value) of the epoch that counts.
    """
    legend: list[tuple[str, Mark]] = [(name, a_line(look)) for look, name in names.items()]
    if any(curve.band for curve in shown):
        legend.append(("lowest to highest run", an_area("band")))
    if kept is not None:
        legend.append(("kept epoch", a_dot("kept")))
    plot = frame(x, y, legend)
    for curve in shown:
        if curve.band:
            upper = [plot.at(epoch, high) for epoch, _, high in curve.band]
            area(plot.svg, upper, [plot.at(epoch, low) for epoch, low, _ in curve.band], "band")
    for curve in shown:
        points = _at(plot, curve.points)
        if len(points) == 1:  # a line of one point would not be seen
            dots(plot.svg, points, curve.look)
        line(plot.svg, points, curve.look)
    if kept is not None:
        dots(plot.svg, [plot.at(*kept)], "kept")
    return plot.svg


def value_map(
    x: Axis,
    y: Axis,
    fifths: Sequence[Sequence[tuple[Value, Value]]],
    ridge: Sequence[tuple[float, float]] = (),
) -> Element:
    """Trials by two parameters.

    Args:
        fifths: (x, y) of the trials of each fifth, best first.
        ridge: places on both axes of points of the line along which good trials lie.
    """
    legend = _legend_of_fifths(a_dot)
    if ridge:
        legend.append(("ridge", a_line("ridge")))
    plot = frame(x, y, legend)
    for look, points in zip(_looks(), fifths, strict=True):  # the smaller on the larger ones
        dots(plot.svg, _at(plot, points), f"rim {look}")
        dots(plot.svg, _at(plot, points), look)
    line(plot.svg, [plot.at_places(*places) for places in ridge], "ridge")
    return plot.svg


def value_scatter(x: Axis, y: Axis, points: Sequence[tuple[Value, float]]) -> Element:
    """Values by one parameter."""
    plot = frame(x, y, [("complete trial", a_dot("trial"))])
    dots(plot.svg, _at(plot, points), "trial")
    return plot.svg


def parallel(
    axes: Sequence[Axis],
    fifths: Sequence[Sequence[Sequence[Value | None]]],
    best: Sequence[Value | None],
) -> Element:
    """Trials as lines from axis to axis, one below the other, which a phone has room for.

    Args:
        fifths: of each fifth, best first, its trials as their values on the axes; a line passes by
            an axis on which its trial has none.
        best: of the best trial.
    """
    legend = [*_legend_of_fifths(a_line), ("best trial", a_line("best-line"))]
    svg = picture(draw_legend(Element("svg"), legend, 4) + 10 + _ROW * len(axes))
    top = draw_legend(svg, legend, 4) + 30

    def path(trial: Sequence[Value | None]) -> list[Point]:
        pairs = zip(axes, trial, strict=True)
        return [
            (_SIDE + axis.place(value) * (WIDTH - 2 * _SIDE), top + row * _ROW)
            for row, (axis, value) in enumerate(pairs)
            if value is not None
        ]

    for look, trials in reversed(list(zip(_looks(), fifths, strict=True))):
        lines(svg, map(path, trials), f"{look} way")
    line(svg, path(best), "best-line")
    for row, axis in enumerate(axes):
        level = top + row * _ROW
        text(svg, _SIDE, level - 8, axis.title, "name halo")
        draw_ticks(svg, axis, _SIDE, WIDTH - _SIDE, level)
    return svg


def intervals(
    axis: Axis,
    rows: Sequence[tuple[str, float, tuple[float, float] | None]],
    marks: Mapping[str, Sequence[float | None]],
    *,
    zero: bool = False,
) -> Element:
    """Means with their intervals, a row each, over one axis.

    Args:
        rows: (name, mean, (low, high)).
        marks: what else is shown in each row, by its meaning.
        zero: whether a line marks 0.
    """
    legend: list[tuple[str, Mark]] = [(f"mean, {INTERVAL}", _an_interval)]
    crossed = [(name, a_cross("pruned")) for name in marks]
    names = [_name_lines(name) for name, _, _ in rows]
    above = _NAME_LINE * (max(map(len, names), default=1) - 1)
    height = _INTERVAL_ROW + above
    svg = picture(draw_legend(Element("svg"), [*legend, *crossed], 4) + 56 + height * len(rows))
    top = draw_legend(svg, [*legend, *crossed], 4) + 12

    def at(value: float) -> float:
        return _SIDE + axis.place(value) * (WIDTH - 2 * _SIDE)

    bottom = top + height * len(rows)
    if zero:
        line(svg, [(at(0.0), top), (at(0.0), bottom)], "zero")
    for index, (_, mean, interval) in enumerate(rows):
        level = top + (index + 1) * height - 12
        for number, words in enumerate(reversed(names[index])):
            text(svg, _SIDE, level - 13 - number * _NAME_LINE, words, "tick halo")
        if interval is not None:
            line(svg, [(at(end), level) for end in interval], "interval")
        dots(svg, [(at(mean), level)], "mean")
        extra = [its[index] for its in marks.values()]
        crosses(svg, [(at(value), level) for value in extra if value is not None], "pruned")
    draw_ticks(svg, axis, _SIDE, WIDTH - _SIDE, bottom)
    text(svg, WIDTH - _SIDE, bottom + 37, axis.title, "name end")
    return svg


def _name_lines(name: str) -> list[str]:
    """A row's name; that of a pair that is too long for a line has two of them."""
    first, minus, second = name.partition(" − ")
    return [f"{first} −", second] if minus and len(name) > _MOST_OF_NAMES else [name]


def _an_interval(svg: Element, x: float, y: float) -> None:
    line(svg, [(x - 10, y), (x + 10, y)], "interval")
    dots(svg, [(x, y)], "mean")


def histograms(axis: Axis, rows: Sequence[Histogram]) -> Element:
    """Histograms one below the other, over one axis, with bars of one scale of heights.

    What is 0 has no place on an axis of magnitudes, so it has a bar at the left, which ends at the
    top where it is higher than all others; its share stands beside it.
    """
    left, bottom = _SIDE + 2 * _BAR + 28, 26 + _HISTOGRAM_ROW * len(rows)
    svg = picture(bottom + 44)
    highest = max((share for row in rows for _, _, share in row.bars), default=0.0) or 1.0

    def at(exponent: float) -> float:
        return left + axis.place(exponent) * (WIDTH - _SIDE - left)

    def draw(start: float, end: float, share: float, level: float) -> None:
        height = min(share / highest, 1.0) * _BARS_HEIGHT
        if share:
            box(svg, start, level - height, max(1.0, end - start - 1), height, "bar")

    for index, row in enumerate(rows):
        level = 20 + (index + 1) * _HISTOGRAM_ROW - 8
        text(svg, _SIDE, level - _BARS_HEIGHT - 6, f"{row.name}: {row.zeros}", "name")
        draw(_SIDE, _SIDE + 2 * _BAR, row.zero_share, level)
        for start, end, share in row.bars:
            draw(at(start), at(end), share, level)
        line(svg, [(_SIDE, level), (WIDTH - _SIDE, level)], "grid")
    text(svg, _SIDE + _BAR, bottom + 18, "0", "tick halo middle")
    draw_ticks(svg, axis, left, WIDTH - _SIDE, bottom)
    text(svg, WIDTH - _SIDE, bottom + 37, axis.title, "name end")
    return svg


def bars(rows: Sequence[tuple[str, float, str]]) -> Element:
    """Shares of a whole as bars: (name, share, the share in words)."""
    svg = picture(40 * len(rows) + 4)
    for index, (name, share, words) in enumerate(rows):
        top = 40 * index
        text(svg, 2, top + 14, name, "name")
        box(svg, 2, top + 20, max(1.0, share * (WIDTH - LEFT - RIGHT)), 12, "bar")
        text(svg, share * (WIDTH - LEFT - RIGHT) + 10, top + 31, words)
    return svg


def _at(plot: Frame, points: Sequence[tuple[Value, Value]]) -> list[Point]:
    return [plot.at(x, y) for x, y in points]


def _looks() -> list[str]:
    return [f"f{index}" for index in range(1, 6)]


def _legend_of_fifths(mark: Callable[[str], Mark]) -> list[tuple[str, Mark]]:
    return [(name, mark(look)) for name, look in zip(FIFTHS, _looks(), strict=True)]
