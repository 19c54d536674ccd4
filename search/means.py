"""The mean of numbers of any size.  Importing this module imports the standard library alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection


def mean(values: Collection[float]) -> float:
    """Of finite numbers, at least one: finite, where their sum need not be.

    `statistics.fmean` raises OverflowError there.
    """
    quick = sum(values) / len(values)
    return quick if math.isfinite(quick) else statistics.mean(values)
