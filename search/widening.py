"""Spaces that grow while they are searched: wider ranges, further values.

What was a configuration stays one, so every trial counts as before.
"""

from __future__ import annotations

from collections.abc import Iterator

from ridgeline.search.ranges import FloatParameter, Value
from ridgeline.search.space import Parameter, Space, ValuesParameter

_FIXED = ("log", "logit", "step", "when")


def shrinkings(space: Space, grown: Space) -> Iterator[tuple[str, str]]:
    """Why `grown`, with the same parameters, is not `space` grown: (path of a field, reason)."""
    for name, parameter in grown.items():
        for field, reason in _shrinkings(space[name], parameter):
            yield f"{name}.{field}", reason


def _shrinkings(old: Parameter, new: Parameter) -> Iterator[tuple[str, str]]:
    changed = [field for field in _FIXED if getattr(old, field, None) != getattr(new, field, None)]
    if old.type != new.type:
        changed = ["type"]
    if changed:
        yield from ((field, "cannot change; clone the study") for field in changed)
        return
    for field, value in _ends(old):
        if new.problem(value) is not None:
            yield field, f"leaves out {value!r}, which belongs to the space; it can only grow"
            return


def _ends(parameter: Parameter) -> Iterator[tuple[str, Value]]:
    """Values, by the field that each follows from; a range that has them has all of `parameter`."""
    if isinstance(parameter, ValuesParameter):
        yield from (("values", value) for value in parameter.values)
        return
    yield "low", parameter.low
    yield "high", parameter.top
    if isinstance(parameter, FloatParameter) and parameter.zero:
        yield "zero", 0.0
