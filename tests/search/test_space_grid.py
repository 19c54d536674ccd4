"""Grids: the points of every range, and the cells of their product."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import assume, given

from ridgeline.search.ranges import FloatParameter, IntParameter
from ridgeline.search.space import Parameter, Space, ValuesParameter
from tests.search import strategies


def _float(**fields: Any) -> FloatParameter:
    return FloatParameter.model_validate({"type": "float", **fields})


def _int(**fields: Any) -> IntParameter:
    return IntParameter.model_validate({"type": "int", **fields})


def _values(*values: Any) -> ValuesParameter:
    return ValuesParameter.model_validate({"type": "values", "values": values})


@given(strategies.parameters)
def test_grids_visit_values_in_order_without_repeating(parameter: Parameter) -> None:
    size = parameter.grid_size
    assume(size is not None and size <= 200)
    assert size is not None
    visited = [parameter.grid_value(index) for index in range(size)]
    assert [parameter.problem(value) for value in visited] == [None] * size
    if not isinstance(parameter, ValuesParameter):
        assert [float(value) for value in visited] == sorted({float(value) for value in visited})


@given(strategies.parameters)
def test_grids_reach_both_ends(parameter: Parameter) -> None:
    size = parameter.grid_size
    assume(size is not None)
    assert size is not None
    first, last = parameter.grid_value(0), parameter.grid_value(size - 1)
    if isinstance(parameter, ValuesParameter):
        assert (first, last) == (parameter.values[0], parameter.values[-1])
    elif isinstance(parameter, FloatParameter):
        assert (first, last) == (0 if parameter.zero else parameter.low, parameter.top)
    else:
        assert (first, last) == (parameter.low, parameter.top)


def test_geometric_grids_give_the_decimals_people_mean() -> None:
    parameter = _float(low=1e-5, high=1, log=True, points=6)
    assert [parameter.grid_value(i) for i in range(6)] == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]


@pytest.mark.parametrize(
    ("low", "high", "points", "spacing"),
    [
        (384230484468000.0, 384230484468500.0, 11, 50.0),
        (1e10, 1e10 + 1, 11, 0.1),
        (-384230484468500.0, -384230484468000.0, 11, 50.0),
        (1e-9, 1.0000000001e-9, 11, 1e-20),
    ],
)
def test_points_close_to_each_other_stay_apart(
    low: float, high: float, points: int, spacing: float
) -> None:
    for log in (True, False) if low > 0 else (False,):
        parameter = _float(low=low, high=high, points=points, log=log)
        assert parameter.grid_size == points
        visited = [parameter.grid_value(index) for index in range(points)]
        steps = [after - before for before, after in itertools.pairwise(visited)]
        assert steps == pytest.approx([spacing] * (points - 1), rel=0.1)


def test_points_that_float64_cannot_tell_apart_are_visited_once() -> None:
    low = 1e15
    parameter = _float(low=low, high=low + 0.25, points=11)
    assert [parameter.grid_value(i) for i in range(parameter.grid_size or 0)] == [
        low,
        low + 0.125,
        low + 0.25,
    ]
    space = Space({"a": parameter, "b": _values(1, 2)})
    assert space.num_cells == 6
    neighbours = _float(low=low, high=math.nextafter(low, math.inf), points=1_000, zero=True)
    assert [neighbours.grid_value(i) for i in range(neighbours.grid_size or 0)] == [
        0,
        low,
        low + 0.125,
    ]


def test_a_grid_of_log_odds_is_alike_at_both_ends() -> None:
    parameter = _float(low=0.001, high=0.999, logit=True, points=3)
    assert [parameter.grid_value(i) for i in range(3)] == [0.001, 0.5, 0.999]
    assert parameter.decode(0.5) == pytest.approx(0.5)
    assert 0.9 < parameter.decode(0.75) < 0.99


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"low": 0, "high": 0.5}, "begin above 0"),
        ({"low": 0.1, "high": 1}, "end below 1"),
        ({"low": 0.1, "high": 0.9, "log": True}, "log and logit"),
        ({"low": 0.1, "high": 0.9, "step": 0.1}, "step and logit"),
    ],
)
def test_a_logit_range_lies_between_0_and_1(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        _float(logit=True, **fields)


def test_a_grid_that_crosses_0_visits_0() -> None:
    parameter = _float(low=-0.3, high=0.6, points=10)
    assert [parameter.grid_value(i) for i in range(10)] == [
        -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6,
    ]  # fmt: skip
    assert repr(_float(low=-0.7, high=0.7, points=15).grid_value(7)) == "0.0"


def test_zero_is_one_more_point_of_a_grid() -> None:
    parameter = _float(low=1e-3, high=1e-1, log=True, points=3, zero=True)
    assert [parameter.grid_value(i) for i in range(4)] == [0, 1e-3, 1e-2, 1e-1]
    stepped = _float(low=0.1, high=0.3, step=0.1, zero=True)
    assert [stepped.grid_value(i) for i in range(stepped.grid_size or 0)] == [0, 0.1, 0.2, 0.3]


def test_whole_numbers_may_have_a_step() -> None:
    parameter = _int(low=16, high=100, step=16)
    assert parameter.grid_size == 6
    assert [parameter.grid_value(i) for i in range(6)] == [16, 32, 48, 64, 80, 96]
    assert [parameter.decode(i / 6) for i in range(6)] == [16, 32, 48, 64, 80, 96]
    assert parameter.problem(100) == "must be between 16 and 96"
    assert parameter.problem(40) == "must be 16 plus a multiple of 16"


def test_whole_points_that_coincide_are_visited_once() -> None:
    parameter = _int(low=1, high=10, log=True, points=8)
    assert [parameter.grid_value(i) for i in range(parameter.grid_size)] == [1, 2, 3, 4, 5, 7, 10]


@given(strategies.spaces(strategies.ints | strategies.values, max_size=3))
def test_cells_are_the_product_of_all_points(space: Space) -> None:
    sizes = [parameter.grid_size for _, parameter in space.items()]
    assert None not in sizes
    num_cells = space.num_cells
    assert num_cells == math.prod(size for size in sizes if size is not None)
    assume(num_cells <= 500)
    grids = [[p.grid_value(i) for i in range(p.grid_size or 0)] for _, p in space.items()]
    product = [dict(zip(space.names, cell, strict=True)) for cell in itertools.product(*grids)]
    assert repr([space.cell(index) for index in range(num_cells)]) == repr(product)


def test_cells_of_an_absurd_grid_are_never_listed() -> None:
    axis = _values(*range(100))
    space = Space({f"p{i}": axis for i in range(20)})
    assert space.num_cells == 100**20
    assert set(space.cell(100**20 - 1).values()) == {99}
    assert space.cell(100**19)["p0"] == 1
    for index in (-1, 100**20):
        with pytest.raises(IndexError, match=str(index)):
            space.cell(index)


def test_a_continuous_range_has_no_grid() -> None:
    space = Space({"a": _values(1), "b": _float(low=0, high=1)})
    assert space.num_cells is None
    with pytest.raises(IndexError):
        space.cell(0)
