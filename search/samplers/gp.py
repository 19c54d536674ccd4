"""Search by a Gaussian process: the trial of which the largest improvement can be expected.

# n trials, c candidates, d axes, f features
"""

from __future__ import annotations

import math

import numpy as np

from ridgeline.search.samplers.axes import Floats
from ridgeline.search.samplers.base import Belief, Expectation
from ridgeline.search.samplers.evidence import Evidence
from ridgeline.search.samplers.gaussian_process import (
    Kernel,
    Posterior,
    log_expected_improvement,
)
from ridgeline.search.samplers.model_based import (
    MAX_PENDING,
    Model,
    ModelBasedSampler,
    Scores,
)
from ridgeline.search.samplers.surrogate import Observed, features, kernel_of, values_at
from ridgeline.search.samplers.trend import Trend

_Z_95 = 1.959963984540054
"""Standard deviations to each side within which 95 % of a normal distribution lie."""


class GpSampler(ModelBasedSampler):
    """Suggests where a Gaussian process expects most improvement on the best trial.

    Of long histories it sees the trials that tell most (see `informative`), so that a suggestion
    takes milliseconds at any length.
    """

    name = "gp"
    identity = "gp/1"

    def fitted(self, evidence: Evidence) -> Model:
        kernel, observed = kernel_of(evidence), Observed.of(evidence)
        trend = Trend.after(kernel, observed.features_nf, observed.target_n, observed.expected_ns)

        def scores(candidates_cd: Floats) -> Scores:
            return _Improvements(evidence, kernel, observed, trend, candidates_cd)

        return scores


class _Improvements:
    """The improvement that is expected of each candidate."""

    def __init__(
        self,
        evidence: Evidence,
        kernel: Kernel,
        observed: Observed,
        trend: Trend,
        candidates_cd: Floats,
    ) -> None:
        self._evidence, self._observed = evidence, observed
        self._trend, self._candidates_cd = trend, candidates_cd
        # The process is of what the trend leaves; the one mean and the other add up.
        self._trend_c = trend.mean(evidence.expected(candidates_cd))
        trend_n = trend.mean(observed.expected_ns)
        self._posterior = Posterior(
            kernel,
            observed.features_nf,
            observed.target_n - trend_n,
            features(evidence.axes, candidates_cd),
            MAX_PENDING,
        )
        # By what is expected of them, since the lowest of noisy values was lucky.
        known_n = self._posterior.mean_n + trend_n
        self._best = float(known_n.min() if len(known_n) else self._trend_c.min())

    def take_in(self, place_d: Floats) -> None:
        mean = self._posterior.take_in(features(self._evidence.axes, place_d[None])[0])
        self._best = min(self._best, mean + self._trend_at(place_d))

    def _trend_at(self, place_d: Floats) -> float:
        at_c = np.flatnonzero((self._candidates_cd == place_d).all(axis=1))
        if len(at_c):  # as nearly always: sources are costly to ask
            return float(self._trend_c[at_c[0]])
        return float(self._trend.mean(self._evidence.expected(place_d[None]))[0])

    def of_candidates(self) -> Floats:
        return log_expected_improvement(
            self._posterior.mean_m + self._trend_c, self._posterior.variance_m, self._best
        )

    def belief(self, candidate: int) -> Belief:
        mean = float(self._posterior.mean_m[candidate] + self._trend_c[candidate])
        deviation = math.sqrt(max(float(self._posterior.variance_m[candidate]), 0.0))
        targets = mean, mean - _Z_95 * deviation, mean + _Z_95 * deviation
        values = values_at(self._evidence, self._observed, targets)
        return Belief(len(self._candidates_cd), Expectation(*values))
