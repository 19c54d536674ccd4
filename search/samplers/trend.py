"""The mean of a study's process: what its sources make expect, weighted by how right they were.

The targets are taken for Σ β_s m_s + g: with m_s what source s makes expect, g a Gaussian process
of mean 0, and weights β_s of which a normal distribution is known before.  What the trials say of
the weights is that of Rasmussen and Williams, Gaussian Processes for Machine Learning (2006),
section 2.7.

# n trials, m points, s sources
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy

from ridgeline.search.samplers.axes import Floats
from ridgeline.search.samplers.gaussian_process import Kernel

_WEIGHT, _DEVIATION = 0.8, 0.5
"""Mean and standard deviation of a weight before any trial, in units of a correlation.  Several
sources share the mean, and the variance."""

_NUM_BEFORE = 4
"""Trials that the unit of a source counts for before there is any: few that are close to each other
tell little of how far its expectations reach."""


@dataclass(frozen=True)
class Trend:
    """What to expect of a study's trials by its sources alone.

    Attributes:
        centre_s, scale_s: what of each source's expectations is 0 and 1 here.
        weight_s: how much each of them counts; 0 or more, since to be wrong is not to be right
            about the opposite.
    """

    centre_s: Floats
    scale_s: Floats
    weight_s: Floats

    @classmethod
    def before(cls, expected_ns: Floats) -> Trend:
        """The trend before the outcomes of trials are known."""
        num_trials, num_sources = expected_ns.shape
        centre_s = expected_ns.sum(axis=0) / max(num_trials, 1)
        squares_s = ((expected_ns - centre_s) ** 2).sum(axis=0)
        scale_s = np.sqrt((squares_s + _NUM_BEFORE) / (num_trials + _NUM_BEFORE))
        return cls(centre_s, scale_s, np.full(num_sources, _WEIGHT / max(num_sources, 1)))

    @classmethod
    def after(
        cls, kernel: Kernel, features_nf: Floats, target_n: Floats, expected_ns: Floats
    ) -> Trend:
        """The trend once they are: with what is to be expected of the weights."""
        before = cls.before(expected_ns)
        num_trials, num_sources = expected_ns.shape
        if not (num_trials and num_sources):
            return before
        trend_ns, x_ng = before.scaled(expected_ns), kernel.scaled(features_nf)
        covariance_nn = kernel.covariance(x_ng, x_ng) + kernel.nugget * np.eye(num_trials)
        factor = scipy.linalg.cho_factor(covariance_nn, lower=True)
        solved_ns = scipy.linalg.cho_solve(factor, trend_ns)
        precision_ss = trend_ns.T @ solved_ns + np.eye(num_sources) / before.deviation**2
        right_s = solved_ns.T @ target_n + before.weight_s / before.deviation**2
        return replace(before, weight_s=np.maximum(np.linalg.solve(precision_ss, right_s), 0.0))

    @property
    def deviation(self) -> float:
        """Standard deviation of a weight before any trial."""
        return _DEVIATION / math.sqrt(max(len(self.weight_s), 1))

    def scaled(self, expected_ms: Floats) -> Floats:
        """Expectations [m, s] in the units of this study's targets."""
        scaled_ms: Floats = (expected_ms - self.centre_s) / self.scale_s
        return scaled_ms

    def mean(self, expected_ms: Floats) -> Floats:
        """What to expect at points [m]."""
        mean_m: Floats = self.scaled(expected_ms) @ self.weight_s
        return mean_m
