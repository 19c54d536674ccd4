"""Random search: independent draws, uniform over the unit cube."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from ridgeline.search.fields import Direction
from ridgeline.search.history import History
from ridgeline.search.samplers.axes import Axes
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
"""Draws of one trial that may break a constraint, before it is drawn among what keeps them all."""


class RandomSampler(Sampler):
    """Draws each parameter from its name, so that one more parameter changes no other's draws."""

    identity = "random/1"

    def _suggestions(
        self,
        space: Space,
        history: History,
        first: int,
        seed: int,
        direction: Direction,
        given: Given,
    ) -> Iterator[Suggestion]:
        return draws(space, first, seed, given)


def draws(
    space: Space, first: int, seed: int, given: Given = NOTHING_GIVEN
) -> Iterator[Suggestion]:
    """What random search suggests for the trials `first`, `first + 1` and so on."""
    axes = Axes(space)
    for number in count(first):
        config = _draw(axes, number, seed)
        yield completed(space, config, number, derive(seed, "random", number), given)


def _draw(axes: Axes, number: int, seed: int) -> Config:
    space = axes.space
    for attempt in range(_ATTEMPTS):
        again = (attempt,) if attempt else ()
        units = {name: derive(seed, "random", number, name, *again) / 2**53 for name in space.names}
        config = space.decode(units)
        if not space.broken(config):
            return config
    return one(axes, derive(seed, "random", number))
