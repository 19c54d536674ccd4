"""Gaussian-process regression of few hundred points, with fantasies.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006): the posterior is that of
section 2.2 and the gradient of the marginal likelihood that of section 5.4.1, by a Matérn kernel
with ν = 5/2 and a length scale for each axis (equation 4.17).

# n observed points, m points asked about, f features, s functions
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used: they take half a second

from ridgeline.search.samplers.axes import Flags, Floats

_JITTER = 1e-8

# Means and standard deviations of the normal priors over logarithms.  A length scale is in units of
# the axis, and its mean grows with the square root of the number of axes as distances do (Hvarfner
# et al., Vanilla Bayesian Optimization Performs Great in High Dimensions, 2024); noise and signal
# are variances of values that are standardised.
_LENGTH = math.log(0.25), 0.9
_SIGNAL = 0.0, 0.7
_NOISE = math.log(0.02), 1.2
_MAX_DEVIATIONS = 3.0
_MAX_ITERATIONS = 25

_GRID = 0.05
"""Logarithms are rounded to multiples of it: what the last digits of a sum are depends on the
machine, and a suggestion must be derived again on another one."""


@dataclass(frozen=True)
class Kernel:
    """A Matérn kernel with ν = 5/2, and the noise of the observations.

    Attributes:
        length_f: length scale of each feature.
        is_category_f: whether numbers of a feature are 1 apart wherever they differ.
        signal: variance of the function.
        noise: variance of an observation.
    """

    length_f: Floats
    is_category_f: Flags
    signal: float
    noise: float

    @property
    def nugget(self) -> float:
        """What is added to the variance of each observation."""
        return self.noise + _JITTER

    def scaled(self, x_nf: Floats) -> Floats:
        """Categories as they are; other features in units of length, with squares of distances.

        Of these it takes two more columns for a product to be the square of a distance.
        """
        is_number_f = ~self.is_category_f
        scaled_nf = x_nf[:, is_number_f] * (math.sqrt(5) / self.length_f[is_number_f])
        half_n = -0.5 * (scaled_nf**2).sum(axis=1)
        categories_nf = x_nf[:, self.is_category_f]
        return np.column_stack([categories_nf, scaled_nf, half_n, np.ones(len(x_nf))])

    def covariance(self, x_ng: Floats, x_mg: Floats) -> Floats:
        """Covariances [n, m] of the function at `scaled` points."""
        weight_f = 5 / self.length_f[self.is_category_f] ** 2
        numbers_mg = x_mg[:, len(weight_f) :].copy()
        numbers_mg[:, -2:] = x_mg[:, :-3:-1]
        squared_nm = -2 * (x_ng[:, len(weight_f) :] @ numbers_mg.T)
        for feature, weight in enumerate(weight_f.tolist()):
            squared_nm += weight * (x_ng[:, feature, None] != x_mg[:, feature])
        return self.signal * _matern(np.sqrt(np.maximum(squared_nm, 0.0)))


def fitted(
    x_nf: Floats, is_category_f: Sequence[bool], y_n: Floats, trend_ns: Floats | None = None
) -> Kernel:
    """The kernel of the highest posterior density.

    Args:
        trend_ns: functions at the points; the values have a sum of them on top, each times a number
            of a standard normal distribution that is not known.
    """
    num_points, num_features = x_nf.shape
    squared_fnn = np.empty((num_features, num_points, num_points))
    for feature, is_category in enumerate(is_category_f):
        off_nn = x_nf[:, feature, None] - x_nf[:, feature]
        squared_fnn[feature] = off_nn != 0 if is_category else off_nn**2
    flat_fp = squared_fnn.reshape(num_features, -1)
    identity = np.eye(num_points)
    trend_nn = np.zeros_like(identity) if trend_ns is None else trend_ns @ trend_ns.T
    length = _LENGTH[0] + 0.5 * math.log(num_features)
    mean = np.array([length] * num_features + [_SIGNAL[0], _NOISE[0]])
    deviation = np.array([_LENGTH[1]] * num_features + [_SIGNAL[1], _NOISE[1]])

    def loss(logs: Floats) -> tuple[float, Floats]:
        weight_f, signal, noise = np.exp(-2 * logs[:-2]), math.exp(logs[-2]), math.exp(logs[-1])
        distance_nn = np.sqrt(5 * (weight_f @ flat_fp)).reshape(num_points, num_points)
        decay_nn = np.exp(-distance_nn)
        kernel_nn = signal * (1 + distance_nn + distance_nn**2 / 3) * decay_nn
        factor = scipy.linalg.cho_factor(
            kernel_nn + trend_nn + (noise + _JITTER) * identity, lower=True, check_finite=False
        )
        inverse_nn = scipy.linalg.cho_solve(factor, identity, check_finite=False)
        weighted_n = inverse_nn @ y_n
        off = (logs - mean) / deviation
        value = 0.5 * (y_n @ weighted_n) + np.log(np.diag(factor[0])).sum() + 0.5 * (off @ off)
        slope_nn = inverse_nn - np.outer(weighted_n, weighted_n)
        # The derivative of the kernel by log length scale is 5/3 signal (1 + r) exp(-r) d² / l².
        by_length = (slope_nn * (signal * 5 / 3 * (1 + distance_nn) * decay_nn)).ravel()
        gradient = np.empty_like(logs)
        gradient[:-2] = 0.5 * (flat_fp @ by_length) * weight_f
        gradient[-2] = 0.5 * np.vdot(slope_nn, kernel_nn)
        gradient[-1] = 0.5 * noise * np.trace(slope_nn)
        return float(value), gradient + off / deviation

    reach = _MAX_DEVIATIONS * deviation
    found = scipy.optimize.minimize(
        loss,
        mean,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(mean - reach, mean + reach, strict=True)),
        options={"maxiter": _MAX_ITERATIONS},
    )
    values = np.exp(np.rint(found.x / _GRID) * _GRID)
    return Kernel(values[:-2], np.array(is_category_f), float(values[-2]), float(values[-1]))


class Regression:
    """The mean of the function given observations at n points, cheap at any number of others."""

    def __init__(self, kernel: Kernel, x_nf: Floats, y_n: Floats) -> None:
        self._kernel, self._x_ng = kernel, kernel.scaled(x_nf)
        covariance_nn = kernel.covariance(self._x_ng, self._x_ng)
        factor = scipy.linalg.cho_factor(
            covariance_nn + kernel.nugget * np.eye(len(x_nf)), lower=True
        )
        self._weighted_n: Floats = scipy.linalg.cho_solve(factor, y_n)

    def mean(self, x_mf: Floats) -> Floats:
        """The mean at m points."""
        covariance_mn = self._kernel.covariance(self._kernel.scaled(x_mf), self._x_ng)
        mean_m: Floats = covariance_mn @ self._weighted_n
        return mean_m


class Posterior:
    """What is known of the function at m points, given observations at n.

    Of a trial that has not ended a fantasy is taken in: as if its value had come out as expected,
    so that means stay and variances fall.

    Attributes:
        mean_n: of the function at the observed points.
        mean_m, variance_m: of the function at the points asked about.
    """

    def __init__(
        self, kernel: Kernel, x_nf: Floats, y_n: Floats, x_mf: Floats, max_fantasies: int
    ) -> None:
        num_points = len(x_nf)
        # Room for all of them, so that sums run over the same memory however many come.
        size = num_points + max_fantasies
        x_ng, x_mg = kernel.scaled(x_nf), kernel.scaled(x_mf)
        covariance_nn = kernel.covariance(x_ng, x_ng)
        lower_nn = np.linalg.cholesky(covariance_nn + kernel.nugget * np.eye(num_points))
        inverse_nn = scipy.linalg.solve_triangular(
            lower_nn, np.eye(num_points), lower=True, check_finite=False
        )
        covariance_nm = kernel.covariance(x_ng, x_mg)
        self._kernel, self._x_mg, self._count = kernel, x_mg, num_points
        self._x_ng = np.zeros((size, x_ng.shape[1]))
        self._inverse_nn = np.zeros((size, size))  # of the lower factor
        self._solved_nm = np.zeros((size, len(x_mf)))  # the inverse by the covariances
        self._x_ng[:num_points] = x_ng
        self._inverse_nn[:num_points, :num_points] = inverse_nn
        self._solved_nm[:num_points] = inverse_nn @ covariance_nm
        self._weighted_n = inverse_nn.T @ (inverse_nn @ y_n)
        self.mean_n: Floats = covariance_nn @ self._weighted_n
        self.mean_m: Floats = covariance_nm.T @ self._weighted_n
        self.variance_m: Floats = kernel.signal - (self._solved_nm[:num_points] ** 2).sum(axis=0)

    def take_in(self, x_f: Floats) -> float:
        """Take in a fantasy at a point; the mean there."""
        kernel, n, x_1g = self._kernel, self._count, self._kernel.scaled(x_f[None])
        with_n = kernel.covariance(self._x_ng[:n], x_1g)[:, 0]
        solved_n = self._inverse_nn[:n, :n] @ with_n
        left = kernel.signal + kernel.nugget - float(solved_n @ solved_n)
        root = math.sqrt(max(left, _JITTER))
        with_m = kernel.covariance(x_1g, self._x_mg)[0]
        solved_m = (with_m - solved_n @ self._solved_nm[:n]) / root
        self.variance_m -= solved_m**2
        self._x_ng[n], self._solved_nm[n] = x_1g, solved_m
        self._inverse_nn[n, :n] = solved_n @ self._inverse_nn[:n, :n] / -root
        self._inverse_nn[n, n] = 1 / root
        self._count += 1
        return float(with_n[: len(self._weighted_n)] @ self._weighted_n)


def log_expected_improvement(mean_m: Floats, variance_m: Floats, best: float) -> Floats:
    """Logarithm of E[max(best - value, 0)] of normal values.

    Far below `best` by the asymptote of the Mills ratio, as in Ament et al., Unexpected
    Improvements to Expected Improvement (2023).
    """
    scale_m = np.sqrt(np.maximum(variance_m, 1e-12))
    off_m = (best - mean_m) / scale_m
    near_m = np.maximum(off_m, -6.0)
    density_m = np.exp(-0.5 * near_m**2) / math.sqrt(2 * math.pi)
    far_m = np.minimum(off_m, -6.0)
    logarithm_m: Floats = np.log(scale_m) + np.where(
        off_m > -6.0,
        np.log(density_m + near_m * scipy.special.ndtr(near_m)),
        -0.5 * far_m**2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(-far_m),
    )
    return logarithm_m


def _matern(distance: Floats) -> Floats:
    return (1 + distance + distance**2 / 3) * np.exp(-distance)
