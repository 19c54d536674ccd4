"""Ranges: the unit interval, the grid and the column of every parameter agree."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from ridgeline.search.fields import MAX_INT
from ridgeline.search.ranges import ZERO_SHARE, FloatParameter, IntParameter, Value
from ridgeline.search.space import Parameter, Space, ValuesParameter
from tests.search import strategies


def _float(**fields: Any) -> FloatParameter:
    return FloatParameter.model_validate({"type": "float", **fields})


def _int(**fields: Any) -> IntParameter:
    return IntParameter.model_validate({"type": "int", **fields})


def _values(*values: Any) -> ValuesParameter:
    return ValuesParameter.model_validate({"type": "values", "values": values})


def _same(one: Value, other: Value) -> bool:
    return type(one) is type(other) and one == other


# Decode and encode


@given(strategies.parameters, strategies.units)
def test_every_point_of_the_unit_interval_is_a_value(parameter: Parameter, unit: float) -> None:
    assert parameter.problem(parameter.decode(unit)) is None


@given(strategies.parameters)
def test_both_ends_of_the_unit_interval_are_values(parameter: Parameter) -> None:
    for unit in (0.0, math.nextafter(1, 0), 1.0):
        assert parameter.problem(parameter.decode(unit)) is None


@given(strategies.parameters, strategies.units)
def test_decoding_undoes_encoding(parameter: Parameter, unit: float) -> None:
    value = parameter.decode(unit)
    encoded = parameter.encode(value)
    assert 0 <= encoded <= 1
    again = parameter.decode(encoded)
    if isinstance(parameter, FloatParameter) and parameter.step is None and value != 0:
        assert isinstance(value, float)
        scale = value if parameter.log else max(abs(parameter.low), abs(parameter.high))
        assert again == pytest.approx(value, rel=1e-9, abs=1e-12 * abs(scale))
    else:
        assert _same(again, value)


@given(strategies.parameters, strategies.units, strategies.units)
def test_decoding_keeps_order(parameter: Parameter, one: float, other: float) -> None:
    assume(not isinstance(parameter, ValuesParameter) or parameter.ordered)
    low, high = sorted((one, other))
    assert float(parameter.decode(low)) <= float(parameter.decode(high))


@pytest.mark.parametrize("unit", [0.0, 0.1, 0.25, 0.7, 0.999])
@pytest.mark.parametrize("log", [True, False])
def test_encoding_undoes_decoding_of_a_continuous_range(log: bool, unit: float) -> None:
    parameter = _float(low=1e-5, high=10, log=log)
    assert parameter.encode(parameter.decode(unit)) == pytest.approx(unit, abs=1e-12)


def test_log_ranges_reach_over_all_of_float64() -> None:
    parameter = _float(low=1e-300, high=1e300, log=True)
    assert parameter.decode(0.5) == pytest.approx(1)
    assert parameter.encode(1.0) == pytest.approx(0.5)


def test_ranges_narrower_than_their_logarithms_are_refused() -> None:
    with pytest.raises(ValidationError, match="too close"):
        _float(low=1e10, high=math.nextafter(1e10, math.inf), log=True)


def test_zero_has_its_share_of_the_unit_interval() -> None:
    parameter = _float(low=1e-6, high=1e-2, log=True, zero=True)
    units = [i / 10_000 for i in range(10_000)]
    zeros = [unit for unit in units if parameter.decode(unit) == 0]
    assert len(zeros) / len(units) == ZERO_SHARE
    assert parameter.decode(ZERO_SHARE) == 1e-6
    assert parameter.decode(parameter.encode(0)) == 0.0


def test_whole_numbers_share_the_unit_interval_evenly() -> None:
    parameter = _int(low=-1, high=2)
    assert [parameter.decode(i / 8) for i in range(8)] == [-1, -1, 0, 0, 1, 1, 2, 2]


def test_a_log_range_of_whole_numbers_reaches_both_ends() -> None:
    parameter = _int(low=1, high=1000, log=True)
    assert parameter.decode(0) == 1
    assert parameter.decode(math.nextafter(1, 0)) == 1000
    assert parameter.decode(0.5) < 60


# Columns


@given(strategies.parameters, strategies.units)
def test_columns_lose_nothing(parameter: Parameter, unit: float) -> None:
    value = parameter.decode(unit)
    column = parameter.to_column(value)
    assert isinstance(column, float)
    assert _same(parameter.from_column(json.loads(json.dumps(column))), value)


def test_the_largest_whole_numbers_keep_their_column() -> None:
    parameter = _int(low=-MAX_INT, high=MAX_INT)
    for value in (-MAX_INT, -MAX_INT + 1, MAX_INT - 1, MAX_INT):
        assert _same(parameter.from_column(parameter.to_column(value)), value)


def test_a_whole_number_for_a_float_becomes_one() -> None:
    space = Space(
        {"rate": _float(low=0, high=1), "share": _values(0.5, 1.0), "size": _values(1, 2.5)}
    )
    # JavaScript writes 1.0 as 1.
    config: dict[str, Value] = {"size": 1, "share": 1, "rate": 1}
    assert space.problems(config) == []
    ordered = space.ordered(config)
    assert list(ordered) == ["rate", "share", "size"]
    assert repr(ordered) == "{'rate': 1.0, 'share': 1.0, 'size': 1}"


# Steps


def test_steps_are_the_decimals_people_wrote() -> None:
    parameter = _float(low=0, high=1, step=0.1)
    levels = [parameter.level(i) for i in range(parameter.num_values or 0)]
    assert levels == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_a_step_may_not_reach_high() -> None:
    parameter = _float(low=0.1, high=1, step=0.4)
    assert parameter.num_values == 3
    assert parameter.top == 0.9
    assert parameter.problem(1) == "must be between 0.1 and 0.9"


def test_one_step_may_span_the_range() -> None:
    # 0.3 - 0.1 is a little less than 0.2 in float64.
    assert _float(low=0.1, high=0.3, step=0.2).num_values == 2


def test_products_of_steps_are_accepted_as_computed() -> None:
    parameter = _float(low=0, high=1, step=0.1)
    for number in range(11):
        assert parameter.problem(number * 0.1) is None
    assert parameter.problem(0.15) == "must be 0 plus a multiple of 0.1"


def test_a_step_of_many_digits() -> None:
    assert _float(low=0, high=1, step=1 / 3).num_values == 4
    with pytest.raises(ValidationError, match="too many digits"):
        _float(low=1_000_000.1, high=1_000_001.2, step=1 / 3)


@pytest.mark.parametrize("step", [1e-300, 5e-324, 0.99e-7])
def test_a_step_too_small_to_tell_apart(step: float) -> None:
    with pytest.raises(ValidationError, match="too small"):
        _float(low=0, high=1, step=step)


# What is not a value


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (_float(low=0, high=1), True),
        (_float(low=0, high=1), "0.5"),
        (_float(low=0, high=1), None),
        (_float(low=0, high=1), math.nan),
        (_float(low=0, high=1), math.inf),
        (_float(low=0, high=1), -1e-12),
        (_float(low=0, high=1), 10**400),
        (_float(low=0.5, high=1), 0),
        (_float(low=0.5, high=1, zero=True), 0.1),
        (_float(low=0.5, high=1, zero=True), False),
        (_int(low=0, high=1), True),
        (_int(low=0, high=1), 1.0),
        (_int(low=0, high=1), "1"),
        (_int(low=0, high=1), 2),
        (_values(1, 2), True),
        (_values(1, 2), 1.0),
        (_values(1, 2), "1"),
        (_values(1, 2), [1]),
        (_values(1, 2), None),
        (_values(True, False), 1),
        (_values(True, False), 0.0),
        (_values("1", "true"), 1),
        (_values("1", "true"), True),
    ],
)
def test_what_a_range_refuses(parameter: Parameter, value: object) -> None:
    reason = parameter.problem(value)
    assert reason is not None
    assert reason.startswith("must be ")


def test_a_refusal_lists_the_values_as_json() -> None:
    assert _values(True, "λ", 3).problem(4) == 'must be one of true, "λ", 3'
    assert str(_values(*range(1000)).problem(-1)).endswith("18, 19, ...")


def test_problems_name_unknown_and_missing_parameters() -> None:
    space = Space({"a": _int(low=0, high=1), "b": _int(low=0, high=1)})
    assert space.problems({"a": 5, "c": 1}) == [
        ("c", "is not a parameter of this study's space"),
        ("a", "must be between 0 and 1"),
        ("b", "is missing"),
    ]


# Lists


def test_numbers_are_sorted_and_categories_are_not() -> None:
    assert _values(3, 0.5, 2).values == (0.5, 2, 3)
    assert _values("b", "a").values == ("b", "a")
    assert _values(True, False).values == (True, False)
    assert not _values("b", 1).ordered
    assert not _values(True).ordered


@pytest.mark.parametrize(
    "values", [(1, True), (False, 0), (0.0, False), (1, 1.0), (0.0, -0.0), ("a", "a"), (2, 2)]
)
def test_values_that_python_takes_for_equal_are_refused(values: tuple[Value, ...]) -> None:
    with pytest.raises(ValidationError, match="distinct"):
        _values(*values)


@given(strategies.values)
def test_lists_keep_the_type_of_every_value(parameter: ValuesParameter) -> None:
    text = json.dumps(parameter.model_dump(mode="json"))
    again = ValuesParameter.model_validate(json.loads(text))
    assert repr(again) == repr(parameter)
    for value in parameter.values:
        assert _same(parameter.from_column(parameter.to_column(value)), value)


@given(strategies.spaces(), st.data())
def test_spaces_survive_json(space: Space, data: st.DataObject) -> None:
    again = Space.model_validate(json.loads(json.dumps(space.model_dump(mode="json"))))
    assert repr(again) == repr(space)
    config = data.draw(strategies.configs(space))
    assert again.problems(json.loads(json.dumps(config))) == []
    assert repr(again.ordered(config)) == repr(config)
