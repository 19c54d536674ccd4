"""Normal numbers out of counted draws, by a table of quantiles.

A library's logarithms and cosines may be rounded in another way at the end of a vector than within
it, so their bits would depend on the slot.  A table is read alike everywhere.
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

NORMAL_BITS: Final = 12


@cache
def normal_quantiles() -> NDArray[np.float64]:
    """4,096 equally likely numbers, in rising order, that stand for the normal distribution.

    Its quantiles at the middles of so many parts, scaled to a variance of 1.  Multiples of 2**-20,
    so the same on every machine; none is beyond ±3.7.
    """
    num_levels = 2**NORMAL_BITS
    middles = (np.arange(num_levels) + 0.5) / num_levels
    quantiles = np.array([NormalDist().inv_cdf(middle) for middle in middles.tolist()])
    quantiles /= np.sqrt(np.square(quantiles).mean())
    return np.round(quantiles * 2**20) / 2**20


def normal_numbers(draws: Tensor, quantiles: Tensor) -> Tensor:
    """One for each draw of `rng.draw`, from `normal_quantiles` in the dtype that is wanted."""
    levels = (draws >> (64 - NORMAL_BITS)).add_(2 ** (NORMAL_BITS - 1))
    return quantiles[levels]
