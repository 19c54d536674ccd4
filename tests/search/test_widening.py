"""Which spaces are others that have grown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.space import Parameter, Space
from ridgeline.search.widening import shrinkings


def space(**fields: Any) -> Space:
    return Space.model_validate({"x": fields})


def ints(low: int, high: int, **fields: Any) -> Space:
    return space(type="int", low=low, high=high, **fields)


def all_of(parameter: Parameter) -> set[Any]:
    assert parameter.num_values is not None
    return {parameter.value_at(level) for level in range(parameter.num_values)}


@st.composite
def finite(draw: st.DrawFn) -> Space:
    if draw(st.booleans()):
        numbers = st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True)
        return space(type="values", values=draw(numbers))
    low, step = draw(st.integers(-3, 3)), draw(st.sampled_from([1, 2, 3]))
    high = low + draw(st.integers(step, 9))
    if draw(st.booleans()):
        return ints(low, high, step=step)
    zero = low > 0 and draw(st.booleans())
    return space(type="float", low=low / 4, high=high / 4, step=step / 4, zero=zero)


@given(finite(), finite())
def test_a_space_has_grown_where_it_has_all_values(old: Space, new: Space) -> None:
    fixed = {"type", "step"}
    fields = {path.partition(".")[2] for path, _ in shrinkings(old, new)}
    if not fields & fixed:
        assert (not fields) == (all_of(old["x"]) <= all_of(new["x"]))
    else:
        assert fields <= fixed


@given(
    st.floats(0.01, 1), st.floats(0.01, 1), st.floats(1.5, 9), st.floats(1.5, 9), st.floats(0, 1)
)
def test_a_range_has_grown_where_both_ends_have(
    old_low: float, new_low: float, old_high: float, new_high: float, unit: float
) -> None:
    old = space(type="float", low=old_low, high=old_high, log=True)
    new = space(type="float", low=new_low, high=new_high, log=True)
    has_grown = new_low <= old_low and new_high >= old_high
    assert (not [*shrinkings(old, new)]) == has_grown
    if has_grown:
        assert new["x"].problem(old["x"].decode(min(unit, 0.999))) is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"log": True}, "x.log"),
        ({"low": 2}, "x.low"),
        ({"high": 6}, "x.high"),
        ({"type": "float"}, "x.type"),
    ],
)
def test_the_field_is_named(change: dict[str, Any], field: str) -> None:
    old = {"type": "int", "low": 1, "high": 8}
    assert [path for path, _ in shrinkings(space(**old), space(**{**old, **change}))] == [field]


def test_what_says_where_to_look_may_change() -> None:
    old = space(type="float", low=0.1, high=1.0, points=3)
    new = space(type="float", low=0.1, high=1.0, zero=True, prior={"around": 0.5})
    assert not [*shrinkings(old, new)]
    assert [path for path, _ in shrinkings(new, old)] == ["x.zero"]
