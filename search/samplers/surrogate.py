"""A Gaussian process of what trials have told: its features, its targets and its kernel.

# n trials, f features, s sources
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ridgeline.search.samplers.axes import INACTIVE, Axes, Floats
from ridgeline.search.samplers.evidence import Evidence
from ridgeline.search.samplers.gaussian_process import Kernel, fitted
from ridgeline.search.samplers.outcomes import informative, ranks, warped
from ridgeline.search.samplers.trend import Trend

_MAX_POINTS = 256
_MAX_FITTED = 100
"""Trials that the kernel is fitted to, at most: the time it takes rises with their third power."""
_FEW = 16
_GROWTH = 1.1
"""Up to so many trials each one more changes the kernel, from then on each tenth more."""


@dataclass(frozen=True, eq=False)
class Observed:
    """Trials as a regression has them, equal where all numbers are.

    Attributes:
        features_nf: where they are; see `features`.
        target_n: what came of them, see `warped`.
        expected_ns: what each source makes expect of them.
        is_category_f: whether a feature is the number of a category.
    """

    features_nf: Floats
    target_n: Floats
    expected_ns: Floats
    is_category_f: tuple[bool, ...]

    @classmethod
    def of(
        cls, evidence: Evidence, num_first: int | None = None, count: int = _MAX_POINTS
    ) -> Observed:
        """Of the first `num_first` trials, or of all, the `count` that tell most."""
        outcomes = evidence.outcomes
        rank_n, value_n = outcomes.rank_n, outcomes.value_n[:num_first]
        if num_first is not None:
            rank_n = ranks(rank_n[:num_first], np.zeros(num_first, np.int8))
        kept = informative(rank_n, count)
        places_nd = evidence.places_nd[kept]
        return cls(
            features(evidence.axes, places_nd),
            warped(rank_n, value_n)[kept],
            evidence.expected(places_nd),
            tuple(not axis.ordered for axis in evidence.axes.axes),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Observed) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[bytes, bytes, bytes, tuple[bool, ...]]:
        arrays = self.features_nf, self.target_n, self.expected_ns
        given, target, expected = (array.tobytes() for array in arrays)
        return given, target, expected, self.is_category_f


def features(axes: Axes, places_nd: Floats) -> Floats:
    """Points [n, f]: ordered axes as they are, of others the number of the category.

    A parameter that is lacking lies in the middle of its axis, which is not far from any place, or
    is a category of its own: what tells such trials from others is the parameter it depends on.
    """
    columns = [
        np.where(place_n == INACTIVE, 0.5, place_n)
        if axis.ordered
        else np.where(place_n == INACTIVE, INACTIVE, axis.levels_of(place_n))
        for axis, place_n in zip(axes.axes, places_nd.T, strict=True)
    ]
    return np.stack(columns, axis=1)


def values_at(evidence: Evidence, observed: Observed, targets: Sequence[float]) -> list[float]:
    """The values that targets stand for, smaller ones better; `observed` is of all the evidence.

    Between targets of trials their values are joined by lines; beyond the best one the line goes on
    as the better half of the values does, whose distances the warping keeps.
    """
    value_n = evidence.outcomes.value_n[informative(evidence.outcomes.rank_n, _MAX_POINTS)]
    complete = ~np.isnan(value_n)
    order = np.argsort(observed.target_n[complete], kind="stable")
    target_n, value_n = observed.target_n[complete][order], value_n[complete][order]
    if not len(target_n):
        return [math.nan] * len(targets)
    middle = len(target_n) // 2
    rise = target_n[middle] - target_n[0]
    slope = (value_n[middle] - value_n[0]) / rise if rise > 0 else 0.0
    found: list[float] = np.interp(targets, target_n, value_n).tolist()
    return [
        float(value_n[0] - slope * (target_n[0] - target)) if target < target_n[0] else value
        for target, value in zip(targets, found, strict=True)
    ]


def kernel_of(evidence: Evidence) -> Kernel:
    """The kernel of the first trials, so many that it changes with each tenth more.

    A fit takes most of the time of a suggestion, and one more trial changes little.
    """
    num_trials = len(evidence.places_nd)
    steps = math.floor(math.log(num_trials / _FEW, _GROWTH)) if num_trials > _FEW else 0
    num_first = min(num_trials, math.ceil(_FEW * _GROWTH**steps))
    return _fitted(Observed.of(evidence, num_first, _MAX_FITTED))


@lru_cache(maxsize=64)
def _fitted(observed: Observed) -> Kernel:
    trend = Trend.before(observed.expected_ns)
    trend_ns = trend.scaled(observed.expected_ns)
    target_n = observed.target_n - trend_ns @ trend.weight_s
    spread_ns = trend_ns * trend.deviation
    return fitted(observed.features_nf, observed.is_category_f, target_n, spread_ns)
