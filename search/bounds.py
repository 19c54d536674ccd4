"""Between which a metric is, whatever is trained.  Importing this module imports nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """The least and the greatest that a score can be, such as 0 and 1 of an accuracy."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def of_differences(self) -> Bounds:
        """Those of one score less another."""
        return Bounds(self.low - self.high, self.high - self.low)
