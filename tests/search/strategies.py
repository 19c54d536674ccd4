"""Parameters, spaces and configurations of every kind, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from ridgeline.search.fields import MAX_INT
from ridgeline.search.ranges import ZERO_SUFFIX, FloatParameter, IntParameter
from ridgeline.search.space import Config, Parameter, Space, ValuesParameter

units = st.floats(0, 1, exclude_max=True)

_floats = st.floats(-1e6, 1e6) | st.floats(allow_nan=False, allow_infinity=False)
_scalars = (
    st.booleans()
    | st.integers(-MAX_INT, MAX_INT)
    | _floats
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=8)
)


def _valid(kind: type[Any], fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except ValidationError:
        return None


_ranges = st.tuples(_floats, _floats).map(sorted)
_positive = st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)).map(sorted)
_points = st.none() | st.integers(2, 12)
_steps = st.integers(1, 9)


@st.composite
def _continuous(draw: st.DrawFn) -> dict[str, Any]:
    log, zero = draw(st.booleans()), draw(st.booleans())
    low, high = draw(_positive if log or zero else _ranges)
    points = draw(_points)
    return {
        "type": "float",
        "low": low,
        "high": high,
        "log": log,
        "zero": zero,
        "points": points,
    }


@st.composite
def _shares(draw: st.DrawFn) -> dict[str, Any]:
    ends = st.floats(1e-6, 1 - 1e-6).map(lambda end: round(end, 9))
    low, high = sorted((draw(ends), draw(ends)))
    return {
        "type": "float",
        "low": low,
        "high": high,
        "logit": True,
        "zero": draw(st.booleans()),
        "points": draw(_points),
    }


@st.composite
def _stepped(draw: st.DrawFn) -> dict[str, Any]:
    """Decimals, as people write them."""
    scale = 10.0 ** draw(st.integers(-6, 3))
    low = draw(st.integers(-50, 50))
    step = draw(st.integers(1, 20))
    extra = draw(st.integers(0, step - 1))
    high = low + step * draw(st.integers(1, 60)) + extra
    return {
        "type": "float",
        "low": float(f"{low * scale:.12g}"),
        "high": float(f"{high * scale:.12g}"),
        "step": float(f"{step * scale:.12g}"),
        "zero": low > 0 and draw(st.booleans()),
    }


@st.composite
def _whole(draw: st.DrawFn) -> dict[str, Any]:
    log = draw(st.booleans())
    ends = st.integers(1 if log else -(2**40), 2**40) | st.integers(1 if log else -20, 20)
    low, high = sorted((draw(ends), draw(ends)))
    spaced = draw(st.fixed_dictionaries({"points": _points}) | st.builds(dict, step=_steps))
    return {"type": "int", "low": low, "high": high, "log": log, **spaced}


def _parameters(
    kind: type[Any], fields: st.SearchStrategy[dict[str, Any]]
) -> st.SearchStrategy[Any]:
    return fields.map(lambda chosen: _valid(kind, chosen)).filter(lambda made: made is not None)


floats: st.SearchStrategy[FloatParameter] = _parameters(
    FloatParameter, _continuous() | _shares() | _stepped()
)
ints: st.SearchStrategy[IntParameter] = _parameters(IntParameter, _whole())
values: st.SearchStrategy[ValuesParameter] = _parameters(
    ValuesParameter,
    st.fixed_dictionaries(
        {
            "type": st.just("values"),
            "values": st.lists(_scalars, min_size=1, max_size=8)
            | st.lists(st.integers(1, 512), min_size=1, max_size=8)
            | st.lists(st.sampled_from([True, False, 0, 1, 1.0, "1", "true"]), min_size=1),
        }
    ),
)
parameters: st.SearchStrategy[Parameter] = floats | ints | values

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,8}", fullmatch=True)


def spaces(
    of: st.SearchStrategy[Parameter] = parameters, max_size: int = 4
) -> st.SearchStrategy[Space]:
    return st.dictionaries(names, of, min_size=1, max_size=max_size).map(Space)


@st.composite
def configs(draw: st.DrawFn, space: Space) -> Config:
    return space.decode({name: draw(units) for name in space.names})


def zeros_have_names(space: Space) -> bool:
    """Whether no parameter has the name that Optuna's tables need for another's 0."""
    return not any(name + ZERO_SUFFIX in space for name in space.names)
