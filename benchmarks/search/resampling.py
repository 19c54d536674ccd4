"""How sure a figure of a benchmark is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def interval_of(resampled: npt.NDArray[np.float64] | Sequence[float]) -> list[float]:
    """The 90 % interval of a figure, of what it comes to with studies drawn again."""
    low, high = np.nanquantile(resampled, [0.05, 0.95])
    return [round(float(low), 4), round(float(high), 4)]
