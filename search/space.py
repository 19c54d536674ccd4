"""Search spaces: the parameters searched, by name, and the grid of their values.

A parameter with `when` belongs only to configurations in which each parameter that is named there
has one of the values there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from ridgeline.search.conditions import condition_problems, in_words, parents_first
from ridgeline.search.constraints import Constraint
from ridgeline.search.fields import ParameterName
from ridgeline.search.ranges import (
    MAX_VALUES,
    FloatParameter,
    IntParameter,
    Range,
    Scalar,
    Value,
    When,
)

if TYPE_CHECKING:
    from ridgeline.search.cells import Digit, Listing

Config = dict[str, Value]
"""One configuration: a value for every parameter that belongs to it, in the order of the space."""

MAX_PARAMETERS = 100
MAX_VALUES_OF_ALL = 10_000
"""Listed values of all parameters together; what a list or a suggestion costs grows with them."""


class ValuesParameter(Range):
    """A finite list of values: ordered where all are numbers, otherwise categories.

    Batch size is always one of these, since each batch size is a tensor shape of its own.
    """

    type: Literal["values"]
    values: Annotated[
        tuple[Scalar, ...],
        Field(min_length=1, max_length=MAX_VALUES),
    ]
    when: When | None = None

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
    def num_values(self) -> int:
        return len(self.values)

    @property
    def grid_size(self) -> int:
        return len(self.values)

    def grid_value(self, index: int) -> Value:
        return self.values[index]

    def value_at(self, level: int) -> Value:
        return self.values[level]

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
    """The parameters searched, by name; their order is the order of the grid's digits.

    A study's constraints are the space's too, though they are no part of what a space is read from.
    """

    model_config = ConfigDict(frozen=True)

    root: Annotated[dict[ParameterName, Parameter], Field(min_length=1, max_length=MAX_PARAMETERS)]
    _constraints: tuple[Constraint, ...] = PrivateAttr(())

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
    def is_conditional(self) -> bool:
        """Whether some configurations lack parameters."""
        return any(parameter.when is not None for parameter in self.root.values())

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What every configuration keeps."""
        return self._constraints

    @property
    def is_plain(self) -> bool:
        """Whether any values of its parameters are a configuration."""
        return not self.is_conditional and not self._constraints

    def constrained(self, constraints: Sequence[Constraint]) -> Space:
        """The same parameters with these constraints, whose names must be numbers of the space."""
        space = Space.model_construct(self.root)
        space._constraints = tuple(constraints)
        return space

    def narrowed(self, config: Mapping[str, Value]) -> Space:
        """The part of the space that has these values, of parameters that belong together."""
        return Space.model_construct(
            {
                name: ValuesParameter(type="values", values=(config[name],), when=parameter.when)
                if name in config
                else parameter
                for name, parameter in self.root.items()
            }
        ).constrained(self._constraints)

    def is_number(self, name: str) -> bool:
        """Whether a parameter takes numbers alone, as constraints need them."""
        parameter = self.root[name]
        return not isinstance(parameter, ValuesParameter) or parameter.ordered

    def broken(self, config: Mapping[str, Any]) -> list[Constraint]:
        """The constraints that values of parameters break; one that lacks a value is kept."""
        return [
            constraint
            for constraint in self._constraints
            if all(name in config for name in constraint.names)
            and not constraint.holds([float(config[name]) for name in constraint.names])
        ]

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The names, each after those that its `when` names."""
        return parents_first(self.root)

    def belongs(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether a parameter belongs to a configuration, by those that its `when` names."""
        when = self.root[name].when or {}
        return all(other in config and config[other] in values for other, values in when.items())

    @property
    def num_cells(self) -> int | None:
        """The number of the grid's cells; None where a range names no points.

        With conditions or constraints they are counted up to `cells.MAX_LISTED` + 1; see
        `has_known_cells`.
        """
        sizes = [parameter.grid_size for parameter in self.root.values()]
        if None in sizes:
            return None
        if not self.is_plain:
            return len(self._cells.levels_md) + (not self._cells.is_whole)
        return math.prod(s for s in sizes if s is not None)

    @property
    def has_known_cells(self) -> bool:
        """Whether the cells of a grid that keep the constraints could be found."""
        return self.is_plain or self.num_cells is None or not self._cells.is_cut

    def cell(self, index: int) -> Config:
        """The grid's cell `index`, the last parameter changing fastest.

        There is one for each configuration, in the order of `order`.

        Raises:
            IndexError: the grid has no such cell, or it is not among those that are counted.
        """
        num_cells = self.num_cells
        if num_cells is None or not 0 <= index < num_cells:
            raise IndexError(f"the grid has no cell {index}")
        if not self.is_plain:
            levels = zip(self.root.items(), self._cells.levels_md[index].tolist(), strict=True)
            return {name: its.grid_value(level) for (name, its), level in levels if level >= 0}
        digits: Config = {}
        for name, parameter in reversed(self.root.items()):
            assert parameter.grid_size is not None
            index, digit = divmod(index, parameter.grid_size)
            digits[name] = parameter.grid_value(digit)
        return {name: digits[name] for name in self.root}

    @cached_property
    def configurations(self) -> Listing:
        """The first configurations of a finite space, as levels of its parameters."""
        sizes = [parameter.num_values or 0 for parameter in self.root.values()]
        return self._listing(sizes, lambda parameter, level: parameter.value_at(level))

    @cached_property
    def digits(self) -> Sequence[Digit]:
        """The parameters as digits of the number of a configuration, without a size."""
        import numpy as np  # which no command should wait for

        from ridgeline.search.cells import Digit

        found = []
        for parameter in self.root.values():
            parents = []
            for other, values in (parameter.when or {}).items():
                parent = self.root[other]
                assert isinstance(parent, ValuesParameter)
                allowed = np.array([value in values for value in parent.values])
                parents.append((self.names.index(other), allowed))
            found.append(Digit(0, parents))
        return found

    def decode(self, units: Mapping[str, float]) -> Config:
        """The configuration at a point of the unit cube, given by parameter name."""
        return self.completed({}, units.__getitem__)

    def completed(self, values: Mapping[str, Value], unit: Callable[[str], float]) -> Config:
        """The configuration with these values, as far as they belong to it.

        Args:
            unit: where on its axis each parameter is that has no value.
        """
        found: Config = {}
        for name in self.order:
            if self.belongs(name, found):
                found[name] = values[name] if name in values else self.root[name].decode(unit(name))
        return {name: found[name] for name in self.root if name in found}

    def to_columns(self, config: Mapping[str, Value]) -> list[float]:
        """The value of each parameter as one float64, NaN where it is lacking."""
        return [
            parameter.to_column(config[name]) if name in config else math.nan
            for name, parameter in self.root.items()
        ]

    def from_columns(self, columns: Sequence[float]) -> Config:
        """The inverse of `to_columns`."""
        return {
            name: parameter.from_column(column)
            for (name, parameter), column in zip(self.root.items(), columns, strict=True)
            if not math.isnan(column)
        }

    def ordered(self, config: Mapping[str, Value]) -> Config:
        """`config`, maybe of some parameters only, in the order of the space and in its types."""
        return self.from_columns(self.to_columns(config))

    def lacks(self, config: Mapping[str, Value]) -> bool:
        """Whether a parameter that belongs to `config` is missing there."""
        return any(name not in config and self.belongs(name, config) for name in self.root)

    def problems(
        self, config: Mapping[str, Any], *, missing: str | None = "is missing"
    ) -> list[tuple[str, str]]:
        """Why `config` is not a configuration of this space, as (parameter, reason) pairs.

        `missing` is the reason for a parameter that it lacks; None: it may lack some, but none that
        another one there depends on.
        """
        found = [
            (name, "is not a parameter of this study's space")
            for name in config
            if name not in self.root
        ]
        for name, parameter in self.root.items():
            if name not in config:
                if missing is not None and self.belongs(name, config):
                    found.append((name, missing))
            elif (reason := parameter.problem(config[name])) is not None:
                found.append((name, reason))
            elif not self.belongs(name, config):
                assert parameter.when is not None
                others = [other for other in parameter.when if other not in config]
                reason = f"belongs only where {in_words(parameter.when)}"
                if others:
                    reason += f"; give {', '.join(others)} too"
                found.append((name, reason))
        if not found:
            found = [(c.names[0], f"breaks the constraint {c.text}") for c in self.broken(config)]
        return found

    @cached_property
    def _cells(self) -> Listing:
        sizes = [parameter.grid_size or 0 for parameter in self.root.values()]
        return self._listing(sizes, lambda parameter, level: parameter.grid_value(level))

    def _listing(
        self, sizes: Sequence[int], value_at: Callable[[Parameter, int], Value]
    ) -> Listing:
        """Configurations of so many levels of each parameter, of which these are the values."""
        import numpy as np

        from ridgeline.search.cells import MAX_LISTED, Rule, listing

        rules = [Rule(c, [self.names.index(name) for name in c.names]) for c in self._constraints]
        needed = {name for constraint in self._constraints for name in constraint.names}
        digits = []
        for (name, parameter), size, digit in zip(self.items(), sizes, self.digits, strict=True):
            number_k = None
            if name in needed:
                levels = range(min(size, MAX_LISTED + 1))
                number_k = np.array([float(value_at(parameter, level)) for level in levels])
            digits.append(replace(digit, size=size, number_k=number_k))
        order = [self.names.index(name) for name in self.order]
        return listing(digits, order, MAX_LISTED, rules)

    @model_validator(mode="after")
    def _sound_conditions(self) -> Space:
        problems = list(condition_problems(self.root))
        if problems:
            raise ValidationError.from_exception_data(
                "Space",
                [
                    InitErrorDetails(
                        type=PydanticCustomError("when", "{reason}", {"reason": reason}),
                        loc=path,
                        input=None,
                    )
                    for path, reason in problems
                ],
            )
        return self
