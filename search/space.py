"""Search spaces: the parameters searched, by name, and the grid of their values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from ridgeline.search.fields import Flag, ParameterName, Real, Text, Whole
from ridgeline.search.ranges import FloatParameter, IntParameter, Range, Value

Config = dict[str, Value]
"""One configuration: a value for every parameter of a space."""

MAX_VALUES = 1_000
MAX_PARAMETERS = 100
MAX_VALUES_OF_ALL = 10_000
"""Listed values of all parameters together; what a list or a suggestion costs grows with them."""


def _scalar(value: object, handler: ValidatorFunctionWrapHandler) -> Value:
    """One reason for a bad value, where pydantic gives one for each member of the union."""
    try:
        checked: Value | None = handler(value)
    except ValidationError:
        checked = None
    if checked is None or (isinstance(value, int) and not isinstance(checked, int)):
        raise ValueError(
            "must be true, false, a finite number (whole ones up to 2**53) "
            "or a text of 1 to 200 printable characters"
        )
    return checked


class ValuesParameter(Range):
    """A finite list of values: ordered where all are numbers, otherwise categories.

    Batch size is always one of these, since each batch size is a tensor shape of its own.
    """

    type: Literal["values"]
    values: Annotated[
        tuple[Annotated[Flag | Whole | Real | Text, WrapValidator(_scalar)], ...],
        Field(min_length=1, max_length=MAX_VALUES),
    ]

    @field_validator("values")
    @classmethod
    def _distinct_and_sorted(cls, values: tuple[Value, ...]) -> tuple[Value, ...]:
        # Python, SQL and Optuna all take true for 1: a list with both could not be told apart.
        if len(set(values)) != len(values):
            raise ValueError("the values must be distinct; true counts as 1 and false as 0")
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            return tuple(sorted(values, key=float))
        return values

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, so that neighbours resemble each other."""
        return not any(isinstance(v, bool | str) for v in self.values)

    @property
    def grid_size(self) -> int:
        return len(self.values)

    def grid_value(self, index: int) -> Value:
        return self.values[index]

    def decode(self, unit: float) -> Value:
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def encode(self, value: Value) -> float:
        return (self.to_column(value) + 0.5) / len(self.values)

    def problem(self, value: object) -> str | None:
        for known in self.values:
            same_type = type(known) is type(value)
            # JavaScript writes 1.0 as 1.
            if known == value and (same_type or (type(known), type(value)) == (float, int)):
                return None
        listed = ", ".join(json.dumps(known, ensure_ascii=False) for known in self.values[:20])
        return f"must be one of {listed}{', ...' if len(self.values) > 20 else ''}"

    def to_column(self, value: Value) -> float:
        return float(self.values.index(value))

    def from_column(self, number: float) -> Value:
        return self.values[int(number)]


Parameter = Annotated[FloatParameter | IntParameter | ValuesParameter, Field(discriminator="type")]


class Space(RootModel[dict[ParameterName, Parameter]]):
    """The parameters searched, by name; their order is the order of the grid's digits."""

    model_config = ConfigDict(frozen=True)

    root: Annotated[dict[ParameterName, Parameter], Field(min_length=1, max_length=MAX_PARAMETERS)]

    def __getitem__(self, name: str) -> FloatParameter | IntParameter | ValuesParameter:
        return self.root[name]

    def __contains__(self, name: object) -> bool:
        return name in self.root

    def __len__(self) -> int:
        return len(self.root)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.root)

    def items(self) -> Iterator[tuple[str, FloatParameter | IntParameter | ValuesParameter]]:
        return iter(self.root.items())

    @property
    def num_listed(self) -> int:
        """How many values are listed, for all parameters together."""
        listed = (p for p in self.root.values() if isinstance(p, ValuesParameter))
        return sum(len(parameter.values) for parameter in listed)

    @property
    def num_cells(self) -> int | None:
        """The number of the grid's cells; None where a range names no points."""
        sizes = [parameter.grid_size for parameter in self.root.values()]
        return math.prod(s for s in sizes if s is not None) if None not in sizes else None

    def cell(self, index: int) -> Config:
        """The grid's cell `index` as a mixed-radix number, the last parameter changing fastest.

        Raises:
            IndexError: the grid has no such cell.
        """
        num_cells = self.num_cells
        if num_cells is None or not 0 <= index < num_cells:
            raise IndexError(f"the grid has no cell {index}")
        digits: Config = {}
        for name, parameter in reversed(self.root.items()):
            assert parameter.grid_size is not None
            index, digit = divmod(index, parameter.grid_size)
            digits[name] = parameter.grid_value(digit)
        return {name: digits[name] for name in self.root}

    def decode(self, units: Mapping[str, float]) -> Config:
        """The configuration at a point of the unit cube, given by parameter name."""
        return {name: parameter.decode(units[name]) for name, parameter in self.root.items()}

    def ordered(self, config: Mapping[str, Value]) -> Config:
        """`config`, maybe of some parameters only, in the order of the space and in its types."""
        return {
            name: parameter.from_column(parameter.to_column(config[name]))
            for name, parameter in self.root.items()
            if name in config
        }

    def problems(
        self, config: Mapping[str, Any], *, missing: str | None = "is missing"
    ) -> list[tuple[str, str]]:
        """Why `config` is not a configuration of this space, as (parameter, reason) pairs.

        `missing` is the reason for a parameter that it lacks; None: it may lack some.
        """
        found = [
            (name, "is not a parameter of this study's space")
            for name in config
            if name not in self.root
        ]
        for name, parameter in self.root.items():
            if name not in config:
                if missing is not None:
                    found.append((name, missing))
            elif (reason := parameter.problem(config[name])) is not None:
                found.append((name, reason))
        return found
