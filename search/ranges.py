"""Ranges of numbers, and what all kinds of parameter have in common.

Every parameter maps the half-open unit interval onto its range (`decode`) and back (`encode`), so
that a sampler only ever has to produce points of the unit cube.  Every parameter also has a column
form, one float per value, in which `ridgeline.search.history` stores it without loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from ridgeline.search.fields import Flag, ParameterName, Real, Text, Whole

Value = bool | int | float | str
"""What a parameter takes: one JSON scalar."""

MAX_VALUES = 1_000
"""Of a list."""


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


Scalar = Annotated[Flag | Whole | Real | Text, WrapValidator(_scalar)]


def _listed(value: object) -> object:
    """A single value as a list of it."""
    return value if isinstance(value, list | tuple | dict) or value is None else [value]


When = Annotated[
    dict[
        ParameterName,
        Annotated[
            tuple[Scalar, ...],
            Field(min_length=1, max_length=MAX_VALUES),
            BeforeValidator(_listed, json_schema_input_type=Scalar | tuple[Scalar, ...]),
        ],
    ],
    Field(min_length=1),
]
"""By other parameters, the values of each with which a parameter belongs to a configuration."""

ZERO_SHARE = 0.125
"""Share of the unit interval that means exactly 0 on a range with `zero: true`."""

ZERO_SUFFIX = "_zero"
"""Ends the name under which Optuna's tables say whether such a parameter is 0."""

MAX_POINTS = 1_000

MAX_STEPS = 10_000_000
"""Steps from 0 to either end of a range; with more of them float64 cannot tell neighbours apart."""

Points = Annotated[Whole, Field(ge=2, le=MAX_POINTS)]


class Prior(BaseModel):
    """A best guess at a good value.

    `weight` says how sure it is: a sampler's first trials are a mixture of a normal distribution
    around the value, of this weight, and of an even one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    around: Real
    weight: Annotated[Real, Field(gt=0, le=0.9)] = 0.5


class Range(BaseModel, ABC):
    """What all kinds of parameter have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    @abstractmethod
    def num_values(self) -> int | None:
        """How many values there are; None where they are a continuum."""

    @property
    @abstractmethod
    def grid_size(self) -> int | None:
        """How many values a grid visits; None where the range names no points."""

    @abstractmethod
    def grid_value(self, index: int) -> Value:
        """The grid's value at `index`, counted from 0."""

    @abstractmethod
    def value_at(self, level: int) -> Value:
        """The value at a level, counted from the lowest value, where these are finitely many."""

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


