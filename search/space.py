"""Search spaces: the parameters searched, their ranges, and the unit cube.

Every parameter maps the half-open unit interval onto its range (`decode`) and back (`encode`), so
that a sampler only ever has to produce points of the unit cube.  Every parameter also has a column
form, one float per value, in which `search.history` stores it without loss.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from search.fields import Flag, ParameterName, Real, Text, Whole

Value = bool | int | float | str
"""What a parameter takes: one JSON scalar."""

Config = dict[str, Value]
"""One configuration: a value for every parameter of a space."""

ZERO_SHARE = 0.125
"""Share of the unit interval that means exactly 0 on a range with `zero: true`."""

ZERO_SUFFIX = "_zero"
"""Ends the name under which Optuna's tables say whether such a parameter is 0."""

MAX_VALUES = 1_000
MAX_PARAMETERS = 100

MAX_STEPS = 10_000_000
"""Steps from 0 to either end of a range; with more of them float64 cannot tell neighbours apart."""

Points = Annotated[Whole, Field(ge=2, le=MAX_VALUES)]


class _Range(BaseModel, ABC):
    """What all kinds of parameter have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    @abstractmethod
    def grid_size(self) -> int | None:
        """How many values a grid visits; None where the range names no points."""

    @abstractmethod
    def grid_value(self, index: int) -> Value:
        """The grid's value at `index`, counted from 0."""

    @abstractmethod
    def decode(self, unit: float) -> Value:
        """Map `unit` in [0, 1) to a value of the range."""

    @abstractmethod
    def encode(self, value: Value) -> float:
        """Map a value of the range into [0, 1]; `decode(encode(v)) == v` up to rounding."""

    @abstractmethod
    def problem(self, value: object) -> str | None:
        """Why `value` is not of this range, or None where it is."""

    @abstractmethod
    def to_column(self, value: Value) -> float:
        """The value as one float64, without loss."""

    @abstractmethod
    def from_column(self, number: float) -> Value:
        """The inverse of `to_column`."""


class FloatParameter(_Range):
    """A real range; `low` and `high` both belong to it.

    `step` spaces the values from `low` on; `log` searches the exponent; `points` is the number of
    values a grid visits (geometric where `log`); `zero` adds an exact 0 below `low`, for a λ that
    may be switched off: a share of `ZERO_SHARE` when drawn, one more point of a grid.
    """

    type: Literal["float"]
    low: Real
    high: Real
    log: Flag = False
    step: Annotated[Real, Field(gt=0)] | None = None
    points: Points | None = None
    zero: Flag = False

    @model_validator(mode="after")
    def _consistent(self) -> FloatParameter:
        _check_bounds(self.low, self.high, self.log)
        if self.step is not None:
            if self.log:
                raise ValueError("step and log exclude each other; give one of them")
            if self.points is not None:
                raise ValueError("step already fixes the grid; leave points out")
            if max(abs(self.low), abs(self.high)) / self.step > MAX_STEPS:
                raise ValueError(f"step is too small: {MAX_STEPS} of them must lead beyond high")
            if self._last < 1:
                raise ValueError("step must not be larger than high - low")
            if Decimal(repr(self.top)) != self._exact_level(self._last):
                raise ValueError("low + step has too many digits; round low and step")
        if self.zero and self.low <= 0:
            raise ValueError("zero adds a 0 below the range, so low must be above 0")
        return self

    @property
    def top(self) -> float:
        """The largest value, which is below `high` where `step` does not divide the range."""
        return self.high if self.step is None else self.level(self._last)

    @property
    def num_levels(self) -> int | None:
        """How many values `step` allows, the 0 of `zero` not counted; None without `step`."""
        return None if self.step is None else self._last + 1

    def level(self, index: int) -> float:
        """The value `index` steps above `low`."""
        return float(self._exact_level(index))

    def level_of(self, value: Value) -> int:
        """How many steps above `low` a value is."""
        assert self.step is not None
        return round((float(value) - self.low) / self.step)

    @property
    def grid_size(self) -> int | None:
        size = self.points if self.step is None else self.num_levels
        return None if size is None else size + self.zero

    def grid_value(self, index: int) -> float:
        if self.zero:
            if index == 0:
                return 0.0
            index -= 1
        if self.step is not None:
            return self.level(index)
        assert self.points is not None
        # exp(log(0.01)) is not 0.01; twelve digits are, and lose nothing that a grid means.
        value = float(f"{self._between(index / (self.points - 1)):.12g}")
        return min(max(value, self.low), self.high)

    def decode(self, unit: float) -> float:
        if self.zero:
            if unit < ZERO_SHARE:
                return 0.0
            unit = (unit - ZERO_SHARE) / (1 - ZERO_SHARE)
        if self.step is not None:
            return self.level(min(int(unit * (self._last + 1)), self._last))
        return self._between(unit)

    def encode(self, value: Value) -> float:
        number = float(value)
        if self.zero and number == 0:
            return ZERO_SHARE / 2
        if self.step is not None:
            unit = (self.level_of(number) + 0.5) / (self._last + 1)
        elif self.log:
            low, high = math.log(self.low), math.log(self.high)
            unit = (math.log(number) - low) / (high - low)
        else:
            unit = (number - self.low) / (self.high - self.low)
        return ZERO_SHARE + unit * (1 - ZERO_SHARE) if self.zero else unit

    def problem(self, value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        if self.zero and value == 0:
            return None
        if not self.low <= value <= self.top:
            zero = "0 or " if self.zero else ""
            return f"must be {zero}between {self.low:g} and {self.top:g}"
        if self.step is not None:
            steps = (value - self.low) / self.step
            if abs(steps - round(steps)) >= 1e-8:  # Optuna's own tolerance
                return f"must be {self.low:g} plus a multiple of {self.step:g}"
        return None

    def to_column(self, value: Value) -> float:
        return float(value)

    def from_column(self, number: float) -> float:
        return float(number)

    @property
    def _last(self) -> int:
        """The number of the highest level, counted from 0."""
        assert self.step is not None
        return int((Decimal(repr(self.high)) - Decimal(repr(self.low))) // Decimal(repr(self.step)))

    def _exact_level(self, index: int) -> Decimal:
        # 0.1 * 3 is 0.30000000000000004: people gave decimals, so they get decimals back.
        return Decimal(repr(self.low)) + index * Decimal(repr(self.step))

    def _between(self, share: float) -> float:
        if share <= 0:
            return self.low
        if share >= 1:
            return self.high
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + share * (high - low))
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(value, self.low), self.high)


