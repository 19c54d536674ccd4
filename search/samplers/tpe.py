"""TPE: the tree-structured Parzen estimator, joint over all parameters.

Bergstra et al., Algorithms for Hyper-Parameter Optimization (2011), with what matters according to
Watanabe, Tree-Structured Parzen Estimator: Understanding Its Algorithm Components and Their Roles
for Better Empirical Performance (2023): the floor of the bandwidth, the size of the good set, the
weight of the prior, and kernels that are joint.

# n trials, c candidates, k levels, s sources
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from ridgeline.search.samplers.axes import INACTIVE, Axes, Axis, Cells, Floats
from ridgeline.search.samplers.base import Belief
from ridgeline.search.samplers.evidence import Evidence
from ridgeline.search.samplers.model_based import Model, ModelBasedSampler, Scores
from ridgeline.search.samplers.outcomes import spread
from ridgeline.search.samplers.surrogate import Observed

_GOOD_SHARE = 0.15
_MAX_GOOD = 25
_MAX_OTHERS = 256

_WIDTH = 0.15
"""Bandwidth of a single trial, in units of the axis; of n it is n**(-1 / (d + 4)) times as wide."""
_NARROWEST = 0.03
_NARROWEST_STEP = 0.35
"""The same in units of the distance between levels."""

_SAME = 0.8
"""Probability that a kernel gives to its own category."""

_TRUST = 2.0
_FADING = 10
"""By how much the logarithm of the density's ratio rises with what a source that is right expects
to be better by a standard deviation, and after how many trials by half as much."""
_AGREEMENT, _NUM_BEFORE = 0.8, 4
"""The correlation of expectations with outcomes, before any trial, and how many it counts for."""

_MAX_LEVELS = 64
"""Of more levels, where they are ordered, the density stands for the probability."""


class TpeSampler(ModelBasedSampler):
    """Suggests where good trials are dense and others are not.

    Trials under way count as others, so that parallel ones keep apart.
    """

    name = "tpe"
    identity = "tpe/3"

    def fitted(self, evidence: Evidence) -> Model:
        order = np.argsort(evidence.outcomes.rank_n, kind="stable")
        num_good = min(math.ceil(_GOOD_SHARE * len(order)), _MAX_GOOD)
        good_nd = evidence.places_nd[order[:num_good]]
        others_nd = evidence.places_nd[spread(order[num_good:], _MAX_OTHERS)]
        # The better, the heavier; together as heavy as if all were equal.
        weight_n = np.arange(num_good, 0, -1) * 2 / (num_good + 1)
        trust_s = _trust(evidence)

        def scores(candidates_cd: Floats) -> Scores:
            hint_c = -evidence.expected(candidates_cd) @ trust_s
            return _Ratio(evidence.axes, good_nd, weight_n, others_nd, candidates_cd, hint_c)

        return scores


def _trust(evidence: Evidence) -> Floats:
    """What the expectations of each source count for: less, the more they mislead and the more
    trials there are, as in Hvarfner et al., πBO: Augmenting Acquisition Functions with User
    Beliefs (2022).
    """
    observed = Observed.of(evidence)
    num_trials, num_sources = observed.expected_ns.shape
    off_ns = observed.expected_ns - observed.expected_ns.sum(axis=0) / max(num_trials, 1)
    product_s = off_ns.T @ observed.target_n  # of which the sum of squares is their number
    norm_s = np.sqrt((off_ns**2).sum(axis=0) * max(num_trials, 1))
    correlation_s = product_s / np.where(norm_s > 0, norm_s, 1.0)
    share = _NUM_BEFORE / (_NUM_BEFORE + num_trials)
    agreement_s = share * _AGREEMENT + (1 - share) * correlation_s
    fading = _FADING / (_FADING + len(evidence.places_nd))
    trust_s: Floats = _TRUST * fading * np.maximum(agreement_s, 0.0) / max(num_sources, 1)
    return trust_s


class _Ratio:
    """The density of good trials over that of the others, at candidates."""

    def __init__(
        self,
        axes: Axes,
        good_nd: Floats,
        weight_n: Floats,
        others_nd: Floats,
        candidates_cd: Floats,
        hint_c: Floats,
    ) -> None:
        self._axes, self._candidates_cd, self._hint_c = axes, candidates_cd, hint_c
        self._levels = [
            axis.levels_of(np.maximum(place_c, 0.0)) if _has_levels(axis) else None
            for axis, place_c in zip(axes.axes, candidates_cd.T, strict=True)
        ]
        """Of each candidate [c], for each axis."""
        # Each density has one more kernel, which is 1 everywhere.
        self._log_good_c = np.log(1 + self._kernels(good_nd, len(good_nd)) @ weight_n)
        self._num_good, self._num_others = len(good_nd), len(others_nd)
        self._others_c = 1 + self._kernels(others_nd, self._num_others).sum(axis=1)

    def take_in(self, place_d: Floats) -> None:
        self._others_c += self._kernels(place_d[None], self._num_others)[:, 0]
        self._num_others += 1

    def of_candidates(self) -> Floats:
        others_c: Floats = self._others_c / (self._num_others + 1)
        return self._log_good_c - np.log(others_c) + self._hint_c

    def _kernels(self, places_nd: Floats, count: int) -> Floats:
        """Density of the kernel of each trial at each candidate [c, n], as one of `count`.

        In units of the even density, which is too small for a number in large spaces.  Over a
        parameter that a trial lacks its kernel is even.
        """
        width = max(_NARROWEST, _WIDTH * max(count, 1) ** (-1 / (len(self._axes) + 4)))
        log_cn = np.zeros((len(self._candidates_cd), len(places_nd)))
        for i, axis in enumerate(self._axes.axes):
            place_c, place_n, level_c = self._candidates_cd[:, i], places_nd[:, i], self._levels[i]
            lacking_cn = (place_c[:, None] == INACTIVE) | (place_n == INACTIVE)
            place_n = np.maximum(place_n, 0.0)
            if level_c is None:
                # A normal density, cut off at the ends of the axis.
                inside_n = scipy.special.ndtr((1 - place_n) / width) - scipy.special.ndtr(
                    -place_n / width
                )
                axis_cn = -0.5 * ((place_c[:, None] - place_n) / width) ** 2
                axis_cn -= np.log(inside_n * width * math.sqrt(2 * math.pi))
            elif axis.ordered:
                log_kn = np.log(_level_densities(axis, axis.levels_of(place_n), width))
                axis_cn = log_kn[level_c]
            else:
                same_cn = level_c[:, None] == axis.levels_of(place_n)
                axis_cn = np.where(same_cn, *_log_category_densities(axis))
            log_cn += np.where(lacking_cn, 0.0, axis_cn) if lacking_cn.any() else axis_cn
        kernels_cn: Floats = np.exp(log_cn)
        return kernels_cn

    def belief(self, candidate: int) -> Belief:
        good = math.exp(float(self._log_good_c[candidate])) / (self._num_good + 1)
        others = float(self._others_c[candidate]) / (self._num_others + 1)
        return Belief(len(self._candidates_cd), density_ratio=good / others)


def _has_levels(axis: Axis) -> bool:
    return not axis.ordered or (axis.num_levels is not None and axis.num_levels <= _MAX_LEVELS)


def _log_category_densities(axis: Axis) -> tuple[float, float]:
    """At a kernel's own category, and at any other one."""
    count = axis.num_levels or 1
    if count == 1:
        return 0.0, 0.0
    return math.log(_SAME * count), math.log((1 - _SAME) / (count - 1) * count)


def _level_densities(axis: Axis, level_n: Cells, width: float) -> Floats:
    """The kernel of the level of each trial (column) at all levels (row) [k, n]."""
    place_k, num_levels = axis.level_places, len(axis.level_places)
    edges = np.concatenate([[0.0], (place_k[1:] + place_k[:-1]) / 2, [1.0]])
    width = max(width, _NARROWEST_STEP / num_levels)
    below_kn = scipy.special.ndtr((edges[:, None] - place_k[level_n]) / width)
    mass_kn = below_kn[1:] - below_kn[:-1]
    density_kn: Floats = np.maximum(mass_kn / mass_kn.sum(axis=0), 1e-12) * num_levels
    return density_kn
