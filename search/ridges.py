"""Along which line the good trials of a study lie, by two parameters on log scales.

Larger batches take larger learning rates, and other penalties other ones: what is good is often no
point but a ridge, and its slope carries over to other batch sizes.  Near its optimum the value is
taken for a quadratic function of the logarithms u and v,

    a + b u + c v + d u² + e u v + f v²,

of which the least in u, for each v, is the line u = -(b + e v) / 2d.  Fitted by least squares to
the better part of the trials, whose values are replaced by the normal scores of their ranks (van
der Waerden): no scale of the metric bends it.  The interval is that of the percentile bootstrap
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

# k trials, t terms, r resamples
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import NormalDist

import numpy as np

from ridgeline.search.ranges import FloatParameter, IntParameter
from ridgeline.search.samplers.axes import Flags, Floats
from ridgeline.search.space import Config, Parameter, Space, ValuesParameter

MIN_TRIALS = 20
"""Trials that a line is fitted to, at least."""

_SHARES = 2 / 3, 4 / 5, 9 / 10
"""Of the trials, the best of which the line is looked for in: the next one where the one before
shows none.  What is hopeless hides what is good, and a sampler that learns tries little else."""
_MOST_TRIALS = 500
"""That a line is fitted to, evenly spaced by rank: a report is made while somebody waits."""
_MOST_OTHERS = 8
_TRIALS_A_TERM = 3

_NUM_RESAMPLED = 400
_SURE = 0.975
"""Share of the resamples in which the values must have a least one along `across`."""
_NOTHING = 1e-9
"""Eigenvalues of so small a share of the largest one say nothing of their direction."""
_WIDEST = 8.0
"""Of an interval: whoever knows less knows nothing."""
_SHORTEST = 2.0
"""Ratio of the values of `up` at both ends of a line."""

_BEND, _TILT = 3, 4
"""The places of d and e among the terms."""


@dataclass(frozen=True)
class Ridge:
    """For each value of one parameter the value of another one that does best.

    Attributes:
        slope: of log(across) by log(up).
        low, high: where the slope lies, with 95 % confidence.
        span: the values of `up` for which that of `across` is within what the trials have.
    """

    slope: float
    low: float
    high: float
    span: tuple[float, float]
    _start: float

    def across_at(self, up: float) -> float:
        """The best value of the other parameter for a value of `up`."""
        return math.exp(self._start + self.slope * math.log(up))


Known = tuple[Config, float]
"""A complete trial: its configuration and its value."""


def ridge(space: Space, ranked: Sequence[Known], across: str, up: str) -> Ridge | None:
    """The line along which `across` does best; None where the trials show none.

    They show none where they are too few, where a parameter is not on a log scale, or where it
    cannot be told whether the best value of `across` lies between those that were tried, or how it
    changes with `up`.

    Args:
        ranked: complete trials, best first.
    """
    if not (_is_logarithmic(space[across]) and _is_logarithmic(space[up])):
        return None
    # An exact 0 has no logarithm.
    having = [
        (config, value)
        for config, value in ranked
        if float(config.get(across, 0)) > 0 and float(config.get(up, 0)) > 0
    ]
    for share in _SHARES:
        kept = _best(having, max(MIN_TRIALS, math.floor(share * len(having))))
        if len(kept) >= MIN_TRIALS and (found := _line(space, kept, across, up)) is not None:
            return found
    return None


def _is_logarithmic(parameter: Parameter) -> bool:
    if isinstance(parameter, ValuesParameter):
        return parameter.ordered and float(parameter.values[-1]) > 0
    return parameter.log


def _best(ranked: Sequence[Known], count: int) -> list[Known]:
    """About the best `count` trials, and all that are as good as the last of them, thinned out."""
    while 0 < count < len(ranked) and ranked[count][1] == ranked[count - 1][1]:
        count += 1
    kept = ranked[:count]
    if len(kept) <= _MOST_TRIALS:
        return list(kept)
    return [
        kept[place] for place in np.linspace(0, len(kept) - 1, _MOST_TRIALS).round().astype(int)
    ]


def _line(space: Space, kept: Sequence[Known], across: str, up: str) -> Ridge | None:
    """The line of some trials, best first."""
    configs = [config for config, _ in kept]
    u_k, v_k = (np.log([float(config[name]) for config in configs]) for name in (across, up))
    spread_u, spread_v = float(u_k.std()), float(v_k.std())
    if not (spread_u > 0 and spread_v > 0):
        return None
    mean_u, mean_v = float(u_k.mean()), float(v_k.mean())
    terms_kt = _terms(
        (u_k - mean_u) / spread_u, (v_k - mean_v) / spread_v, _others(space, configs, (across, up))
    )
    scores_k = _normal_scores([value for _, value in kept])
    num_trials = len(kept)
    generator = np.random.default_rng(0)
    picks_rk = generator.integers(num_trials, size=(_NUM_RESAMPLED, num_trials))
    counts_rk = np.array([np.bincount(picks_k, minlength=num_trials) for picks_k in picks_rk])
    fit_1t, bends_1 = _fitted(terms_kt, scores_k, np.ones((1, num_trials)))
    fits_rt, bends_r = _fitted(terms_kt, scores_k, counts_rk.astype(np.float64))
    if not bends_1[0] or bends_r.mean() < _SURE:
        return None
    scale = spread_u / spread_v
    _, b, _, d, e, *_ = fit_1t[0].tolist()
    slope = -e / (2 * d) * scale
    slopes = -fits_rt[bends_r, _TILT] / (2 * fits_rt[bends_r, _BEND]) * scale
    low, high = (float(end) for end in np.percentile(slopes, [2.5, 97.5]))
    start = mean_u - b / (2 * d) * spread_u - slope * mean_v
    span = _span(start, slope, u_k, v_k)
    if span is None or high - low > _WIDEST:
        return None
    return Ridge(slope, low, high, span, start)


def _terms(u_k: Floats, v_k: Floats, others: Iterator[Floats]) -> Floats:
    """The quadratic's terms, and as many of what other parameters add as the trials can bear."""
    terms = [np.ones_like(u_k), u_k, v_k, u_k**2, u_k * v_k, v_k**2]
    for _, other_k in zip(range(_MOST_OTHERS), others, strict=False):
        if _TRIALS_A_TERM * (len(terms) + 2) > len(u_k):
            break
        terms += [other_k, other_k**2]
    return np.stack(terms, axis=1)


