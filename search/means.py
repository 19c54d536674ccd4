"""The mean of numbers of any size, and what its intervals are called.

Importing this module imports the standard library alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection

CONFIDENCE = 0.95
"""Of every interval; a verdict is wrong in at most 5 % of all comparisons of equal arms."""

INTERVAL = f"{100 * CONFIDENCE:g} % interval"
"""What one is called wherever people read of it."""


def mean(values: Collection[float]) -> float:
    """Of finite numbers, at least one: finite, where their sum need not be.

    `statistics.fmean` raises OverflowError there.
    """
    quick = sum(values) / len(values)
    return quick if math.isfinite(quick) else statistics.mean(values)
