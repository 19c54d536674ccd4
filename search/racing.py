"""Which trials are measured by more seeds, and which one has won; a pure function of values so far.

The trial with the best value of many, each of one seed, is chosen partly for its luck.  So the
leaders race: as long as one of the best has fewer seeds than the most that a trial may have, it is
given as many more as it has.  One that falls back makes room for the next; clear losers get none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ridgeline.search.fields import Direction, SpecPart, Whole

MAX_SEEDS = 100
MAX_LEADERS = 20


class Racing(SpecPart):
    """More seeds for the leaders, once the trials of the search have ended."""

    seeds: Annotated[
        Whole, Field(ge=2, le=MAX_SEEDS, description="that a leader has in the end")
    ] = 8
    leaders: Annotated[
        Whole, Field(ge=1, le=MAX_LEADERS, description="trials that have all seeds in the end")
    ] = 3


@dataclass(frozen=True)
class Contender:
    """A trial as it stands in the race.

    Attributes:
        number: of the trial.
        value: the mean over all its seeds so far; None where one of them has failed, by which the
            trial is out of the race.
        num_seeds: that the value is the mean of.
    """

    number: int
    value: float | None
    num_seeds: int


def next_round(
    contenders: Iterable[Contender], racing: Racing, direction: Direction
) -> list[tuple[Contender, int]]:
    """The leaders that lack seeds, best first, and how many each is to have more; none: it is over.

    Every round ends before the next is asked for, so what is run follows from the values alone, not
    from who was faster.
    """
    leaders = ranked(contenders, direction)[: racing.leaders]
    return [(one, more) for one in leaders if (more := num_more(one.num_seeds, racing)) > 0]


def num_more(num_seeds: int, racing: Racing) -> int:
    """The further seeds of a leader that has so many."""
    return max(0, min(num_seeds, racing.seeds - num_seeds))


def ranked(contenders: Iterable[Contender], direction: Direction) -> list[Contender]:
    """Those that have a value, the best first; ties go to the smaller number.

    The first one is the winner once the race is over; it has all seeds then.
    """
    sign = -1.0 if direction == "maximize" else 1.0
    standing = [(sign * one.value, one.number, one) for one in contenders if one.value is not None]
    return [one for _, _, one in sorted(standing, key=lambda entry: entry[:2])]


def pooled(parts: Sequence[tuple[float | None, int]]) -> float | None:
    """The mean over all seeds, from that of each part and its number of seeds.

    None where a part has none; of one part its own, to the last bit.
    """
    if len(parts) == 1 or any(mean is None for mean, _ in parts):
        return parts[0][0] if len(parts) == 1 else None
    num_seeds = sum(num for _, num in parts)
    # Shares before the sum, which of finite numbers need not be finite.
    return math.fsum(mean * (num / num_seeds) for mean, num in parts if mean is not None)
