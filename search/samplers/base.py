"""What a sampler is: a pure function from a history to configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from ridgeline.search.fields import Direction
from ridgeline.search.history import History
from ridgeline.search.samplers.axes import Axes
from ridgeline.search.samplers.feasible import one
from ridgeline.search.seeds import derive
from ridgeline.search.space import Config, Space

Given = Mapping[int, Config]
"""By trial number, values of some parameters that are not the sampler's to choose."""

NOTHING_GIVEN: Given = MappingProxyType({})


@dataclass(frozen=True)
class Suggestion:
    """The configuration of one trial, and the seed from which it can be drawn again.

    `given` names the parameters of an enqueued trial that a person gave, None where nobody did.
    """

    number: int
    config: Config
    seed: int
    grid_cell: int | None = None
    given: tuple[str, ...] | None = None


class Expectation(NamedTuple):
    """A value that a model expected of a configuration, the mean over its seeds.

    `low` and `high` are the ends of the interval in which the model saw it with 95 %.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Belief:
    """What a model thought of the configuration that it chose.

    Attributes:
        num_candidates: of so many it was the best.
        expected: None of a model that expects no values.
        density_ratio: how much denser good trials were there than others; None of a model that
            has no densities.
    """

    num_candidates: int
    expected: Expectation | None = None
    density_ratio: float | None = None


class Sampler(ABC):
    """Chooses configurations; keeps nothing between calls.

    `identity` names the algorithm and its version, and changes whenever the same arguments would
    give other configurations.
    """

    identity: ClassVar[str]

    def suggest(
        self,
        space: Space,
        history: History,
        numbers: Sequence[int],
        seed: int,
        direction: Direction,
        given: Given = NOTHING_GIVEN,
        sources: Sequence[History] = (),
        *,
        is_enough: Callable[[], bool] = lambda: False,
    ) -> list[Suggestion]:
        """Configurations for the trials `numbers`, which follow one another.

        Each is derived from the study's `seed`, its own number and the trials below it alone.
        Later ones see the earlier ones as RUNNING, so that asking for [5, 6] is asking for [5],
        adding that trial, and asking for [6].  What the history has from `numbers[0]` on is not
        read.  Values that are `given` for a trial stand in for those chosen, in what later trials
        see too; a grid chooses no values and takes none.  `is_enough` is asked after each one; the
        rest are left out where it says so.

        Raises:
            IndexError: a grid has no cell left.
        """
        if not numbers:
            return []
        first = numbers[0]
        assert list(numbers) == list(range(first, first + len(numbers)))
        assert first <= len(history)
        suggestions = self._suggestions(space, history, first, seed, direction, given, sources)
        chosen = []
        for suggestion in islice(suggestions, len(numbers)):
            chosen.append(suggestion)
            if is_enough():
                break
        return chosen

    def belief(
        self,
        space: Space,
        history: History,
        number: int,
        seed: int,
        direction: Direction,
        sources: Sequence[History] = (),
    ) -> Belief | None:
        """What it thinks of its suggestion for one trial; None where no model has chosen it."""
        return None

    @abstractmethod
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
        """Suggestions for the trials `first`, `first + 1` and so on."""


def completed(space: Space, chosen: Config, number: int, seed: int, given: Given) -> Suggestion:
    """What a sampler has chosen for trial `number`, with the values that were given instead.

    Parameters that belong to the trial by these values alone are drawn, and all that are not given
    where the constraints would be broken otherwise.
    """
    fixed = given.get(number)
    if fixed is None:
        return Suggestion(number, chosen, seed)
    config = space.completed(
        {**chosen, **fixed}, lambda name: derive(seed, "given", number, name) / 2**53
    )
    if space.broken(config):
        config = one(Axes(space.narrowed(fixed)), derive(seed, "given", number))
    return Suggestion(number, config, seed, given=tuple(fixed))
