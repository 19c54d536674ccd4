"""Configurations drawn at random where not any values are one.

# m points, d axes
"""

from __future__ import annotations

import numpy as np

from ridgeline.search.constraints import Constraint
from ridgeline.search.ranges import FloatParameter, IntParameter
from ridgeline.search.samplers.axes import Axes, Flags, Floats
from ridgeline.search.seeds import derive
from ridgeline.search.space import Config, Space

_TRIES = 4_096
_ROUNDS = 16
_MAX_CHAINS = 256
_SWEEPS = 3
_SHRINKS = 12
_REPAIRS = 400


def drawn(axes: Axes, count: int, generator: np.random.Generator) -> Floats:
    """So many points of configurations [m, d], some maybe alike; priors make some places denser.

    Raises:
        ValueError: the space has no configuration, or none was found.
    """
    if axes.space.is_plain or not axes.space.constraints:
        return axes.snapped(axes.leaned(generator.random((count, len(axes)))))
    if axes.are_numbered:
        if not axes.num_cells:
            raise ValueError("no configuration keeps the constraints")
        return axes.points_of(generator.integers(axes.num_cells, size=count))
    found: Floats = np.empty((0, len(axes)))
    for _ in range(_ROUNDS):
        units = axes.leaned(generator.random((max(count, 64), len(axes))))
        found = np.concatenate([found, units[axes.fits(axes.snapped(units))]])
        if len(found) >= count:
            return axes.snapped(found[:count])
    if not len(found):
        if axes.known_units is None:
            raise ValueError("no configuration keeps the constraints, or none was found")
        found = axes.known_units[None]
    # Not evenly any more, but all over the part that can be reached axis by axis.
    chains: Floats = found[generator.integers(len(found), size=min(count, _MAX_CHAINS))]
    walked: list[Floats] = []
    while sum(map(len, walked)) < count:
        chains = _walked(axes, chains, generator)
        walked.append(chains)
    return axes.snapped(np.concatenate(walked)[:count])


def one(axes: Axes, seed: int) -> Config:
    """A configuration of the space, at random.

    Raises:
        ValueError: as of `drawn`.
    """
    return axes.config(drawn(axes, 1, np.random.default_rng(seed))[0])


def has_any(space: Space) -> bool:
    """Whether a configuration could be found."""
    try:
        one(Axes(space), 0)
    except ValueError:
        return False
    return True


def _walked(axes: Axes, units_md: Floats, generator: np.random.Generator) -> Floats:
    """Each point moved along its axes in turn to a random place that keeps the constraints.

    What does not is tried again closer to where the point was, as slice sampling does.
    """
    for axis in generator.integers(len(axes), size=_SWEEPS * len(axes)).tolist():
        here_m = units_md[:, axis].copy()
        there_m = generator.random(len(units_md))
        for _ in range(_SHRINKS):
            moved_md = units_md.copy()
            moved_md[:, axis] = there_m
            fits_m = axes.fits(axes.snapped(moved_md))
            if fits_m.all():
                break
            there_m = np.where(
                fits_m, there_m, here_m + (there_m - here_m) * generator.random(len(there_m))
            )
        moved_md = units_md.copy()
        moved_md[:, axis] = there_m
        units_md = np.where(axes.fits(axes.snapped(moved_md))[:, None], moved_md, units_md)
    return units_md


def known_units(axes: Axes) -> Floats | None:
    """A point of the unit cube that is a configuration: by many draws, or by mending some."""
    generator = np.random.default_rng(derive("feasible"))
    units_md: Floats = generator.random((_TRIES, len(axes)))
    fits_m = axes.fits(axes.snapped(units_md))
    if not fits_m.any():
        excess_m = axes.excess(axes.snapped(units_md))
        units_md = units_md[np.argsort(excess_m, kind="stable")[:_MAX_CHAINS]]
        solution = _of_linear_program(axes)
        if solution is not None:
            units_md[0] = solution
        fits_m = axes.fits(axes.snapped(units_md))
        for _ in range(_REPAIRS):
            if fits_m.any():
                break
            units_md, fits_m = _mended(axes, units_md, generator)
    found: Floats | None = units_md[np.argmax(fits_m)] if fits_m.any() else None
    return found


def _mended(axes: Axes, units_md: Floats, generator: np.random.Generator) -> tuple[Floats, Flags]:
    """Points moved along one axis each where that breaks the constraints by no more."""
    num = len(units_md)
    moved_md = units_md.copy()
    axis_m = generator.integers(len(axes), size=num)
    reach_m = np.exp(generator.uniform(np.log(1e-4), 0.0, num))
    step_m = reach_m * generator.uniform(-1, 1, num)
    row_m = np.arange(num)
    moved_md[row_m, axis_m] = np.clip(moved_md[row_m, axis_m] + step_m, 0.0, 1 - 1e-12)
    before_m, after_m = (axes.excess(axes.snapped(one)) for one in (units_md, moved_md))
    units_md = np.where((after_m <= before_m)[:, None], moved_md, units_md)
    return units_md, axes.fits(axes.snapped(units_md))


def _of_linear_program(axes: Axes) -> Floats | None:
    """A point as far within all constraints as can be, were all ranges continuous."""
    from scipy.optimize import linprog

    space = axes.space
    names = sorted({name for constraint in space.constraints for name in constraint.names})
    rows = [_row(constraint, names) for constraint in space.constraints]
    bounds = [_ends(space, name) for name in names]
    found = linprog(
        c=[0.0] * len(names) + [-1.0],
        A_ub=[[*row, 1.0] for row, _ in rows],
        b_ub=[limit for _, limit in rows],
        bounds=[*bounds, (None, 1.0)],
    )
    if not found.success or found.x is None:
        return None
    units_d = np.full(len(axes), 0.5)
    for name, value, (low, high) in zip(names, found.x, bounds, strict=False):
        parameter = space[name]
        inside = min(max(float(np.round(value, 12)), low), high)
        if isinstance(parameter, FloatParameter) and parameter.zero and inside < parameter.low:
            units_d[space.names.index(name)] = 0.0
        elif isinstance(parameter, FloatParameter | IntParameter):
            if isinstance(parameter, IntParameter):
                inside = round(inside)
            units_d[space.names.index(name)] = parameter.encode(inside)
        else:
            nearest = min(parameter.values, key=lambda known: abs(float(known) - inside))
            units_d[space.names.index(name)] = parameter.encode(nearest)
    inside_d: Floats = np.clip(units_d, 0.0, 1 - 1e-12)
    return inside_d


def _row(constraint: Constraint, names: list[str]) -> tuple[list[float], float]:
    """Coefficients and the limit, in a unit in which the largest number is 1."""
    by_name = dict(constraint.terms)
    unit = max(abs(by) for by in by_name.values())
    return [by_name.get(name, 0.0) / unit for name in names], -constraint.constant / unit


def _ends(space: Space, name: str) -> tuple[float, float]:
    parameter = space[name]
    if isinstance(parameter, FloatParameter | IntParameter):
        is_zero = isinstance(parameter, FloatParameter) and parameter.zero
        return 0.0 if is_zero else float(parameter.low), float(parameter.top)
    return float(parameter.values[0]), float(parameter.values[-1])
