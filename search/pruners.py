"""Pruners: what a run must reach, epoch by epoch, told from the runs before it.

Each is a part of the spec and a pure function from curves to thresholds.  A threshold is all that a
device needs to decide by itself: a run that is strictly worse at that epoch ends there, an equal
one goes on.

A rule compares runs, each by itself, whatever trials they are of: the replicates of a trial meet it
one by one.  A run stands, at an epoch, at the value it would end with there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ridgeline.search.fields import MAX_EPOCHS, Direction, SpecPart, Whole

MAX_STARTUP = 100_000
MAX_ETA = 1_000


@dataclass(frozen=True)
class Curve:
    """How one run has stood, by epoch.

    Attributes:
        is_complete: whether the run has ended, of itself and well.
        revision: of the newest change of the run or of one of its reports.
        standings: by epoch, counted from 1, what the run would have ended with there.
    """

    is_complete: bool
    revision: int
    standings: Mapping[int, float]


class MedianPruner(SpecPart):
    """The median stopping rule: a run ends where it is worse than the median of complete ones.

    Golovin et al., *Google Vizier: A Service for Black-Box Optimization* (KDD 2017), section 3.2.1.
    There a run is compared by its best so far, and a complete one counts by its mean up to the
    epoch; in Optuna's `MedianPruner` by its value at the epoch.  Here both sides are taken as they
    stand, which is their best so far where the best epoch is the one that counts.
    """

    name: Literal["median"]
    startup: Annotated[
        Whole,
        Field(
            ge=1,
            le=MAX_STARTUP,
            description="complete runs that must have reached an epoch before it prunes",
        ),
    ] = 5
    warmup_epochs: Annotated[
        Whole, Field(ge=0, le=MAX_EPOCHS, description="first epochs, which prune nobody")
    ] = 0

    @property
    def first_epoch(self) -> int:
        """The first epoch that may prune."""
        return self.warmup_epochs + 1

    def basis(self, curves: Iterable[Curve]) -> list[Curve]:
        """The curves without a change of which the thresholds do not change either."""
        return [curve for curve in curves if curve.is_complete]

    def thresholds(self, basis: Sequence[Curve], direction: Direction) -> dict[int, float]:
        """By epoch, the median of the complete runs that reached it."""
        by_epoch: dict[int, list[float]] = {}
        for curve in basis:
            for epoch, value in curve.standings.items():
                if epoch >= self.first_epoch:
                    by_epoch.setdefault(epoch, []).append(value)
        return {
            epoch: _median(values)
            for epoch, values in sorted(by_epoch.items())
            if len(values) >= self.startup
        }


class HalvingPruner(SpecPart):
    """Asynchronous successive halving: at each rung the best 1/eta of the runs go on.

    Li et al., *A System for Massively Parallel Hyperparameter Tuning* (MLSys 2020), in the form
    that only stops: nothing that was stopped is taken up again.  The rungs are the epochs
    `min_epochs`·eta^k.  A run meets the others that have reached the rung before it, itself counted
    in; until eta have, nobody is pruned there.  From then on it decides as Optuna's
    `SuccessiveHalvingPruner` does.
    """

    name: Literal["halving"]
    eta: Annotated[
        Whole, Field(ge=2, le=MAX_ETA, description="one of so many goes on from each rung")
    ] = 3
    min_epochs: Annotated[Whole, Field(ge=1, le=MAX_EPOCHS, description="the lowest rung")] = 1

    @property
    def first_epoch(self) -> int:
        """The first epoch that may prune."""
        return self.min_epochs

    def basis(self, curves: Iterable[Curve]) -> list[Curve]:
        """The curves without a change of which the thresholds do not change either.

        All: a run counts at each rung it has reached, whatever becomes of it, until it starts again
        from nothing.
        """
        return list(curves)

    def thresholds(self, basis: Sequence[Curve], direction: Direction) -> dict[int, float]:
        """By rung, the worst value with which one more run would be among the best 1/eta."""
        found: dict[int, float] = {}
        last = max((epoch for curve in basis for epoch in curve.standings), default=0)
        for rung in self._rungs(last):
            values = [curve.standings[rung] for curve in basis if rung in curve.standings]
            num_going_on = (len(values) + 1) // self.eta
            if values and num_going_on > 0:
                values.sort(reverse=direction == "maximize")
                found[rung] = values[num_going_on - 1]
        return found

    def _rungs(self, last_epoch: int) -> Iterator[int]:
        rung = self.min_epochs
        while rung <= last_epoch:
            yield rung
            rung *= self.eta


Pruner = MedianPruner | HalvingPruner


def standings(
    values: Mapping[int, float], direction: Direction, *, keeps_best: bool
) -> dict[int, float]:
    """How a run stood at each epoch, from the objective's metric there.

    `keeps_best` says that its best epoch counts, as under early stopping; else the last one does.
    """
    if not keeps_best:
        return dict(values)
    better = max if direction == "maximize" else min
    found: dict[int, float] = {}
    best: float | None = None
    for epoch in sorted(values):
        best = values[epoch] if best is None else better(best, values[epoch])
        found[epoch] = best
    return found


def is_worse(value: float, threshold: float, direction: Direction) -> bool:
    """Whether a run that stands at `value` is to end there."""
    return value < threshold if direction == "maximize" else value > threshold


def _median(values: list[float]) -> float:
    """The median; of an even number, the middle of the two in the middle."""
    values.sort()
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    return low if low == high else low / 2 + high / 2  # the sum could be infinite
