"""Along which line the good trials of a study lie, by two parameters on log scales.

Larger batches take larger learning rates, and other penalties other ones: what is good is often no
point but a ridge, and its slope carries over to other batch sizes.  Near its optimum the value is
taken for a quadratic function of the logarithms u and v,

    a + b u + c v + d u² + e u v + f v²,

of which the least in u, for each v, is the line u = -(b + e v) / 2d.  Fitted by least squares to
the better part of the trials, whose values are replaced by the normal scores of their ranks (van
der Waerden): no scale of the metric bends it.  The interval is that of the percentile bootstrap
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

# k trials, c coefficients, r resamples
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ridgeline.search.ranges import FloatParameter, IntParameter
from ridgeline.search.samplers.axes import Floats
from ridgeline.search.space import Config, Parameter, Space, ValuesParameter

MIN_TRIALS = 20
"""Trials that a line is fitted to, at least."""

_SHARES = 2 / 3, 4 / 5, 9 / 10
"""Of the trials, the best of which the line is looked for in: the next one where the one before
shows none.  What is hopeless hides what is good, and a sampler that learns tries little else."""
_NUM_RESAMPLED = 400
_SURE = 0.975
"""Share of the resamples in which the values must have a least one along the line."""
_ROWS_A_COEFFICIENT = 3


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


def ridge(space: Space, ranked: Sequence[Config], across: str, up: str) -> Ridge | None:
    """The line along which `across` does best; None where the trials show none.

    They show none where they are too few, where a parameter is not on a log scale, or where it
    cannot be told whether the best value of `across` lies between those that were tried.

    Args:
        ranked: configurations of the complete trials, best first.
    """
    if not (_is_logarithmic(space[across]) and _is_logarithmic(space[up])):
        return None
    # An exact 0 has no logarithm.
    having = [c for c in ranked if float(c.get(across, 0)) > 0 and float(c.get(up, 0)) > 0]
    for share in _SHARES:
        kept = having[: max(MIN_TRIALS, math.floor(share * len(having)))]
        if len(kept) >= MIN_TRIALS and (found := _line(space, kept, across, up)) is not None:
            return found
    return None


def _line(space: Space, kept: Sequence[Config], across: str, up: str) -> Ridge | None:
    """The line of some trials, best first."""
    u_k, v_k = (np.log([float(config[name]) for config in kept]) for name in (across, up))
    if len(np.unique(u_k)) < 3 or len(np.unique(v_k)) < 2:
        return None
    mean_u, mean_v = u_k.mean(), v_k.mean()
    terms_kc = _terms(u_k - mean_u, v_k - mean_v, _others(space, kept, (across, up)))
    scores_k = _normal_scores(len(kept))
    generator = np.random.default_rng(0)
    picks_rk = generator.integers(len(kept), size=(_NUM_RESAMPLED, len(kept)))
    fits_rc = np.array([_fitted(terms_kc[picks_k], scores_k[picks_k]) for picks_k in picks_rk])
    bends_r = fits_rc[:, 3] > 0
    fit_c = _fitted(terms_kc, scores_k)
    if bends_r.mean() < _SURE or not fit_c[3] > 0:
        return None
    _, b, _, d, e, *_ = fit_c.tolist()
    slope = -e / (2 * d)
    start = mean_u - b / (2 * d) - slope * mean_v
    span = _span(start, slope, u_k, v_k)
    if span is None:
        return None
    low, high = np.percentile(-fits_rc[bends_r, 4] / (2 * fits_rc[bends_r, 3]), [2.5, 97.5])
    # Rounded: 64 is exp(log(64)) up to the last digits.
    first, last = (float(f"{math.exp(end):.12g}") for end in span)
    return Ridge(slope, float(low), float(high), (first, last), float(start))


def _is_logarithmic(parameter: Parameter) -> bool:
    if isinstance(parameter, ValuesParameter):
        return parameter.ordered and float(parameter.values[-1]) > 0
    return parameter.log


def _terms(u_k: Floats, v_k: Floats, others: Sequence[Floats]) -> Floats:
    """The quadratic's terms, and as many of what other parameters add as the trials can bear."""
    terms = [np.ones_like(u_k), u_k, v_k, u_k**2, u_k * v_k, v_k**2]
    for other_k in others:
        if _ROWS_A_COEFFICIENT * (len(terms) + 2) > len(u_k):
            break
        terms += [other_k, other_k**2]
    return np.stack(terms, axis=1)


def _others(space: Space, kept: Sequence[Config], pair: tuple[str, str]) -> list[Floats]:
    """Where the trials lie on the axes of the other numbers that all of them have."""
    found = []
    for name, parameter in space.items():
        is_number = isinstance(parameter, FloatParameter | IntParameter) or parameter.ordered
        if name in pair or not is_number or any(name not in config for config in kept):
            continue
        place_k = np.array([parameter.encode(config[name]) for config in kept])
        if len(np.unique(place_k)) > 2:
            found.append(place_k - place_k.mean())
    return found


def _normal_scores(count: int) -> Floats:
    """Those of the ranks of so many trials, best first."""
    from statistics import NormalDist

    inverse = NormalDist().inv_cdf
    return np.array([inverse((rank + 0.5) / count) for rank in range(count)])


def _fitted(terms_kc: Floats, scores_k: Floats) -> Floats:
    fit_c: Floats = np.linalg.lstsq(terms_kc, scores_k, rcond=None)[0]
    return fit_c


def _span(start: float, slope: float, u_k: Floats, v_k: Floats) -> tuple[float, float] | None:
    """Of a line u = start + slope v both ends, as v, of its part where trials lie; if any."""
    low, high = float(v_k.min()), float(v_k.max())
    if abs(slope) > 1e-9:
        bounds = sorted((float(end) - start) / slope for end in (u_k.min(), u_k.max()))
        low, high = max(low, bounds[0]), min(high, bounds[1])
    elif not u_k.min() <= start <= u_k.max():
        return None
    return (low, high) if low < high else None
