"""Axes: every finite number has its place, and ticks are round and in order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ridgeline.search.space import Parameter
from ridgeline.service.reports.axes import (
    Axis,
    Span,
    epochs_axis,
    number_axis,
    parameter_axis,
    span_of,
    thinned,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def labels(axis: Axis) -> list[str]:
    return [label for _, label in axis.ticks]


def check(axis: Axis) -> None:
    places = [place for place, _ in axis.ticks]
    assert all(0 <= place <= 1 for place in places)
    assert all(before <= after for before, after in pairwise(places))


@given(st.lists(FINITE, min_size=1), st.lists(FINITE, max_size=3))
def test_any_numbers_have_an_axis(values: list[float], always: list[float]) -> None:
    span = span_of(values, always)
    axis = number_axis("x", span)
    check(axis)
    assert len(axis.ticks) <= 12
    assert all(0 <= axis.place(value) <= 1 for value in values + always)
    assert 0 <= span.num_beyond < len(values)


def test_ticks_are_round() -> None:
    assert labels(number_axis("x", Span(0.83, 0.992, 0))) == ["0.85", "0.9", "0.95"]
    assert labels(number_axis("x", Span(-1, 1, 0))) == ["-1", "-0.5", "0", "0.5", "1"]
    assert labels(number_axis("x", Span(0, 10_000, 0))) == [
        "0",
        "2000",
        "4000",
        "6000",
        "8000",
        "10000",
    ]
    assert labels(epochs_axis(1)) == ["1", "2"]
    assert labels(epochs_axis(20)) == ["1", "5", "10", "15", "20"]


def test_a_few_far_numbers_do_not_hide_the_others() -> None:
    near = [0.9 + index / 1_000 for index in range(50)]
    assert span_of([*near, 1e300]) == Span(near[0], near[-1], 1)
    assert span_of([*near, 1e300], [5.0]) == Span(near[0], 5.0, 1)
    assert span_of([1.0] * 9 + [2.0]) == Span(1.0, 2.0, 0)
    assert span_of([], [3.0]) == Span(3.0, 3.0, 0)


PARAMETERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "log": (
        {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        ["0.0001", "0.001", "0.01", "0.1"],
    ),
    "within one decade": ({"type": "float", "low": 2, "high": 7, "log": True}, ["2", "7"]),
    "with a zero": (
        {"type": "float", "low": 1e-6, "high": 1e-4, "log": True, "zero": True},
        ["0", "1e-06", "1e-05", "0.0001"],
    ),
    "linear": ({"type": "float", "low": 0, "high": 0.5}, ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
    "in steps": ({"type": "float", "low": 0.3, "high": 0.9, "step": 0.3}, ["0.6"]),
    "whole": ({"type": "int", "low": 1, "high": 3}, ["1", "2", "3"]),
    "whole and large": (
        {"type": "int", "low": 7, "high": 2_000, "log": True},
        ["10", "100", "1000"],
    ),
    "listed": ({"type": "values", "values": [16, 32]}, ["16", "32"]),
    "of texts": ({"type": "values", "values": ["a", True, 0.5]}, ["a", "true", "0.5"]),
    "many": (
        {"type": "values", "values": list(range(100))},
        ["0", "20", "40", "59", "79", "99"],
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_axes_of_parameters(name: str) -> None:
    data, expected = PARAMETERS[name]
    parameter = TypeAdapter[Parameter](Parameter).validate_python(data)
    axis = parameter_axis("x", parameter)
    check(axis)
    assert labels(axis) == expected
    assert axis.title == ("x, log" if data.get("log") else "x")


@given(st.lists(st.integers()), st.integers(2, 20))
def test_thinned_keeps_both_ends(items: list[int], most: int) -> None:
    found = thinned(items, most)
    assert len(found) == min(len(items), most)
    assert found[:1] == items[:1]
    assert found[-1:] == items[-1:]
