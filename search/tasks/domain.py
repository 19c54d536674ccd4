"""What a task accepts for its parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema

from ridgeline.search.fields import Flag, Real, Whole
from ridgeline.search.ranges import FloatParameter, Value, number_text
from ridgeline.search.space import Parameter, ValuesParameter
from ridgeline.search.tasks.kinds import Targets, TargetsKind

Kind = Literal["float", "int", "choice", "flag"]


@dataclass(frozen=True)
class Domain:
    """What a task accepts for one parameter, whatever a study's space says.

    `low` and `high` bound numbers; an open bound is not itself allowed.  `choices` lists the texts
    a choice may take; a flag is true or false.  `listed` demands a finite list of values: each is a
    tensor shape of its own.

    `targets` are those that the parameter is for; None: any.  With others it keeps its default,
    which must change nothing.

    In the annotation of a pydantic field, it is what the field accepts; the field's type has the
    choices then.

    Raises:
        ValueError: an argument is none of what it may be, or nothing lies in the domain.
    """

    kind: Kind
    description: str
    low: float = float("-inf")
    high: float = float("inf")
    open_low: bool = False
    open_high: bool = False
    choices: tuple[str, ...] = ()
    listed: bool = False
    targets: frozenset[TargetsKind] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is {self.kind!r}, not one of {', '.join(get_args(Kind))}")
        if isinstance(self.choices, str):
            raise ValueError(f"choices are {self.choices!r}, a text: give a tuple of texts")
        object.__setattr__(self, "choices", tuple(self.choices))
        if other := [choice for choice in self.choices if not isinstance(choice, str)]:
            raise ValueError(f"choices has {other[0]!r}, which is not a text")
        if self.choices and self.kind != "choice":
            raise ValueError(f'choices are for the kind "choice", not for "{self.kind}"')
        for name, bound in (("low", self.low), ("high", self.high)):
            is_number = isinstance(bound, int | float) and not isinstance(bound, bool)
            if not is_number or math.isnan(bound):
                raise ValueError(f"{name} is {bound!r}, not a number")
        if self.low > self.high or (self.low == self.high and (self.open_low or self.open_high)):
            raise ValueError(f"nothing lies between low, {self.low}, and high, {self.high}")

    def misfit(self, targets: Targets) -> str | None:
        """Why the parameter is not for such targets; None where it is."""
        if self.targets is None or targets.kind in self.targets:
            return None
        return f"is for {' or '.join(sorted(self.targets))}, but the targets are {targets.kind}"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        if self.kind == "choice":
            return handler(source)
        if self.kind == "flag":
            return handler.generate_schema(Flag)
        bounds: dict[str, Any] = {
            "gt" if self.open_low else "ge": self.low,
            "lt" if self.open_high else "le": self.high,
        }
        return handler.generate_schema(
            Annotated[Real if self.kind == "float" else Whole, Field(**bounds)]
        )

    def problem(self, parameter: Parameter) -> str | None:
        """Why a study may not search this range, or None where it may."""
        if isinstance(parameter, ValuesParameter):
            reasons = (self._value_problem(value) for value in parameter.values)
            return next((reason for reason in reasons if reason is not None), None)
        if self.listed or self.kind in ("choice", "flag"):
            return 'must be a finite list: {"type": "values", "values": [...]}'
        if self.kind == "int" and isinstance(parameter, FloatParameter):
            return 'must be whole numbers: use "type": "int"'
        ends: list[float] = [parameter.low, parameter.high]
        if isinstance(parameter, FloatParameter) and parameter.zero:
            ends.append(0.0)
        reasons = (self._value_problem(end) for end in ends)
        return next((reason for reason in reasons if reason is not None), None)

    def problem_of_default(self, value: Value) -> str | None:
        """Why a study that leaves the parameter out may not have this value; None where it may."""
        try:
            return self.problem(ValuesParameter(type="values", values=(value,)))
        except ValidationError:
            return f"{value!r} is no value of a parameter"

    def _value_problem(self, value: bool | int | float | str) -> str | None:
        if self.kind == "choice":
            if value in self.choices:
                return None
            return f"{value!r} is not one of {', '.join(self.choices)}"
        if self.kind == "flag":
            return None if isinstance(value, bool) else f"{value!r} is not true or false"
        if isinstance(value, bool | str):
            return f"{value!r} is not a number"
        if self.kind == "int" and not isinstance(value, int):
            return f"{value!r} is not a whole number"
        below = value <= self.low if self.open_low else value < self.low
        above = value >= self.high if self.open_high else value > self.high
        if below:
            bound = "above" if self.open_low else "at least"
            return f"{number_text(value)} must be {bound} {number_text(self.low)}"
        if above:
            bound = "below" if self.open_high else "at most"
            return f"{number_text(value)} must be {bound} {number_text(self.high)}"
        return None
