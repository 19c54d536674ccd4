"""Pruners: what a run must reach, epoch by epoch, told from the runs before it.

Each is a part of the spec and a pure function from curves to thresholds.  A threshold is all that a
device needs to decide by itself: a run that is strictly worse at that epoch ends there, an equal
one goes on.  Some thresholds are for what a run is predicted to end with, from its own curve.

A rule compares runs, each by itself, whatever trials they are of: the replicates of a trial meet it
one by one.  A run stands, at an epoch, at the value it would end with there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal

from pydantic import Field

from ridgeline.search.fields import MAX_EPOCHS, Direction, SpecPart, Whole
from ridgeline.search.predicting import Prediction, predicted

MAX_STARTUP = 100_000
MAX_ETA = 1_000
MAX_BRACKETS = 8

GAIN = 0.5
"""What a doubling of the epochs gains, of what the one before has gained."""


@dataclass(frozen=True)
class Curve:
    """How one run has stood, by epoch.

    Attributes:
        is_complete: whether the run has ended, of itself and well.
        revision: of the newest change of the run or of one of its reports.
        standings: by epoch, counted from 1, what the run would have ended with there.
        trial: the number of the run's trial.
    """

    is_complete: bool
    revision: int
    standings: Mapping[int, float]
    trial: int = 0


@dataclass(frozen=True)
class Requirements:
    """What the runs of a bracket must reach.

    Attributes:
        thresholds: by epoch.
        predictions: by epoch, of those at which a run is compared by what it is predicted to end
            with; at the others it is compared as it stands.
    """

    thresholds: Mapping[int, float]
    predictions: Mapping[int, Prediction] = field(default_factory=dict)


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
        """The curves that the thresholds depend on."""
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


class _OnRungs(SpecPart):
    """A pruner that compares runs at rungs, each `eta` times as many epochs as the one before.

    A run counts at each rung it has reached, whatever becomes of it, until it starts again from
    nothing.
    """

    name: str
    eta: Annotated[
        Whole, Field(ge=2, le=MAX_ETA, description="one of so many goes on from each rung")
    ] = 3
    min_epochs: Annotated[Whole, Field(ge=1, le=MAX_EPOCHS, description="the lowest rung")] = 1

    @property
    def first_epoch(self) -> int:
        """The first epoch that may prune."""
        return self.min_epochs

    def basis(self, curves: Iterable[Curve]) -> list[Curve]:
        """The curves that what is required of a run depends on: all."""
        return list(curves)


class HalvingPruner(_OnRungs):
    """Asynchronous successive halving: at each rung the best 1/eta of the runs go on.

    Li et al., *A System for Massively Parallel Hyperparameter Tuning* (MLSys 2020), in the form
    that only stops: nothing that was stopped is taken up again.  The rungs are the epochs
    `min_epochs`·eta^k.  A run meets the others that have reached the rung before it, itself counted
    in; until eta have, nobody is pruned there.  From then on it decides as Optuna's
    `SuccessiveHalvingPruner` does.
    """

    name: Literal["halving"]

    def thresholds(self, basis: Sequence[Curve], direction: Direction) -> dict[int, float]:
        """By rung, the worst value with which one more run would be among the best 1/eta."""
        found: dict[int, float] = {}
        last = max((epoch for curve in basis for epoch in curve.standings), default=0)
        for rung in _rungs(self.min_epochs, self.eta, last):
            values = [curve.standings[rung] for curve in basis if rung in curve.standings]
            if (worst := _worst_going_on(values, self.eta, direction)) is not None:
                found[rung] = worst
        return found


class HyperbandPruner(_OnRungs):
    """Asynchronous Hyperband: halving from several lowest rungs, in case early epochs mislead.

    Li et al., *Hyperband* (JMLR 18, 2018), with the halving of `HalvingPruner`.  The trials of a
    bracket meet each other alone; the lowest rung of bracket b is `min_epochs`·eta^b.  Which
    bracket a trial is in follows from its number: of the first n trials, each bracket has what
    Hyperband gives it, so that all brackets train about as many epochs.
    """

    name: Literal["hyperband"]
    min_epochs: Annotated[
        Whole, Field(ge=1, le=MAX_EPOCHS, description="the lowest rung of all")
    ] = 1
    brackets: Annotated[
        Whole, Field(ge=1, le=MAX_BRACKETS, description="sets of trials, each with a lowest rung")
    ] = 3

    def bracket_of(self, trial: int) -> int:
        """The bracket of a trial, by its number."""
        order = _shared_out(tuple(self._shares()))
        return order[trial % len(order)]

    def halving_of(self, bracket: int) -> HalvingPruner:
        """What prunes the trials of a bracket."""
        lowest = self.min_epochs * self.eta**bracket
        return HalvingPruner.model_construct(name="halving", eta=self.eta, min_epochs=lowest)

    def _shares(self) -> Iterator[int]:
        """Of how many trials each bracket has: ⌈B/(s+1)·eta^s⌉ with s = B-1-b, B brackets."""
        for s in reversed(range(self.brackets)):
            yield -(-self.brackets * self.eta**s // (s + 1))


class CurvePruner(_OnRungs):
    """Halving by prediction: at each rung the best 1/eta by where their own curves are going.

    An early rung favours what learns fast; what learns longer is told by how much it still gains.
    Each doubling of the epochs is taken to bring half of what the one before has brought, a power
    law with the exponent -1: at epoch e of n, a run that has gained g since e/2 will gain
    g·(1/2 + 1/4 + …), with a term for each doubling from e to n.  A run past half of its epochs is
    not pruned any more, as little is saved there.
    """

    name: Literal["curve"]
    min_epochs: Annotated[Whole, Field(ge=2, le=MAX_EPOCHS, description="the lowest rung")] = 2

    def requirements(
        self, basis: Sequence[Curve], direction: Direction, last_epoch: int
    ) -> Requirements:
        """By rung, the worst prediction with which one more run would be among the best 1/eta.

        Args:
            last_epoch: of the longest run there may be.
        """
        predictions = {
            rung: _prediction(rung, last_epoch)
            for rung in _rungs(self.min_epochs, self.eta, last_epoch // 2)
        }
        thresholds: dict[int, float] = {}
        for rung, prediction in predictions.items():
            values = [
                predicted(curve.standings[rung], curve.standings, prediction)
                for curve in basis
                if rung in curve.standings
            ]
            if (worst := _worst_going_on(values, self.eta, direction)) is not None:
                thresholds[rung] = worst
        return Requirements(thresholds, {rung: predictions[rung] for rung in thresholds})


Pruner = MedianPruner | HalvingPruner | HyperbandPruner | CurvePruner


def bracket_of(pruner: Pruner | None, trial: int) -> int:
    """The bracket of a trial, by its number; 0 where all are compared with each other."""
    return pruner.bracket_of(trial) if isinstance(pruner, HyperbandPruner) else 0


def requirements_of(
    pruner: Pruner, basis: Sequence[Curve], direction: Direction, last_epoch: int | None
) -> tuple[Requirements, ...]:
    """By bracket, what its runs must reach.

    Args:
        last_epoch: of the longest run there may be; None where nobody knows: of those up to now.
    """
    if isinstance(pruner, CurvePruner):
        last = last_epoch or max((e for curve in basis for e in curve.standings), default=0)
        return (pruner.requirements(basis, direction, last),)
    if not isinstance(pruner, HyperbandPruner):
        return (Requirements(pruner.thresholds(basis, direction)),)
    by_bracket: list[list[Curve]] = [[] for _ in range(pruner.brackets)]
    for curve in basis:
        by_bracket[pruner.bracket_of(curve.trial)].append(curve)
    return tuple(
        Requirements(pruner.halving_of(bracket).thresholds(its, direction))
        for bracket, its in enumerate(by_bracket)
    )


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


def _rungs(lowest: int, eta: int, last_epoch: int) -> Iterator[int]:
    rung = lowest
    while rung <= last_epoch:
        yield rung
        rung *= eta


def _worst_going_on(values: list[float], eta: int, direction: Direction) -> float | None:
    """The worst value with which one more run would be among the best 1/eta; None: any."""
    num_going_on = (len(values) + 1) // eta
    if not values or num_going_on == 0:
        return None
    values.sort(reverse=direction == "maximize")
    return values[num_going_on - 1]


def _prediction(epoch: int, last_epoch: int) -> Prediction:
    """Of what a run at `epoch` ends with after `last_epoch`; see `CurvePruner`."""
    since = (epoch + 1) // 2
    # Of `num` doublings to come, of which each brings half of the one before.
    num = math.log2(last_epoch / epoch)
    to_come = GAIN * (1 - GAIN**num) / (1 - GAIN)
    return Prediction(since, to_come / math.log2(epoch / since))


@cache
def _shared_out(shares: tuple[int, ...]) -> tuple[int, ...]:
    """An order of so many of each number as its share says, in which each is spread evenly."""
    given = [0] * len(shares)
    order: list[int] = []
    total = sum(shares)
    for place in range(1, total + 1):
        # Whoever lacks most of what is due by now; of equals the first.
        lacking = [share * place - total * has for share, has in zip(shares, given, strict=True)]
        number = lacking.index(max(lacking))
        given[number] += 1
        order.append(number)
    return tuple(order)


def _median(values: list[float]) -> float:
    """The median; of an even number, the middle of the two in the middle."""
    values.sort()
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    return low if low == high else low / 2 + high / 2  # the sum could be infinite