def _others(space: Space, kept: Sequence[Config], pair: tuple[str, str]) -> Iterator[Floats]:
    """Where the trials lie on the axes of the other numbers that all of them have."""
    for name, parameter in space.items():
        is_number = isinstance(parameter, FloatParameter | IntParameter) or parameter.ordered
        if name in pair or not is_number or any(name not in config for config in kept):
            continue
        place_k = np.array([parameter.encode(config[name]) for config in kept])
        if len(np.unique(place_k)) > 2:
            yield (place_k - place_k.mean()) / place_k.std()


def _normal_scores(values: Sequence[float]) -> Floats:
    """Those of the ranks of values in their order, best first; equal ones have the same."""
    inverse = NormalDist().inv_cdf
    scores = [inverse((rank + 0.5) / len(values)) for rank in range(len(values))]
    shared: list[float] = []
    for _, equal in groupby(values):
        its = scores[len(shared) : len(shared) + sum(1 for _ in equal)]
        shared += [sum(its) / len(its)] * len(its)
    return np.array(shared)


def _fitted(terms_kt: Floats, scores_k: Floats, counts_rk: Floats) -> tuple[Floats, Flags]:
    """The coefficients of fits to trials, each taken so often, and which fits have a least value.

    One that the trials leave open how it bends, or tilts, has none.
    """
    num_terms = terms_kt.shape[1]
    squares_kq = (terms_kt[:, :, None] * terms_kt[:, None, :]).reshape(len(terms_kt), -1)
    gram_rtt = (counts_rk @ squares_kq).reshape(-1, num_terms, num_terms)
    right_rt = counts_rk @ (terms_kt * scores_k[:, None])
    values_rt, vectors_rtt = np.linalg.eigh(gram_rtt)
    is_known_rt = values_rt > _NOTHING * values_rt[:, -1:]
    inverse_rt = np.where(is_known_rt, 1 / np.where(is_known_rt, values_rt, 1.0), 0.0)
    along_rt = inverse_rt * np.einsum("rst,rs->rt", vectors_rtt, right_rt)
    fits_rt: Floats = np.einsum("rst,rt->rs", vectors_rtt, along_rt)
    # How much of a term lies in directions that the trials say nothing of.
    unknown_rs = np.einsum("rst,rt->rs", vectors_rtt**2, ~is_known_rt)
    is_told_r = (unknown_rs[:, [_BEND, _TILT]] < 1e-6).all(axis=1)
    return fits_rt, is_told_r & (fits_rt[:, _BEND] > 0)


def _span(start: float, slope: float, u_k: Floats, v_k: Floats) -> tuple[float, float] | None:
    """Of a line u = start + slope v, exp(v) at both ends of its part where trials lie.

    None where that is short.
    """
    low, high = float(v_k.min()), float(v_k.max())
    if abs(slope) > 1e-9:
        bounds = sorted((float(end) - start) / slope for end in (u_k.min(), u_k.max()))
        low, high = max(low, bounds[0]), min(high, bounds[1])
    elif not u_k.min() <= start <= u_k.max():
        return None
    if high - low < math.log(_SHORTEST) - 1e-9:
        return None
    return math.exp(low), math.exp(high)
