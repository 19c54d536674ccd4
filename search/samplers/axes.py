"""A space as axes of the unit interval, for many trials at once.

The place of a value on its axis is that of the parameter's own `encode`: log ranges by their
exponent, listed values and steps by index, an exact 0 of a λ below the smallest value.  Of a
parameter that a configuration lacks it is `INACTIVE`, off its axis.

# n points, d axes in the order of the space
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ridgeline.search.cells import INACTIVE as NO_LEVEL
from ridgeline.search.cells import Listing, active, hashed
from ridgeline.search.constraints import Constraint
from ridgeline.search.ranges import ZERO_SHARE, FloatParameter, IntParameter
from ridgeline.search.seeds import derive
from ridgeline.search.space import Config, Parameter, Space, ValuesParameter

Floats = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]
Cells = npt.NDArray[np.int64]

MAX_NUMBERED = 2**62
"""Of more configurations each has a hash in place of a number."""

_PRIOR_WIDTH = 0.1
"""Standard deviation of a prior's normal distribution, in units of the axis."""
_TABLE = 2_048

INACTIVE = -1.0
"""The place of a parameter that a configuration lacks."""


@dataclass(frozen=True)
class Axis:
    """The axis of one parameter.

    Attributes:
        num_levels: how many values there are; None where they are a continuum.
        ordered: whether neighbours on the axis resemble each other.
    """

    parameter: Parameter
    num_levels: int | None
    ordered: bool = True

    def places(self, column_n: Floats) -> Floats:
        """Where the values of a column (see `Range.to_column`) lie: what `encode` gives."""
        parameter = self.parameter
        units: Floats
        if isinstance(parameter, IntParameter):
            if parameter.log:
                low, high = _log_ends(parameter)
                return (np.log(column_n) - low) / (high - low)
            return ((column_n - parameter.low) / (parameter.step or 1) + 0.5) / self._levels
        if not isinstance(parameter, FloatParameter):
            return (column_n + 0.5) / self._levels
        if parameter.step is not None:
            index_n = np.rint((column_n - parameter.low) / parameter.step)
            units = (index_n + 0.5) / (self._levels - parameter.zero)
        else:
            low, high = parameter.scaled(parameter.low), parameter.scaled(parameter.high)
            scaled_n = column_n
            if parameter.log or parameter.logit:
                within_n = np.where(column_n == 0, parameter.low, column_n)
                scaled_n = np.log(within_n)
                if parameter.logit:
                    scaled_n = scaled_n - np.log1p(-within_n)
            units = (scaled_n - low) / (high - low)
        if not parameter.zero:
            return units
        units = ZERO_SHARE + (1 - ZERO_SHARE) * units
        return np.where(column_n == 0, ZERO_SHARE / 2, units)

    def values_at(self, place_n: Floats) -> Floats:
        """The values at places of an axis of numbers, to the last digits."""
        parameter = self.parameter
        if self.num_levels is not None:
            level_n = self.levels_of(np.maximum(place_n, 0.0))
            if isinstance(parameter, ValuesParameter):
                return np.array([float(value) for value in parameter.values])[level_n]
            value_n = parameter.low + (level_n - _has_zero(parameter)) * float(parameter.step or 1)
        else:
            assert isinstance(parameter, FloatParameter)
            share_n = place_n
            if parameter.zero:
                share_n = (place_n - ZERO_SHARE) / (1 - ZERO_SHARE)
            share_n = np.clip(share_n, 0.0, 1.0)
            low, high = parameter.scaled(parameter.low), parameter.scaled(parameter.high)
            value_n = low + share_n * (high - low)
            if parameter.log:
                value_n = np.exp(value_n)
            elif parameter.logit:
                value_n = 1 / (1 + np.exp(-value_n))
        return np.where(place_n < ZERO_SHARE, 0.0, value_n) if _has_zero(parameter) else value_n

    @cached_property
    def prior_k(self) -> Floats | None:
        """The prior's density at even distances along the axis, whose mean is 1; None without."""
        parameter = self.parameter
        if isinstance(parameter, ValuesParameter) or parameter.prior is None:
            return None
        prior = parameter.prior
        off_k = np.linspace(0.0, 1.0, _TABLE + 1) - parameter.encode(prior.around)
        normal_k = np.exp(-0.5 * (off_k / _PRIOR_WIDTH) ** 2)
        normal_k /= (normal_k[1:] + normal_k[:-1]).sum() / 2 / _TABLE
        return 1 - prior.weight + prior.weight * normal_k

    def leaned(self, unit_n: Floats) -> Floats:
        """Places that are as dense as the prior, where units are evenly spread."""
        if self.prior_k is None:
            return unit_n
        below_k = np.concatenate([[0.0], np.cumsum((self.prior_k[1:] + self.prior_k[:-1]) / 2)])
        leaned_n: Floats = np.interp(unit_n, below_k / below_k[-1], np.linspace(0, 1, _TABLE + 1))
        return np.minimum(leaned_n, 1 - 1e-12)

    def log_prior(self, place_n: Floats) -> Floats:
        """The logarithm of the prior's density; 0 for a parameter that is lacking."""
        if self.prior_k is None:
            return np.zeros(len(place_n))
        density_n = np.interp(place_n, np.linspace(0, 1, _TABLE + 1), self.prior_k)
        return np.where(place_n == INACTIVE, 0.0, np.log(density_n))

    def snapped(self, unit_n: Floats) -> Floats:
        """The places of the values that `decode` makes of points of [0, 1]."""
        parameter = self.parameter
        if isinstance(parameter, IntParameter) and parameter.log:
            low, high = _log_ends(parameter)
            column_n = np.rint(np.exp(low + unit_n * (high - low)))
            return self.places(np.clip(column_n, parameter.low, parameter.top))
        if not isinstance(parameter, FloatParameter):
            return _middles(unit_n, self._levels)
        if parameter.step is not None:
            share_n = (unit_n - ZERO_SHARE) / (1 - ZERO_SHARE) if parameter.zero else unit_n
            places_n = _middles(share_n, self._levels - parameter.zero)
            if parameter.zero:
                places_n = ZERO_SHARE + (1 - ZERO_SHARE) * places_n
        else:
            places_n = np.clip(unit_n, 0.0, 1.0)
        return (
            np.where(unit_n < ZERO_SHARE, ZERO_SHARE / 2, places_n) if parameter.zero else places_n
        )

    def levels_of(self, place_n: Floats) -> Cells:
        """The number of each place's value, from the lowest up."""
        parameter = self.parameter
        if isinstance(parameter, IntParameter) and parameter.log:
            low, high = _log_ends(parameter)
            values_n = np.rint(np.exp(low + place_n * (high - low)))
            # Numbers beyond 10**14 come back from their logarithms up to a few.
            index_n: Cells = values_n.astype(np.int64) - parameter.low
            return np.minimum(np.maximum(index_n, 0), self._levels - 1)
        if isinstance(parameter, FloatParameter) and parameter.zero:
            share_n = (place_n - ZERO_SHARE) / (1 - ZERO_SHARE)
            index_n = np.floor(share_n * (self._levels - 1)).astype(np.int64)
            return np.where(place_n < ZERO_SHARE, 0, index_n + 1)
        levels_n: Cells = np.floor(place_n * self._levels).astype(np.int64)
        return np.minimum(levels_n, self._levels - 1)

    def places_of(self, level_n: Cells) -> Floats:
        """The inverse of `levels_of`."""
        parameter = self.parameter
        if isinstance(parameter, IntParameter):
            return self.places(parameter.low + level_n * float(parameter.step or 1))
        if isinstance(parameter, FloatParameter) and parameter.zero:
            share_n = (level_n - 0.5) / (self._levels - 1)
            return np.where(level_n == 0, ZERO_SHARE / 2, ZERO_SHARE + (1 - ZERO_SHARE) * share_n)
        return (level_n + 0.5) / self._levels

    @cached_property
    def level_places(self) -> Floats:
        """The places of all levels."""
        return self.places_of(np.arange(self._levels))

    @property
    def _levels(self) -> int:
        assert self.num_levels is not None
        return self.num_levels


