"""Axes of figures: where a value lies in the unit interval, and what is written there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ridgeline.search.ranges import FloatParameter, Value
from ridgeline.search.space import Config, Parameter, ValuesParameter
from ridgeline.service.reports.wording import number, user_text

T = TypeVar("T")

_LARGEST = 1e300
"""Numbers beyond are drawn as this one: differences of larger ones are not finite."""

_SMALLEST = 1e-290
"""Numbers that differ by less are drawn as one."""

_FEWEST_STEPS = 3
"""Of an axis between its ticks; up to two and a half times as many."""

_MOST_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """One axis of a figure.

    Attributes:
        ticks: (place, label); a place is in [0, 1].
        place: of a value in [0, 1]; one beyond the axis lies at its end.
    """

    title: str
    ticks: tuple[tuple[float, str], ...]
    place: Callable[[Value], float]


@dataclass(frozen=True)
class Span:
    """What of some numbers an axis shows.

    Attributes:
        num_beyond: how many of them are drawn at its ends.
    """

    low: float
    high: float
    num_beyond: int


def span_of(values: Iterable[float], always: Iterable[float] = ()) -> Span:
    """The span in which nearly all numbers lie, so that a few huge ones do not hide the others.

    Leaves out what J. W. Tukey, "Exploratory Data Analysis" (1977), calls far out: more than three
    times the distance of the quartiles away from them.

    Args:
        values: finite ones, at least one here or in `always`.
        always: what the span must have.
    """
    kept = [_drawable(value) for value in always]
    shown = sorted(map(_drawable, values)) or sorted(kept)
    lower, upper = shown[len(shown) // 4], shown[-1 - len(shown) // 4]
    reach = 3 * (upper - lower)
    near = [one for one in shown if lower - reach <= one <= upper + reach] if reach else shown
    low, high = min([*near, *kept]), max([*near, *kept])
    return Span(low, high, sum(not low <= one <= high for one in shown))


def number_axis(title: str, span: Span) -> Axis:
    """An axis of numbers; `title` is shown as it is."""
    low, high = span.low, span.high
    if high - low < _SMALLEST:
        pad = max(abs(low) / 20, _SMALLEST) if low else 0.5
        low, high = low - pad, high + pad

    def place(value: Value) -> float:
        return min(max((_drawable(float(value)) - low) / (high - low), 0.0), 1.0)

    return Axis(title, tuple((place(t), number(t)) for t in _round_numbers(low, high)), place)


def epochs_axis(last_epoch: int) -> Axis:
    """From the first epoch to the last one, at whole numbers."""
    axis = number_axis("epoch", Span(1, max(last_epoch, 2), 0))
    whole = [t for t in _round_numbers(1, max(last_epoch, 2)) if t == int(t) and t >= 1]
    ticks = tuple((axis.place(t), number(t)) for t in dict.fromkeys([1.0, *whole]))
    return Axis(axis.title, ticks, axis.place)


def parameter_axis(name: str, parameter: Parameter) -> Axis:
    """The range of a parameter as samplers see it, so a log range is drawn as one."""
    shown = [v for v in _values_to_name(parameter) if parameter.problem(v) is None]
    ticks = tuple((parameter.encode(value), value_text(value)) for value in shown)
    scale = ""
    if not isinstance(parameter, ValuesParameter) and parameter.log:
        scale = ", log"
    elif isinstance(parameter, FloatParameter) and parameter.logit:
        scale = ", logit"
    return Axis(f"{name}{scale}", ticks, parameter.encode)


def value_text(value: Value) -> str:
    """A value of a parameter for people; a text of theirs as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    return user_text(value) if isinstance(value, str) else number(value)


def value_in(config: Config, name: str) -> str:
    """A parameter's value in a configuration; a dash where it has none."""
    return value_text(config[name]) if name in config else "–"


def thinned(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    step = (len(items) - 1) / (most - 1)
    return [items[round(index * step)] for index in range(most)]


def _values_to_name(parameter: Parameter) -> list[Value]:
    if isinstance(parameter, ValuesParameter):
        return thinned(parameter.values, _MOST_TICKS)
    low, high = parameter.low, parameter.top
    if parameter.log:
        decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        inner: list[float] = thinned([10.0**decade for decade in decades], _MOST_TICKS)
    else:
        inner = _round_numbers(low, high)
    if len(inner) < 2:
        inner = [low, high]
    if not isinstance(parameter, FloatParameter):
        return [int(value) for value in inner if value == int(value)] or [int(low), int(high)]
    return [0.0, *inner] if parameter.zero else list(inner)


def _round_numbers(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within a span."""
    widest = (high - low) / _FEWEST_STEPS
    power = math.floor(math.log10(widest))
    size = next((size for size in (5, 2) if size <= widest / 10.0**power), 1)
    step = size * 10.0**power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded, since 3 * 0.1 is 0.30000000000000004.
    return [round(index * step, max(0, 1 - power)) + 0.0 for index in range(first, last + 1)]


def _drawable(value: float) -> float:
    return min(max(value, -_LARGEST), _LARGEST)