class IntParameter(_Range):
    """A range of whole numbers; `low` and `high` both belong to it.

    A grid visits `points` of them, evenly spaced (geometrically where `log`) and rounded, or every
    one of them where `points` is left out.
    """

    type: Literal["int"]
    low: Whole
    high: Whole
    log: Flag = False
    points: Points | None = None

    @model_validator(mode="after")
    def _consistent(self) -> IntParameter:
        _check_bounds(self.low, self.high, self.log)
        if self.points is not None and self.points > self.high - self.low + 1:
            raise ValueError("points must not exceed the number of integers in the range")
        return self

    @property
    def grid_size(self) -> int:
        return len(self._spaced()) if self.points is not None else self.high - self.low + 1

    def grid_value(self, index: int) -> int:
        return self._spaced()[index] if self.points is not None else self.low + index

    def decode(self, unit: float) -> int:
        if self.log:
            # Each integer owns the interval half a unit around it, as Optuna's log integers do.
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            value = round(math.exp(low + unit * (high - low)))
        else:
            value = self.low + int(unit * (self.high - self.low + 1))
        return min(max(value, self.low), self.high)

    def encode(self, value: Value) -> float:
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return (math.log(float(value)) - low) / (high - low)
        return (float(value) - self.low + 0.5) / (self.high - self.low + 1)

    def problem(self, value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be a whole number"
        if not self.low <= value <= self.high:
            return f"must be between {self.low} and {self.high}"
        return None

    def to_column(self, value: Value) -> float:
        return float(value)

    def from_column(self, number: float) -> int:
        return int(number)

    def _spaced(self) -> list[int]:
        assert self.points is not None
        shares = [i / (self.points - 1) for i in range(self.points)]
        if self.log:
            numbers = [self.low * math.pow(self.high / self.low, share) for share in shares]
        else:
            numbers = [self.low + share * (self.high - self.low) for share in shares]
        return sorted({min(max(round(number), self.low), self.high) for number in numbers})


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


class ValuesParameter(_Range):
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
        """`config` in the order of the space, its numbers in the parameters' own types."""
        return {
            name: parameter.from_column(parameter.to_column(config[name]))
            for name, parameter in self.root.items()
        }

    def problems(self, config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Why `config` is not a configuration of this space, as (parameter, reason) pairs."""
        found = [
            (name, "is not a parameter of this study's space")
            for name in config
            if name not in self.root
        ]
        for name, parameter in self.root.items():
            if name not in config:
                found.append((name, "is missing"))
            elif (reason := parameter.problem(config[name])) is not None:
                found.append((name, reason))
        return found


def _check_bounds(low: float, high: float, log: bool) -> None:
    if low >= high:
        raise ValueError(f"low ({low:g}) must be below high ({high:g})")
    if not math.isfinite(high - low):
        raise ValueError("high - low must be a finite number")
    if log and low <= 0:
        raise ValueError("a log range must start above 0; zero: true adds a 0 to a float range")
    if log and math.log(low) == math.log(high):
        raise ValueError("low and high are too close for a log range")