class Axes:
    """The axes of a space, and the points of the unit cube that are configurations."""

    def __init__(self, space: Space) -> None:
        self.axes = [
            Axis(its, its.num_values, not isinstance(its, ValuesParameter) or its.ordered)
            for _, its in space.items()
        ]
        self.space = space
        self.is_conditional = space.is_conditional
        self.has_prior = any(axis.prior_k is not None for axis in self.axes)
        self.num_cells: int | None = None
        """How many configurations there are, or more where they are too many to be counted; None
        where they are a continuum."""
        self._listing: Listing | None = None
        sizes = [axis.num_levels for axis in self.axes]
        if None not in sizes:
            self.num_cells = math.prod(s for s in sizes if s is not None)
            if not space.is_plain and space.configurations.is_whole:
                self._listing = space.configurations
                self.num_cells = len(self._listing.levels_md)

    def __len__(self) -> int:
        return len(self.axes)

    @property
    def are_numbered(self) -> bool:
        """Whether the `cells` of configurations are numbers that `points_of` takes back."""
        if not self.space.is_plain:
            return self._listing is not None
        return self.num_cells is not None and self.num_cells <= MAX_NUMBERED

    def places(self, columns_nd: Floats) -> Floats:
        """Points [n, d] of trials, given as a history's columns."""
        places_nd = self._by_axis([a.places(columns_nd[:, i]) for i, a in enumerate(self.axes)])
        return np.where(np.isnan(columns_nd), INACTIVE, places_nd)

    def snapped(self, units_nd: Floats) -> Floats:
        """The points [n, d] of the configurations that points of the unit cube stand for."""
        snapped_nd = self._by_axis([a.snapped(units_nd[:, i]) for i, a in enumerate(self.axes)])
        if self.is_conditional:
            levels_nd = np.zeros(snapped_nd.shape, np.int64)
            for i in map(self.space.names.index, self.space.order):
                is_there_n = active(self.space.digits, i, levels_nd)
                snapped_nd[~is_there_n, i] = INACTIVE
                if isinstance(self.axes[i].parameter, ValuesParameter):  # which others depend on
                    levels_nd[:, i] = self._levels(snapped_nd, i)
        return snapped_nd

    def leaned(self, units_nd: Floats) -> Floats:
        """Points of the unit cube that are as dense as the priors, of ones evenly spread."""
        if not self.has_prior:
            return units_nd
        return self._by_axis([a.leaned(units_nd[:, i]) for i, a in enumerate(self.axes)])

    def leaned_units(self, units: Mapping[str, float]) -> Mapping[str, float]:
        """The same for one point, given by parameter name."""
        if not self.has_prior:
            return units
        (leaned_d,) = self.leaned(np.array([[units[name] for name in self.space.names]])).tolist()
        return dict(zip(self.space.names, leaned_d, strict=True))

    def log_prior(self, places_nd: Floats) -> Floats:
        """The logarithm of the priors' density at points [n]."""
        columns = [a.log_prior(places_nd[:, i]) for i, a in enumerate(self.axes)]
        total_n: Floats = np.sum(columns, axis=0)
        return total_n

    def fits(self, places_nd: Floats) -> Flags:
        """Whether the configurations at points keep the space's constraints."""
        fits_n = np.ones(len(places_nd), np.bool_)
        for constraint in self.space.constraints:
            is_void_n, values = self._values(constraint, places_nd)
            # What `decode` gives may differ in the last digits.
            fits_n &= is_void_n | constraint.holds(values, margin=2.0)
        return fits_n

    def excess(self, places_nd: Floats) -> Floats:
        """By what share of their terms constraints are broken, added up."""
        excess_n = np.zeros(len(places_nd))
        for constraint in self.space.constraints:
            is_void_n, values = self._values(constraint, places_nd)
            total_n, size_n = constraint.total(values)
            share_n = np.maximum(total_n, 0.0) / np.maximum(size_n, np.finfo(np.float64).tiny)
            excess_n += np.where(is_void_n, 0.0, share_n)
        return excess_n

    @cached_property
    def known_units(self) -> Floats | None:
        """A point of the unit cube that is a configuration; None where none was found."""
        from ridgeline.search.samplers.feasible import known_units  # which draws on these axes

        return known_units(self)

    def _values(self, constraint: Constraint, places_nd: Floats) -> tuple[Flags, list[Floats]]:
        """Where a constraint does not apply, and the values that it is about."""
        indexes = [self.space.names.index(name) for name in constraint.names]
        is_void_n: Flags = (places_nd[:, indexes] == INACTIVE).any(axis=1)
        return is_void_n, [self.axes[i].values_at(places_nd[:, i]) for i in indexes]

    def config(self, place_d: Floats) -> Config:
        """The configuration at a point."""
        places = zip(self.space.items(), place_d.tolist(), strict=True)
        return {name: its.decode(place) for (name, its), place in places if place != INACTIVE}

    def cells(self, places_nd: Floats) -> Cells:
        """The number of each point's configuration, below `num_cells`, which must be known.

        A hash where they are not numbered: of more than `MAX_NUMBERED` no number of 64 bits has
        room for all, and those of a conditional space may be too many to be listed.
        """
        assert self.num_cells is not None
        levels = [self._levels(places_nd, i) for i in range(len(self.axes))]
        if not self.are_numbered:
            return hashed(levels)
        if self._listing is not None:
            return self._listing.rows_of(np.stack(levels, axis=1))
        cells_n = np.zeros(len(places_nd), np.int64)
        for axis, level_n in zip(self.axes, levels, strict=True):
            assert axis.num_levels is not None
            cells_n = cells_n * axis.num_levels + level_n
        return cells_n

    def points_of(self, cells_n: Cells) -> Floats:
        """The inverse of `cells`, where these are numbers."""
        columns: list[Floats] = []
        if self._listing is not None:
            for axis, level_n in zip(self.axes, self._listing.levels_md[cells_n].T, strict=True):
                places_n = axis.places_of(np.maximum(level_n, 0))
                columns.append(np.where(level_n == NO_LEVEL, INACTIVE, places_n))
            return self._by_axis(columns)
        for axis in reversed(self.axes):
            assert axis.num_levels is not None
            cells_n, level_n = np.divmod(cells_n, axis.num_levels)
            columns.append(axis.places_of(level_n))
        return self._by_axis(columns[::-1])

    def spread(self, first: int, seed: int) -> Iterator[Floats]:
        """Points [d] of a scrambled Sobol sequence, snapped, from number `first` on."""
        from scipy.stats import qmc  # half a second, which no other command should wait for

        sequence = qmc.Sobol(len(self), scramble=True, rng=derive(seed, "sobol"))
        if first:  # SciPy cannot go on by 0
            sequence.fast_forward(first)
        while True:
            # One at a time is right at any length, of which SciPy would else warn.
            yield self.snapped(self.leaned(sequence.random(1)))[0]

    def _levels(self, places_nd: Floats, index: int) -> Cells:
        """The level of each point on one axis."""
        place_n = places_nd[:, index]
        if not self.is_conditional:
            return self.axes[index].levels_of(place_n)
        level_n = self.axes[index].levels_of(np.maximum(place_n, 0.0))
        return np.where(place_n == INACTIVE, NO_LEVEL, level_n)

    @staticmethod
    def _by_axis(columns: list[Floats]) -> Floats:
        points: Floats = np.stack(columns, axis=1)
        return points


def _has_zero(parameter: Parameter) -> bool:
    return isinstance(parameter, FloatParameter) and parameter.zero


def _middles(unit_n: Floats, num_levels: int) -> Floats:
    index_n = np.clip(np.floor(unit_n * num_levels), 0, num_levels - 1)
    places_n: Floats = (index_n + 0.5) / num_levels
    return places_n


def _log_ends(parameter: IntParameter) -> tuple[float, float]:
    return math.log(parameter.low - 0.5), math.log(parameter.high + 0.5)
