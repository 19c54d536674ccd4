"""Search by a Gaussian process: the trial of which the largest improvement can be expected.

# n trials, c candidates, d axes, f features
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ridgeline.search.samplers.axes import INACTIVE, Axes, Floats
from ridgeline.search.samplers.gaussian_process import (
    Kernel,
    Posterior,
    fitted,
    log_expected_improvement,
)
from ridgeline.search.samplers.model_based import (
    MAX_PENDING,
    Evidence,
    Model,
    ModelBasedSampler,
    Scores,
)
from ridgeline.search.samplers.outcomes import informative, ranks, warped

_MAX_POINTS = 256
_MAX_FITTED = 100
"""Trials that the kernel is fitted to, at most: the time it takes rises with their third power."""
_FEW = 16
_GROWTH = 1.1
"""Up to so many trials each one more changes the kernel, from then on each tenth more."""


class GpSampler(ModelBasedSampler):
    """Suggests where a Gaussian process expects most improvement on the best trial.

    Of long histories it sees the trials that tell most (see `informative`), so that a suggestion
    takes milliseconds at any length.
    """

    name = "gp"
    identity = "gp/1"

    def fitted(self, evidence: Evidence) -> Model:
        axes, outcomes = evidence.axes, evidence.outcomes
        kernel = _kernel(evidence)
        kept = informative(outcomes.rank_n, _MAX_POINTS)
        target_n = warped(outcomes.rank_n, outcomes.value_n)[kept]
        features_nf = _features(axes, evidence.places_nd[kept])

        def scores(candidates_cd: Floats) -> Scores:
            return _Improvements(axes, kernel, features_nf, target_n, candidates_cd)

        return scores


def _kernel(evidence: Evidence) -> Kernel:
    """The kernel of the first trials, so many that it changes with each tenth more.

    A fit takes most of the time of a suggestion, and one more trial changes little.
    """
    axes, num_trials = evidence.axes, len(evidence.places_nd)
    steps = math.floor(math.log(num_trials / _FEW, _GROWTH)) if num_trials > _FEW else 0
    num_first = min(num_trials, math.ceil(_FEW * _GROWTH**steps))
    value_n = evidence.outcomes.value_n[:num_first]
    rank_n = ranks(evidence.outcomes.rank_n[:num_first], np.zeros(num_first, np.int8))
    kept = informative(rank_n, _MAX_FITTED)
    features_nf = _features(axes, evidence.places_nd[:num_first][kept])
    target_n = warped(rank_n, value_n)[kept]
    return _fitted(_Data(features_nf, target_n, _is_category(axes)))


@dataclass(frozen=True, eq=False)
class _Data:
    """What a kernel is fitted to, equal where all numbers are."""

    features_nf: Floats
    target_n: Floats
    is_category_f: tuple[bool, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Data) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[bytes, bytes, tuple[bool, ...]]:
        return self.features_nf.tobytes(), self.target_n.tobytes(), self.is_category_f


@lru_cache(maxsize=64)
def _fitted(data: _Data) -> Kernel:
    return fitted(data.features_nf, data.is_category_f, data.target_n)


class _Improvements:
    """The improvement that is expected of each candidate."""

    def __init__(
        self,
        axes: Axes,
        kernel: Kernel,
        features_nf: Floats,
        target_n: Floats,
        candidates_cd: Floats,
    ) -> None:
        self._axes = axes
        features_cf = _features(axes, candidates_cd)
        self._posterior = Posterior(kernel, features_nf, target_n, features_cf, MAX_PENDING)
        # By what is expected of them, since the lowest of noisy values was lucky.
        self._best = float(self._posterior.mean_n.min())

    def take_in(self, place_d: Floats) -> None:
        mean = self._posterior.take_in(_features(self._axes, place_d[None])[0])
        self._best = min(self._best, mean)

    def of_candidates(self) -> Floats:
        return log_expected_improvement(
            self._posterior.mean_m, self._posterior.variance_m, self._best
        )


def _features(axes: Axes, places_nd: Floats) -> Floats:
    """Ordered axes as they are, of others the number of the category.

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


def _is_category(axes: Axes) -> tuple[bool, ...]:
    return tuple(not axis.ordered for axis in axes.axes)