class FloatParameter(Range):
    """A real range; `low` and `high` both belong to it.

    `step` spaces the values from `low` on; `log` searches the exponent, `logit` the log odds of a
    share between 0 and 1, which has as many digits near 1 as near 0; `points` is the number of
    values a grid visits (evenly spaced on that scale; those that float64 cannot tell apart are one
    value, visited once); `zero` adds an exact 0 below `low`, for a λ that may be switched off: a
    share of `ZERO_SHARE` when drawn, one more point of a grid.
    """

    type: Literal["float"]
    low: Real
    high: Real
    log: Flag = False
    logit: Flag = False
    step: Annotated[Real, Field(gt=0)] | None = None
    points: Points | None = None
    zero: Flag = False
    when: When | None = None
    prior: Prior | None = None

    @model_validator(mode="after")
    def _consistent(self) -> FloatParameter:
        _check_bounds(self.low, self.high, self.log)
        if self.logit:
            _check_logit(self.low, self.high, self.log)
        if self.step is not None:
            if self.logit:
                raise ValueError("step and logit exclude each other; give one of them")
            _check_step(log=self.log, points=self.points)
            if max(abs(self.low), abs(self.high)) / self.step > MAX_STEPS:
                raise ValueError(f"step is too small: {MAX_STEPS} of them must lead beyond high")
            if self._last < 1:
                raise ValueError("step must not be larger than high - low")
            if Decimal(repr(self.top)) != self._exact_level(self._last):
                raise ValueError("low + step has too many digits; round low and step")
        if self.zero and self.low <= 0:
            raise ValueError("zero adds a 0 below the range, so low must be above 0")
        _check_prior(self, self.prior)
        return self

    def scaled(self, value: float) -> float:
        """A value on the scale that is searched evenly."""
        if self.log:
            return math.log(value)
        return math.log(value) - math.log1p(-value) if self.logit else value

    @property
    def top(self) -> float:
        """The largest value, which is below `high` where `step` does not divide the range."""
        return self.high if self.step is None else self.level(self._last)

    @property
    def num_values(self) -> int | None:
        return None if self.step is None else self._last + 1 + self.zero

    def level(self, index: int) -> float:
        """The value `index` steps above `low`."""
        return float(self._exact_level(index))

    def level_of(self, value: Value) -> int:
        """How many steps above `low` a value is."""
        assert self.step is not None
        return round((float(value) - self.low) / self.step)

    @property
    def grid_size(self) -> int | None:
        if self.step is None and self.points is None:
            return None
        size = len(self._spaced) if self.step is None else self._last + 1
        return size + self.zero

    def grid_value(self, index: int) -> float:
        if self.zero:
            if index == 0:
                return 0.0
            index -= 1
        if self.step is not None:
            return self.level(index)
        return self._spaced[index]

    def value_at(self, level: int) -> float:
        if self.zero:
            return self.level(level - 1) if level else 0.0
        return self.level(level)

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
        else:
            low, high = self.scaled(self.low), self.scaled(self.high)
            unit = (self.scaled(number) - low) / (high - low)
        return ZERO_SHARE + unit * (1 - ZERO_SHARE) if self.zero else unit

    def problem(self, value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        if self.zero and value == 0:
            return None
        if not self.low <= value <= self.top:
            zero = "0 or " if self.zero else ""
            return f"must be {zero}between {number_text(self.low)} and {number_text(self.top)}"
        if self.step is not None:
            steps = (value - self.low) / self.step
            if abs(steps - round(steps)) >= 1e-8:  # Optuna's own tolerance
                low, step = number_text(self.low), number_text(self.step)
                return f"must be {low} plus a multiple of {step}"
        return None

    def to_column(self, value: Value) -> float:
        return float(value)

    def from_column(self, number: float) -> float:
        return float(number)

    @cached_property
    def _spaced(self) -> list[float]:
        """The values of a grid of `points`, the 0 of `zero` left out."""
        assert self.points is not None
        exact = [self._between(index / (self.points - 1)) for index in range(self.points)]
        inner = [_rounded(value, value - before) for before, value in pairwise(exact[:-1])]
        within = (min(max(value, self.low), self.high) for value in inner)
        return sorted({self.low, *within, self.high})

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
        low, high = self.scaled(self.low), self.scaled(self.high)
        value = low + share * (high - low)
        if self.log:
            value = math.exp(value)
        elif self.logit:
            value = 1 / (1 + math.exp(-value))
        return min(max(value, self.low), self.high)


class IntParameter(Range):
    """A range of whole numbers; `low` and `high` both belong to it.

    `step` leaves only `low`, `low` + `step` and so on.  A grid visits `points` of them, evenly
    spaced (geometrically where `log`) and rounded, or every one where `points` is left out.
    """

    type: Literal["int"]
    low: Whole
    high: Whole
    log: Flag = False
    step: Annotated[Whole, Field(ge=1)] | None = None
    points: Points | None = None
    when: When | None = None
    prior: Prior | None = None

    @model_validator(mode="after")
    def _consistent(self) -> IntParameter:
        _check_bounds(self.low, self.high, self.log)
        if self.step is not None:
            _check_step(log=self.log, points=self.points)
            if self.step > self.high - self.low:
                raise ValueError("step must not be larger than high - low")
        if self.points is not None and self.points > self.high - self.low + 1:
            raise ValueError("points must not exceed the number of integers in the range")
        _check_prior(self, self.prior)
        return self

    @property
    def top(self) -> int:
        """The largest value, which is below `high` where `step` does not divide the range."""
        return self.level(self.num_values - 1)

    def level(self, index: int) -> int:
        """The value `index` steps above `low`."""
        return self.low + index * (self.step or 1)

    @property
    def num_values(self) -> int:
        return (self.high - self.low) // (self.step or 1) + 1

    @property
    def grid_size(self) -> int:
        return self.num_values if self.points is None else len(self._spaced)

    def grid_value(self, index: int) -> int:
        return self.level(index) if self.points is None else self._spaced[index]

    def value_at(self, level: int) -> int:
        return self.level(level)

    def decode(self, unit: float) -> int:
        if self.log:
            # Each integer owns the interval half a unit around it, as Optuna's log integers do.
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            value = round(math.exp(low + unit * (high - low)))
        else:
            value = self.level(int(unit * self.num_values))
        return min(max(value, self.low), self.top)

    def encode(self, value: Value) -> float:
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return (math.log(float(value)) - low) / (high - low)
        return ((float(value) - self.low) / (self.step or 1) + 0.5) / self.num_values

    def problem(self, value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be a whole number"
        if not self.low <= value <= self.top:
            return f"must be between {self.low} and {self.top}"
        if (value - self.low) % (self.step or 1):
            return f"must be {self.low} plus a multiple of {self.step}"
        return None

    def to_column(self, value: Value) -> float:
        return float(value)

    def from_column(self, number: float) -> int:
        return int(number)

    @cached_property
    def _spaced(self) -> list[int]:
        """The values of a grid of `points`."""
        assert self.points is not None
        shares = [i / (self.points - 1) for i in range(self.points)]
        if self.log:
            numbers = [self.low * math.pow(self.high / self.low, share) for share in shares]
        else:
            numbers = [self.low + share * (self.high - self.low) for share in shares]
        return sorted({min(max(round(number), self.low), self.high) for number in numbers})


def _check_bounds(low: float, high: float, log: bool) -> None:
    if low == high:
        one = number_text(low)
        raise ValueError(
            f"low and high are both {one}; for one value use "
            f'{{"type": "values", "values": [{one}]}}'
        )
    if low > high:
        raise ValueError(f"low ({number_text(low)}) must be below high ({number_text(high)})")
    if not math.isfinite(high - low):
        raise ValueError("high - low must be a finite number")
    if log and low <= 0:
        raise ValueError("a log range must start above 0; zero: true adds a 0 to a float range")
    if log and math.log(low) == math.log(high):
        raise ValueError("low and high are too close for a log range")


def _check_prior(parameter: Range, prior: Prior | None) -> None:
    if prior is None:
        return
    around = prior.around
    # A whole number is written as 5.0 here.
    whole = int(around) if around == int(around) else around
    if parameter.problem(around) is not None and (reason := parameter.problem(whole)) is not None:
        raise ValueError(f"prior.around {reason}")


def _check_logit(low: float, high: float, log: bool) -> None:
    if log:
        raise ValueError("log and logit exclude each other; give one of them")
    if not 0 < low < high < 1:
        raise ValueError("a logit range must begin above 0 and end below 1")


def _check_step(*, log: bool, points: int | None) -> None:
    if log:
        raise ValueError("step and log exclude each other; give one of them")
    if points is not None:
        raise ValueError("step already fixes the grid; leave points out")


def _rounded(value: float, spacing: float) -> float:
    """The decimal that people mean by a value of a grid whose next one is `spacing` below.

    exp(log(0.01)) is not 0.01, and -0.3 + 0.1 * 3 is not 0.  Twelve digits are, or as many more as
    it takes to move no value by more than a thousandth of the spacing.
    """
    if spacing == 0:
        return value
    size = max(abs(value), spacing)
    digits = max(11 - math.floor(math.log10(size)), 3 - math.floor(math.log10(spacing)))
    return round(value, digits) + 0.0  # no -0.0


def number_text(number: float) -> str:
    """A number for people, with all its digits: 1000001, 0.1, 1e-07."""
    return repr(number).removesuffix(".0")
