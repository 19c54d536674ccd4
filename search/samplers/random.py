"""Random search: draws that are uniform over the unit cube, or denser by its priors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from ridgeline.search.cells import MAX_LISTED
from ridgeline.search.fields import Direction
from ridgeline.search.history import History
from ridgeline.search.samplers.axes import Axes, Cells, Floats
from ridgeline.search.samplers.base import (
    NOTHING_GIVEN,
    Given,
    Sampler,
    Suggestion,
    completed,
)
from ridgeline.search.samplers.feasible import one
from ridgeline.search.seeds import derive
from ridgeline.search.space import Config, Space

_ATTEMPTS = 64
"""Draws of one trial that may break a constraint or have been tried, before it is drawn among what
is left."""


class RandomSampler(Sampler):
    """Draws each parameter from its name, so that one more parameter changes no other's draws.

    In a finite space no configuration is suggested twice before all have been tried.
    """

    identity = "random/2"

    def _suggestions(
        self,
        space: Space,
        history: History,
        first: int,
        seed: int,
        direction: Direction,
        given: Given,
        sources: Sequence[History],
    ) -> Iterator[Suggestion]:
        return draws(space, first, seed, given, history.columns[:first])


def draws(
    space: Space,
    first: int,
    seed: int,
    given: Given = NOTHING_GIVEN,
    columns_nd: Floats | None = None,
) -> Iterator[Suggestion]:
    """What random search suggests for the trials `first`, `first + 1` and so on.

    Args:
        columns_nd: of the trials below, as a history has them; left out, nothing has been tried.
    """
    axes = Axes(space)
    tried = _Tried(axes)
    if columns_nd is not None:
        tried.add(columns_nd)
    for number in count(first):
        config = _draw(axes, number, seed, tried)
        suggestion = completed(space, config, number, derive(seed, "random", number), given)
        yield suggestion
        tried.add(np.array([space.to_columns(suggestion.config)]))


class _Tried:
    """The configurations of a finite space that have been tried; of another one, none."""

    def __init__(self, axes: Axes) -> None:
        self._axes, self._cells = axes, set[int]()

    def add(self, columns_nd: Floats) -> None:
        if self._axes.num_cells is not None:
            self._cells.update(self._axes.cells(self._axes.places(columns_nd)).tolist())

    def has(self, config: Config) -> bool:
        if not self._cells:
            return False
        columns = np.array([self._axes.space.to_columns(config)])
        return int(self._axes.cells(self._axes.places(columns))[0]) in self._cells

    @property
    def are_most(self) -> bool:
        """Whether these are half of all at least, so that draws would meet them again and again."""
        num_cells = self._axes.num_cells
        return num_cells is not None and 2 * len(self._cells) >= num_cells

    def left(self) -> Cells:
        """The cells that have not been tried, where all are listed."""
        axes = self._axes
        if not axes.are_numbered or axes.num_cells is None or axes.num_cells > MAX_LISTED:
            return np.empty(0, np.int64)
        is_left = np.ones(axes.num_cells, np.bool_)
        is_left[list(self._cells)] = False
        return np.flatnonzero(is_left)


def _draw(axes: Axes, number: int, seed: int, tried: _Tried) -> Config:
    space, again = axes.space, None
    for attempt in range(1 if tried.are_most else _ATTEMPTS):
        last = (attempt,) if attempt else ()
        units = {name: derive(seed, "random", number, name, *last) / 2**53 for name in space.names}
        config = space.decode(axes.leaned_units(units))
        if not space.broken(config):
            if not tried.has(config):
                return config
            again = again or config
    seed_here = derive(seed, "random", number)
    left = tried.left()
    if len(left):
        return axes.config(axes.points_of(left[[seed_here % len(left)]])[0])
    return again or one(axes, seed_here)
