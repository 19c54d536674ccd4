"""Where a learning curve is going, from two of its points.  Imports nothing that is installed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """How a run is predicted at one epoch: how far it goes on as it has come since another.

    Attributes:
        since: the earlier epoch.
        weight: of the difference between the two, which is added to how the run stands.
    """

    since: int
    weight: float


def predicted(value: float, standings: Mapping[int, float], prediction: Prediction | None) -> float:
    """What a run that stands at `value` will probably end with.

    That is `value` itself without a prediction, or where how the run stood earlier is not known.

    Args:
        standings: by epoch, how the run stood.
    """
    if prediction is None or prediction.since not in standings:
        return value
    found = value + prediction.weight * (value - standings[prediction.since])
    return found if math.isfinite(found) else value
