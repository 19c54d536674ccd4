"""Configurations among which a sampler chooses: all that are new, or many near what was good.

# n trials, c candidates, d axes
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ridgeline.search.samplers.axes import INACTIVE, Axes, Cells, Floats
from ridgeline.search.samplers.feasible import drawn

MAX_CELLS = 4_096
"""Spaces of at most so many configurations are searched whole."""

_NUM_UNIFORM = 384
_NUM_NEAR = 640
NUM_PARENTS = 10
_CHANGED = 0.4
"""Share of the axes on which a candidate differs from the trial that it is near to."""
_SMALLEST, _LARGEST = 0.01, 0.3
"""By how much on an axis: standard deviations, log-uniform between these."""
_ZERO = 0.15
"""Chance that such an axis is set to its lowest value, an exact 0 among them."""

MANY = 128
"""Of a finite space there are at least so many candidates, while so many are new."""

SAME = 1e-9
"""Points that are closer on each axis are of one configuration."""


@dataclass(frozen=True)
class Candidates:
    """Points of configurations, each once.

    Attributes:
        are_new: whether none of them has been tried; they have where a finite space is used up.
    """

    points_cd: Floats
    are_new: bool


def candidates(axes: Axes, tried: Cells | None, parents_nd: Floats, seed: int) -> Candidates:
    """What may be tried next.

    Args:
        tried: the cells of all trials there are, rising; of a finite space alone.
        parents_nd: of good ones, near which candidates are drawn.
    """
    generator = np.random.default_rng(seed)
    if axes.num_cells is None or tried is None:
        return Candidates(_drawn(axes, parents_nd, generator), are_new=True)
    if axes.num_cells <= MAX_CELLS:
        points_cd = axes.points_of(np.arange(axes.num_cells))
    else:
        points_cd = _once(axes, _drawn(axes, parents_nd, generator))
    new_cd = points_cd[~np.isin(axes.cells(points_cd), tried)]
    if len(new_cd) < min(MANY, axes.num_cells - len(tried)):
        new_cd = _once(axes, np.concatenate([new_cd, _untried(axes, tried, generator)]))
    are_new = len(new_cd) > 0
    return Candidates(new_cd if are_new else points_cd, are_new)


def untried(axes: Axes, tried: Cells, seed: int) -> Floats | None:
    """The point of a configuration of a finite space that is not in `tried`; if any."""
    new_cd = _untried(axes, tried, np.random.default_rng(seed))
    point_d: Floats | None = new_cd[0] if len(new_cd) else None
    return point_d


def _drawn(axes: Axes, parents_nd: Floats, generator: np.random.Generator) -> Floats:
    """Points anywhere, and near the parents."""
    uniform = drawn(axes, _NUM_UNIFORM, generator)
    near = parents_nd[generator.integers(len(parents_nd), size=_NUM_NEAR)]
    changed = generator.random(near.shape) < _CHANGED
    changed[np.arange(_NUM_NEAR), generator.integers(len(axes), size=_NUM_NEAR)] = True
    parents_cd = near
    if axes.is_conditional:  # for parameters that a candidate has and its parent lacks
        near = np.where(near == INACTIVE, generator.random(near.shape), near)
    scale = np.exp(generator.uniform(np.log(_SMALLEST), np.log(_LARGEST), (_NUM_NEAR, 1)))
    # Where there are levels, a step that is smaller than the way to the next one would be none.
    spacing = np.array([0.7 / (axis.num_levels or np.inf) for axis in axes.axes])
    moved = near + (scale + spacing) * generator.standard_normal(near.shape)
    anywhere = generator.random(near.shape)
    lowest = generator.random(near.shape) < _ZERO
    ordered = np.array([axis.ordered for axis in axes.axes])
    # What is moved over an end comes back from it.
    moved = 1 - np.abs(1 - np.abs(np.clip(moved, -1, 2)))
    moved = np.where(lowest, 0.0, np.where(ordered, moved, anywhere))
    moved = axes.snapped(np.where(changed, moved, near))
    # What is snapped back, or has one value alone, is the trial itself.
    is_new = np.abs(moved - parents_cd).max(axis=1) > SAME
    return np.concatenate([uniform, moved[is_new & axes.fits(moved)]])


def _once(axes: Axes, points_cd: Floats) -> Floats:
    """One point of each configuration of a finite space."""
    _, index = np.unique(axes.cells(points_cd), return_index=True)
    points: Floats = points_cd[index]
    return points


def _untried(axes: Axes, tried: Cells, generator: np.random.Generator) -> Floats:
    """Points of `_NUM_UNIFORM` configurations that are not in `tried`, or nearly; if so many."""
    assert axes.num_cells is not None
    if not axes.are_numbered:
        found_cd = _once(axes, drawn(axes, _NUM_UNIFORM, generator))
        new_cd: Floats = found_cd[~np.isin(axes.cells(found_cd), tried)]
        return new_cd
    if axes.num_cells > 2 * len(tried):
        found = generator.integers(axes.num_cells, size=2 * _NUM_UNIFORM)
        new = np.unique(found[~np.isin(found, tried)])
    else:
        is_new = np.ones(axes.num_cells, np.bool_)
        is_new[tried] = False
        new = np.flatnonzero(is_new)
    return axes.points_of(generator.permutation(new)[:_NUM_UNIFORM])
