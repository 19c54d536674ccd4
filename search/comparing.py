"""What fresh seeds tell about the arms of a comparison: means, paired differences, verdicts.

An arm is one way to train, such as with dropout; its scores are those of runs that differ in their
seeds alone, which no choice was made by.  Run r of every arm has the same seed, so that what a seed
does to all arms alike falls out of a difference.

# R runs of an arm
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy

from ridgeline.search.bounds import Bounds
from ridgeline.search.means import CONFIDENCE, INTERVAL

if TYPE_CHECKING:  # which needs pydantic; nothing here does
    from ridgeline.search.fields import Direction, Verdict

MIN_PAIRS = 3
"""Seeds that a verdict needs: two equal differences tell nothing about how others spread."""

_LARGEST_SQUARED = 1e140
"""From here on, squares of scores and their sums may not be finite."""

Scores = Sequence[float | None]
"""By run; None where it has no score, since it diverged, say."""


@dataclass(frozen=True)
class Interval:
    """Where a mean lies with `CONFIDENCE`: by Student's t, which takes scores as normal."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether the value is one that the data do not exclude."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Mean:
    """The mean score of an arm.

    Attributes:
        interval: None with less than two scores.
        num_runs: with a score.
        num_without: that have none.
    """

    arm: str
    value: float | None
    interval: Interval | None
    num_runs: int
    num_without: int


@dataclass(frozen=True)
class Difference:
    """By how much an arm scores more than another, on the seeds that both have a score of.

    Attributes:
        value: the mean of the differences; None without a common seed.
        interval: of this pair alone; None with less than two common seeds.
        p_value: of the paired t test, adjusted by Holm's method for all pairs of the comparison;
            None where there is no interval.
        verdict: of `arm` against `other`, in the metric's direction.
    """

    arm: str
    other: str
    value: float | None
    interval: Interval | None
    p_value: float | None
    num_pairs: int
    verdict: Verdict


def mean_of(arm: str, scores: Scores) -> Mean:
    """The mean of an arm's scores, and its interval."""
    scale = _scale(scores)
    there = _there(scores, scale)
    return Mean(
        arm,
        _unscaled(float(there.mean()), scale) if len(there) else None,
        _interval(there, scale),
        len(there),
        len(scores) - len(there),
    )


def differences(scores: Mapping[str, Scores], direction: Direction) -> list[Difference]:
    """Of all pairs of arms, in the order of the arms.

    Welch's or Student's test of two samples would count what a seed does to both arms as noise.
    After S. Holm, "A simple sequentially rejective multiple test procedure" (1979), so that not one
    pair of many seems to differ by chance.

    Args:
        scores: by arm; run r of each has the same seed.
        direction: of the metric.

    Raises:
        ValueError: arms have different numbers of runs.
    """
    if len({len(its) for its in scores.values()}) > 1:
        raise ValueError("each arm must have the same number of runs, one for each seed")
    found = [_difference(*pair, scores) for pair in combinations(scores, 2)]
    p_values = iter(_holm([one.p_value for one in found if one.p_value is not None]))
    adjusted = [
        one if one.p_value is None else replace(one, p_value=next(p_values)) for one in found
    ]
    return [replace(one, verdict=_verdict(one, direction)) for one in adjusted]


def shown(interval: Interval | None, bounds: Bounds) -> Interval | None:
    """An interval as people are shown it: what of it the metric can be.

    Student's t knows no bounds, so of few seeds with accuracies near 1 an interval reaches beyond
    1, where no accuracy is; what it holds of possible ones stays the same.  Verdicts go by the
    interval as it is.
    """
    if interval is None:
        return None
    return Interval(max(bounds.low, interval.low), min(bounds.high, interval.high))


def sentence(difference: Difference, metric: str, bounds: Bounds) -> str:
    """What the data support about a pair, for a person who has not read this module.

    Args:
        bounds: of the metric.
    """
    arm, other = difference.arm, difference.other
    interval = shown(difference.interval, bounds.of_differences)
    if difference.value is None or difference.interval is None or interval is None:
        return (
            f"{arm} and {other} have {_seeds(difference.num_pairs)} in common, too few to compare."
        )
    low, high = interval.low, interval.high
    by = (
        f"{metric} differs by {difference.value:+.4g}, {INTERVAL} {low:+.4g} to "
        f"{high:+.4g}, {_seeds(difference.num_pairs)}"
    )
    if difference.verdict != "open":
        return f"{arm} is {difference.verdict} than {other}: {by}."
    if difference.num_pairs < MIN_PAIRS or difference.interval.low == difference.interval.high != 0:
        why = "too few seeds to tell"
    elif difference.interval.holds(0):
        why = "the interval holds 0"
    else:
        why = "with so many pairs, one differs as much by chance"
    return f"{arm} and {other} cannot be told apart: {by}; {why}."


def _difference(arm: str, other: str, scores: Mapping[str, Scores]) -> Difference:
    scale = _scale([*scores[arm], *scores[other]])
    pairs = zip(scores[arm], scores[other], strict=True)
    gains = _there(
        [None if a is None or b is None else a / scale - b / scale for a, b in pairs], 1.0
    )
    value = _unscaled(float(gains.mean()), scale) if len(gains) else None
    interval = _interval(gains, scale)
    p_value = None if interval is None else _p_value(gains)
    return Difference(arm, other, value, interval, p_value, len(gains), "open")


def _verdict(difference: Difference, direction: Direction) -> Verdict:
    interval, p_value, value = difference.interval, difference.p_value, difference.value
    if interval is None or p_value is None or value is None or difference.num_pairs < MIN_PAIRS:
        return "open"
    if interval.holds(0) or p_value >= 1 - CONFIDENCE:
        return "open"
    return "better" if (value > 0) == (direction == "maximize") else "worse"


def _interval(scores: npt.NDArray[np.float64], scale: float) -> Interval | None:
    if len(scores) < 2:
        return None
    mean = float(scores.mean())
    reach = _error(scores) * float(scipy.special.stdtrit(len(scores) - 1, (1 + CONFIDENCE) / 2))
    return Interval(_unscaled(mean - reach, scale), _unscaled(mean + reach, scale))


def _p_value(gains: npt.NDArray[np.float64]) -> float:
    """Of Student's test that the mean is 0, on both sides."""
    mean, error = float(gains.mean()), _error(gains)
    if error == 0:  # equal ones tell their sign and no more, as scores of few rows can be equal
        return 1.0 if mean == 0 else 2.0 ** (1 - len(gains))
    return float(2 * scipy.special.stdtr(len(gains) - 1, -abs(mean / error)))


def _error(scores: npt.NDArray[np.float64]) -> float:
    """The standard error of the mean."""
    return float(scores.std(ddof=1)) / math.sqrt(len(scores))


def _holm(p_values: Sequence[float]) -> list[float]:
    """The adjusted ones: the smallest times their number, the next times one less, rising."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted


def _there(scores: Scores, scale: float) -> npt.NDArray[np.float64]:
    return np.array([score / scale for score in scores if score is not None], dtype=np.float64)


def _scale(scores: Scores) -> float:
    """By which scores are divided: a function may return any, and squares must be finite.

    It is a power of two, so that dividing changes no digit.
    """
    largest = max((abs(score) for score in scores if score is not None), default=0.0)
    return 1.0 if largest < _LARGEST_SQUARED else 2.0**600


def _unscaled(value: float, scale: float) -> float:
    """What is beyond the numbers that there are is told as the greatest one."""
    return min(max(value * scale, -sys.float_info.max), sys.float_info.max)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
