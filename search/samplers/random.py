"""Random search: independent draws, uniform over the unit cube."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from ridgeline.search.fields import Direction
from ridgeline.search.history import History
from ridgeline.search.samplers.base import (
    NOTHING_GIVEN,
    Given,
    Sampler,
    Suggestion,
    completed,
)
from ridgeline.search.seeds import derive
from ridgeline.search.space import Space


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
    for number in count(first):
        units = {name: derive(seed, "random", number, name) / 2**53 for name in space.names}
        yield completed(space, space.decode(units), number, derive(seed, "random", number), given)
