"""Parameters that belong to some configurations only: what their `when` may say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from ridgeline.search.ranges import Value, When


class Conditional(Protocol):
    """What is read of a parameter here."""

    @property
    def when(self) -> When | None: ...
    @property
    def type(self) -> str: ...
    def problem(self, value: object) -> str | None: ...


def condition_problems(
    parameters: Mapping[str, Conditional],
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong with the conditions of parameters, as (path below the space, reason) pairs."""
    is_sound = True
    for name, parameter in parameters.items():
        for other, values in (parameter.when or {}).items():
            for path, reason in _problems_of_one(parameters, other, values):
                is_sound = False
                yield (name, "when", other, *path), reason
    if is_sound:
        for name in sorted(
            set(parameters) - set(parents_first(parameters)), key=list(parameters).index
        ):
            yield (name, "when"), "goes round in a circle: the parameter depends on itself"


def _problems_of_one(
    parameters: Mapping[str, Conditional], other: str, values: Sequence[Value]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if other not in parameters:
        yield (), "is not a parameter of the space"
    elif parameters[other].type != "values":
        yield (), "must be a parameter of type values"
    else:
        for index, value in enumerate(values):
            if (reason := parameters[other].problem(value)) is not None:
                yield (index,), reason


def parents_first(parameters: Mapping[str, Conditional]) -> tuple[str, ...]:
    """The names in their order, but each after those that its `when` names.

    Names whose conditions go round in a circle are left out.
    """
    order: dict[str, None] = {}
    waiting = list(parameters)
    while waiting:
        ready = next(
            (name for name in waiting if order.keys() >= (parameters[name].when or {}).keys()), None
        )
        if ready is None:
            break
        order[ready] = None
        waiting.remove(ready)
    return tuple(order)


def in_words(when: When) -> str:
    """`optimizer is "sgd" and layers is 2 or 3`."""
    return " and ".join(
        f"{name} is {' or '.join(json.dumps(v, ensure_ascii=False) for v in values)}"
        for name, values in when.items()
    )
