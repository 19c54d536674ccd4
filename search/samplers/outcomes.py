"""What came of trials, as numbers that samplers can learn from.

# n trials that have ended
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from ridgeline.search.cells import hashed
from ridgeline.search.fields import Direction
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers.axes import Cells, Floats

MAX_TRIALS = 2_048
"""Ended trials that are looked at, at most, so that no suggestion waits for a long history."""


@dataclass(frozen=True)
class Outcomes:
    """What is known of the trials below a number.

    A trial that failed ranks behind all others, since a run that diverges says that its
    configuration is bad; one whose configuration has come to a value in another trial does not
    count.  A pruned trial ranks behind the complete ones, by its last value; one without a value
    tells nothing and is left out.  Of very many trials the best ones are kept, and as many of all
    the others.

    Attributes:
        numbers_n: of the trials that have ended, rising.
        rank_n: of each among them, from 1, the best, up; equal ones share the mean of their ranks.
        value_n: of each, smaller is better; NaN where a trial is not complete.
        num_values: how many trials have a value.
        pending: numbers of the trials that wait or run, rising.
    """

    numbers_n: Cells
    rank_n: Floats
    value_n: Floats
    num_values: int
    pending: Cells

    @classmethod
    def of(cls, history: History, first: int, direction: Direction) -> Outcomes:
        """What is known of the trials below `first`."""
        state, value = history.states[:first], history.values[:first]
        complete, pruned = state == TrialStatus.COMPLETE, state == TrialStatus.PRUNED
        valued = (complete | pruned) & ~np.isnan(value)
        failed = np.flatnonzero(state == TrialStatus.FAIL)
        if len(failed):
            rows = hashed((column_n + 0.0).view(np.int64) for column_n in history.columns[:first].T)
            failed = failed[~np.isin(rows[failed], rows[valued])]
        value = -value if direction == "maximize" else value
        numbers_n = np.sort(np.concatenate([np.flatnonzero(valued), failed]))
        if len(numbers_n) > MAX_TRIALS:
            numbers_n = _kept(numbers_n, np.where(complete, value, np.inf)[numbers_n])
        state_n = state[numbers_n]
        value_n = np.where(state_n == TrialStatus.FAIL, np.nan, value[numbers_n])
        return cls(
            numbers_n,
            ranks(value_n, state_n),
            np.where(state_n == TrialStatus.COMPLETE, value_n, np.nan),
            int(np.count_nonzero(valued)),
            np.flatnonzero((state == TrialStatus.WAITING) | (state == TrialStatus.RUNNING)),
        )


def warped(rank_n: Floats, value_n: Floats) -> Floats:
    """The outcomes as targets of a regression: mean 0, variance 1, smaller is better.

    The better half keeps the distances between its values.  Of the others only the ranks
    count, as the upper half of a normal distribution, so that hopeless configurations do not
    set the scale: the half-rank warping of Vizier (Song et al., The Vizier Gaussian Process
    Bandit Algorithm, 2024).
    """
    if not len(rank_n):
        return np.zeros(0)
    middle = (len(rank_n) + 1) / 2
    good_n = (rank_n <= middle) & (value_n < np.inf)  # NaN is not, either
    warped_n = np.zeros(len(rank_n))
    num_good = int(np.count_nonzero(good_n))
    if num_good:
        # In a unit in which no square overflows.
        good = np.maximum(value_n[good_n], np.finfo(np.float64).min)
        good = _divided(good, float(np.abs(good).max()))
        below_n = good - good.max()
        below_n = _divided(below_n, -float(below_n.min()))
        warped_n[good_n] = _divided(below_n, float(np.sqrt(np.mean(below_n**2))))
    share_n = (rank_n[~good_n] - num_good - 0.5) / max(len(warped_n) - num_good, 1)
    warped_n[~good_n] = scipy.special.ndtri(0.5 + 0.5 * np.clip(share_n, 0.0, 1.0 - 1e-3))
    warped_n -= warped_n.mean()
    return _divided(warped_n, float(warped_n.std()))


def _kept(numbers_n: Cells, value_n: Floats) -> Cells:
    """`MAX_TRIALS` of the trials: half of them the best, the others at even distances."""
    num_best = MAX_TRIALS // 2
    limit = np.partition(value_n, num_best - 1)[num_best - 1]
    best = np.concatenate([np.flatnonzero(value_n < limit), np.flatnonzero(value_n == limit)])
    is_other = np.ones(len(numbers_n), np.bool_)
    is_other[best[:num_best]] = False
    others = spread(np.flatnonzero(is_other), MAX_TRIALS - num_best)
    kept: Cells = numbers_n[np.sort(np.concatenate([best[:num_best], others]))]
    return kept


def _divided(value_n: Floats, unit: float) -> Floats:
    """The values in a unit; as they are where that is 0, since they all are."""
    return value_n / unit if unit else value_n


def ranks(value_n: Floats, class_n: npt.NDArray[np.int8]) -> Floats:
    """Ranks from 1 up, by class and then by value; equal ones share the mean of theirs."""
    if not len(value_n):
        return np.zeros(0)
    order = np.lexsort((value_n, class_n))
    value_n, class_n = np.where(np.isnan(value_n), 0.0, value_n)[order], class_n[order]
    # Compared, since the difference of two numbers may be more than the largest one.
    is_next = (value_n[1:] != value_n[:-1]) | (class_n[1:] != class_n[:-1])
    group_n = np.concatenate([[0], np.cumsum(is_next)])
    sizes = np.bincount(group_n)
    rank_n = np.empty(len(order))
    rank_n[order] = (np.cumsum(sizes) - (sizes - 1) / 2)[group_n]
    return rank_n


def informative(rank_n: Floats, count: int) -> Cells:
    """Where `count` trials are that tell most: half of them the best, the others spread by rank."""
    if len(rank_n) <= count:
        return np.arange(len(rank_n))
    order = np.argsort(rank_n, kind="stable")
    best = count // 2
    return np.sort(np.concatenate([order[:best], spread(order[best:], count - best)]))


def spread(numbers: Cells, count: int) -> Cells:
    """At most `count` of the numbers, at even distances."""
    if len(numbers) <= count:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, count).astype(np.int64)]
